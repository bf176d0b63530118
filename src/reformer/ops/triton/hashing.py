"""The hash kernel as an operator that torch.compile knows."""

import math
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from reformer.ops.triton.support import padded_size

_TILE_NUMEL = 1 << 13  # of vectors
_MAX_TILE = 64
_PRECISION = "tf32x3"  # three products in tf32 are as exact as one in float32


@torch.library.custom_op("reformer::triton_hash", mutates_args=())
def hash_vectors(x: Tensor, rotations: Tensor, factors: Sequence[int], padding_mask: Tensor | None) -> Tensor:
    """Buckets of vectors: see `reformer.ops.lsh_hash`, whose arguments these are.

    Args:
        x: `[B, H, T, D]`, float32, bfloat16 or float16.
        rotations: `[H, D, R, sum(factors) / 2]`.
        factors: even numbers.
        padding_mask: bool `[B, T]`, True where a real token is.

    Returns:
        int64 `[B, H, R, T]`.
    """
    from reformer.ops.triton.kernels.hash import _hash_kernel

    (B, H, T, D), R = x.shape, rotations.shape[2]
    buckets = torch.empty(B, H, R, T, dtype=torch.int64, device=x.device)
    if not buckets.numel():
        return buckets
    x = x if x.stride(-1) == 1 else x.contiguous()
    rotations = rotations.float().permute(0, 2, 1, 3).contiguous()
    mask = x if padding_mask is None else padding_mask.view(torch.uint8)
    tile, columns = _tile_of(D)
    with torch.cuda.device_of(x):
        _hash_kernel[(B * H * R * math.ceil(T / tile),)](
            x,
            rotations,
            _widths(tuple(factors), x.device),
            mask,
            buckets,
            *x.stride()[:3],
            *mask.stride()[:2],
            H,
            R,
            T,
            rotations.shape[3],
            len(factors),
            math.prod(factors),
            D=D,
            PADDED_D=padded_size(D),
            TILE=tile,
            WIDEST=math.ceil(max(factors) / 2 / columns) * columns,
            COLUMNS=columns,
            MASKED=padding_mask is not None,
            PRECISION=_PRECISION,
            num_warps=4,
        )
    return buckets


@cache
def _widths(factors: tuple[int, ...], device: torch.device) -> Tensor:
    """Columns of rotations that each factor has, int32; kept, since making it waits for the device."""
    return torch.tensor([n // 2 for n in factors], dtype=torch.int32, device=device)


def _tile_of(size: int) -> tuple[int, int]:
    """How many vectors and columns of rotations are multiplied at once: what shared memory holds."""
    padded = padded_size(size)
    return min(_MAX_TILE, _TILE_NUMEL // padded), 32 if padded <= 64 else 16


@hash_vectors.register_fake
def _hash_fake(x: Tensor, rotations: Tensor, factors: Sequence[int], padding_mask: Tensor | None) -> Tensor:
    B, H, T, _ = x.shape
    return x.new_empty(B, H, rotations.shape[2], T, dtype=torch.int64)
