"""Hashing: products with the rotations and the argmax over them, without products in memory."""

import triton
import triton.language as tl

from reformer.ops.triton.kernels.scores import load_vectors, row_start


@triton.jit(do_not_specialize=["H", "R", "T", "width", "num_factors", "behind_all"])
def _hash_kernel(
    x_ptr,
    rotations_ptr,  # float32 [H, R, D, width]
    widths_ptr,  # int32: columns of each factor, half of it
    mask_ptr,
    buckets_ptr,  # int64 [N, R, T]
    x_batch,
    x_head,
    x_token,
    mask_batch,
    mask_token,
    H,
    R,
    T,
    width,
    num_factors,
    behind_all,  # the bucket of padding
    D: tl.constexpr,
    PADDED_D: tl.constexpr,
    TILE: tl.constexpr,
    WIDEST: tl.constexpr,  # columns of the widest factor
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    PRECISION: tl.constexpr,
):
    num_tiles = tl.cdiv(T, TILE)
    of_round = tl.program_id(0) // num_tiles
    row = of_round // R
    position = tl.program_id(0) % num_tiles * TILE + tl.arange(0, TILE)
    filled = position < T
    x = load_vectors(x_ptr + row_start(row, H, x_batch, x_head), position, x_token, filled, D, PADDED_D)
    x = x.to(tl.float32)
    d = tl.arange(0, PADDED_D)
    matrix = rotations_ptr + (row % H * R + of_round % R).to(tl.int64) * D * width

    bucket = tl.zeros([TILE], dtype=tl.int64)
    stride = tl.full([], 1, dtype=tl.int64)
    first = row * 0
    factor = row * 0
    while factor < num_factors:
        columns = tl.load(widths_ptr + factor)
        highest = tl.full([TILE], -float("inf"), dtype=tl.float32)
        lowest = tl.full([TILE], float("inf"), dtype=tl.float32)
        argmax = tl.zeros([TILE], dtype=tl.int32)
        argmin = tl.zeros([TILE], dtype=tl.int32)
        for start in range(0, WIDEST, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            exists = column < columns
            pointers = matrix + d[:, None] * width + (first + column)[None, :]
            rotation = tl.load(pointers, mask=(d < D)[:, None] & exists[None, :], other=0.0)
            products = tl.dot(x, rotation, input_precision=PRECISION)
            # Of products that tie the first one wins, here and from block to block.
            upper = tl.where(exists[None, :], products, -float("inf"))
            best = tl.max(upper, 1)
            place = tl.min(tl.where(upper == best[:, None], column[None, :], columns - 1), 1)
            argmax = tl.where(best > highest, place, argmax)
            highest = tl.maximum(highest, best)
            lower = tl.where(exists[None, :], products, float("inf"))
            best = tl.min(lower, 1)
            place = tl.min(tl.where(lower == best[:, None], column[None, :], columns - 1), 1)
            argmin = tl.where(best < lowest, place, argmin)
            lowest = tl.minimum(lowest, best)
        chosen = tl.where(highest >= -lowest, argmax, columns + argmin)
        bucket += stride * chosen.to(tl.int64)
        stride *= 2 * columns
        first += columns
        factor += 1
    if MASKED:
        of_token = (row // H).to(tl.int64) * mask_batch + position.to(tl.int64) * mask_token
        real = tl.load(mask_ptr + of_token, mask=filled, other=0)
        bucket = tl.where(real != 0, bucket, behind_all)
    tl.store(buckets_ptr + of_round.to(tl.int64) * T + position, bucket, mask=filled)
