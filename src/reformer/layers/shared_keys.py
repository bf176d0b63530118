"""Keys that are made of queries: vectors of one length (Kitaev et al. 2020, section 2, "shared-QK")."""

import math
from typing import Any

import torch
from torch import Tensor

_EPSILON = 1e-6


def shared_keys(q: Tensor) -> Tensor:
    """Queries divided by their root mean square and by sqrt(D), so that a score needs no other scale.

    Args:
        q: `[..., D]`, floating; in 16 bits, it is computed with in float32.

    Returns:
        `[..., D]`, with the dtype of q.
    """
    wide = q.to(torch.promote_types(q.dtype, torch.float32))
    k = wide * _factor(wide) if torch.compiler.is_compiling() else _SharedKeys.apply(wide)
    return k.to(q.dtype)


def _factor(q: Tensor) -> Tensor:
    return (q.square().mean(-1, keepdim=True) + _EPSILON).rsqrt() / math.sqrt(q.shape[-1])


class _SharedKeys(torch.autograd.Function):
    """k = r q, with a factor r for each vector; its gradient is r (g - (g . k) k)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor) -> Tensor:
        return q * _factor(q)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (q,) = ctx.saved_tensors
        factor = _factor(q)
        return (grad - (grad * q).sum(-1, keepdim=True) * factor.square() * q) * factor
