"""Depthwise causal convolution along the positions of heads."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reformer.ops.large_tensors import new_empty
from reformer.ops.transforms import inside_transform

_CHUNK_NUMEL = 1 << 18  # numbers that are gone over once for each tap while they are in the cache


def causal_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Make of each vector a weighted sum, feature by feature, of itself and those before it.

    `y[t] = sum over i < n of weight[i] * x[t - i]`, what is before the first vector being 0.

    Args:
        x: `[B, H, T, D]`, floating; in 16 bits, it is computed with in float32.
        weight: `[n, H, D]`.

    Returns:
        `[B, H, T, D]`, with the dtype of x and positions before heads in memory.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32)).transpose(1, 2)
    convolve = _by_conv1d if inside_transform() else _Convolution.apply
    return convolve(wide, weight.to(wide.dtype)).to(x.dtype).transpose(1, 2)


def _by_conv1d(x: Tensor, weight: Tensor) -> Tensor:
    """The same of `[B, T, H, D]`, by operations that torch.func's transforms know."""
    n, H, D = weight.shape
    padded = F.pad(x.flatten(2).mT, (n - 1, 0))
    kernel = weight.flatten(1).flip(0).mT[:, None]
    return F.conv1d(padded, kernel, groups=H * D).mT.unflatten(2, (H, D))


class _Convolution(torch.autograd.Function):
    """Of `[B, T, H, D]` and weights `[n, H, D]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = new_empty(x, x.shape)
        for start, stop in _chunks(x):
            torch.mul(x[:, start:stop], weight[0], out=out[:, start:stop])
            for i in range(1, min(len(weight), stop)):
                first = max(start, i)
                out[:, first:stop].addcmul_(x[:, first - i : stop - i], weight[i])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x, grad_weight, T = new_empty(x, x.shape), torch.zeros_like(weight), x.shape[1]
        for start, stop in _chunks(x):
            torch.mul(grad[:, start:stop], weight[0], out=grad_x[:, start:stop])
            for i in range(1, min(len(weight), T - start)):
                last = min(stop, T - i)
                grad_x[:, start:last].addcmul_(grad[:, start + i : last + i], weight[i])
            for i in range(min(len(weight), stop)):
                first = max(start, i)
                grad_weight[i] += (grad[:, first:stop] * x[:, first - i : stop - i]).sum((0, 1))
        return grad_x, grad_weight


def _chunks(x: Tensor) -> list[tuple[int, int]]:
    """First and last position of the chunks of `[B, T, H, D]`."""
    B, T, H, D = x.shape
    step = max(1, _CHUNK_NUMEL // max(1, B * H * D))
    return [(start, min(start + step, T)) for start in range(0, T, step)]
