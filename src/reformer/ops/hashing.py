"""Angular locality-sensitive hashing (Reformer paper, section 2, "LSH attention")."""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor

from reformer.ops import cpu
from reformer.ops.triton import hashing as triton
from reformer.ops.triton.support import unsupported as triton_unsupported

# Products held at once, of all rounds: they stay in the cache of one core.
_BLOCK_NUMEL = 1 << 19


def lsh_hash(
    x: Tensor,
    rotations: Tensor,
    num_buckets: int | tuple[int, ...] | list[int],
    *,
    padding_mask: Tensor | None = None,
    backend: Literal["auto", "torch", "cpu", "triton"] = "auto",
) -> Tensor:
    """Hash vectors so that a small angle between two makes a shared bucket likely.

    With one factor n the bucket of a vector x is `argmax([xR ; -xR])`, R a random matrix of shape
    [D, n/2]. With factors (n0, n1, ...) it is `h_n0 + n0 * h_n1 + ...` with independent rotations, so
    that n0 * n1 * ... buckets cost n0 + n1 + ... products. (Andoni et al. 2015, cross-polytope LSH;
    Kitaev et al. 2020, section 2.)

    Args:
        x: `[B, H, T, D]`, any floating dtype. Carries no gradient here.
        rotations: `[H, D, R, sum(factors) / 2]`, R the number of hash rounds.
        num_buckets: 1, an even number, or a sequence of even factors.
        padding_mask: bool `[B, T]`, True where a real token is. Padding gets the bucket behind the
            last one, `prod(factors)`.
        backend: "auto", "torch", "cpu" or "triton" (compiled). They may differ where two products tie but
            for rounding.

    Returns:
        int64 `[B, H, R, T]`, in [0, prod(factors)) for real tokens.

    Raises:
        ValueError: shapes do not fit, or a factor is odd.
        NotImplementedError: the backend asked for cannot run here.
    """
    factors = (num_buckets,) if isinstance(num_buckets, int) else tuple(num_buckets)
    B, H, T, D, R = _check_hash_arguments(x, rotations, factors, padding_mask)
    total = math.prod(factors)
    compiled = ("triton" if x.is_cuda else "cpu") if backend == "auto" else backend
    if compiled != "torch":
        reason = triton_unsupported(x) if compiled == "triton" else cpu.unsupported(x)
        if reason is None and total >= 1 << 31:
            reason = f"{total} buckets are more than 2^31 - 1"
        if backend != "auto" and reason is not None:
            raise NotImplementedError(f'backend "{backend}" cannot run here: {reason}')
        if reason is None and total > 1:
            hash_vectors = triton.hash_vectors if compiled == "triton" else cpu.hash_vectors
            return hash_vectors(x.detach(), rotations.detach(), factors, padding_mask)
    buckets = torch.zeros(B, H, R, T, dtype=torch.int64, device=x.device)
    if total > 1:
        dtype = torch.promote_types(x.dtype, torch.float32)
        x, rotations = x.detach(), rotations.detach().to(dtype)
        rows = max(1, _BLOCK_NUMEL // (B * R * sum(factors) // 2))
        with torch.autocast(x.device.type, enabled=False):
            for h, start in itertools.product(range(H), range(0, T, rows)):
                block = x[:, h, start : start + rows].to(dtype)
                rotated = (block @ rotations[h].reshape(D, -1)).unflatten(-1, (R, -1))
                buckets[:, h, :, start : start + rows] = _cross_polytope(rotated, factors).mT
    if padding_mask is not None:
        buckets.masked_fill_(~padding_mask[:, None, None, :], total)
    return buckets


def _cross_polytope(rotated: Tensor, factors: tuple[int, ...]) -> Tensor:
    """`[B, T, R, sum(factors) / 2]` products to `[B, T, R]` buckets."""
    buckets = torch.zeros(rotated.shape[:-1], dtype=torch.int64, device=rotated.device)
    stride = 1
    for product in rotated.split([n // 2 for n in factors], dim=-1):
        n = 2 * product.shape[-1]
        highest, argmax = product.max(dim=-1)
        lowest, argmin = product.min(dim=-1)
        buckets += stride * torch.where(highest >= -lowest, argmax, n // 2 + argmin)
        stride *= n
    return buckets


def _check_hash_arguments(
    x: Tensor, rotations: Tensor, factors: tuple[int, ...], padding_mask: Tensor | None
) -> tuple[int, int, int, int, int]:
    if x.dim() != 4:
        raise ValueError(f"x must be [B, H, T, D], got {list(x.shape)}")
    B, H, T, D = x.shape
    if padding_mask is not None and (padding_mask.dtype != torch.bool or padding_mask.shape != (B, T)):
        raise ValueError(
            f"padding_mask must be bool [B={B}, T={T}], got {padding_mask.dtype} {list(padding_mask.shape)}"
        )
    if factors == (1,):
        if rotations.dim() != 4:
            raise ValueError(f"rotations must be [H, D, R, n / 2], got {list(rotations.shape)}")
        return B, H, T, D, rotations.shape[2]
    if not factors or any(n < 2 or n % 2 for n in factors):
        raise ValueError(f"num_buckets must be 1 or even factors, got {factors}")
    expected = (H, D, sum(factors) // 2)
    if rotations.dim() != 4 or (rotations.shape[0], rotations.shape[1], rotations.shape[3]) != expected:
        raise ValueError(
            f"rotations must be [H={H}, D={D}, R, {sum(factors) // 2}] for num_buckets={factors}, "
            f"got {list(rotations.shape)}"
        )
    return B, H, T, D, rotations.shape[2]
