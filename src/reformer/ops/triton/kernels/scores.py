"""What all attention kernels share: loading vectors, addressing slots, masking and scoring.

A tile of scores has queries along one axis and keys along the other; what belongs to a query or key is passed
with a second axis of size 1, so that the functions serve both orientations. Scores are in units of log2.
"""

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
SELF_SCORE = tl.constexpr(-144269.50408889634)  # -1e5 in units of log2
NOT_SPECIALIZED = [
    "H",
    "R",
    "Tq",
    "S",
    "round_index",
    "first_row",
    "q_offset",
    "dropout_seed",
    "dropout_threshold",
]
"""Numbers for whose values no kernel is compiled anew; strides are not among them."""
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def load_vectors(row_ptr, positions, stride, mask, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """Vectors `[len(positions), PADDED]` of a row, zeros where the mask is False and behind SIZE."""
    d = tl.arange(0, PADDED)
    pointers = row_ptr + positions.to(tl.int64)[:, None] * stride + d[None, :]
    if SIZE == PADDED:
        vectors = tl.load(pointers, mask=mask[:, None], other=0.0)
    else:
        vectors = tl.load(pointers, mask=mask[:, None] & (d < SIZE)[None, :], other=0.0)
    if INTERPRETED:  # the interpreter would multiply the bits of bfloat16 as if they were integers
        vectors = vectors.to(tl.float32)
    return vectors


@triton.jit
def store_vectors(row_ptr, positions, stride, values, mask, SIZE: tl.constexpr, PADDED: tl.constexpr):
    """The reverse of `load_vectors`."""
    d = tl.arange(0, PADDED)
    pointers = row_ptr + positions.to(tl.int64)[:, None] * stride + d[None, :]
    tl.store(pointers, values.to(row_ptr.dtype.element_ty), mask=mask[:, None] & (d < SIZE)[None, :])


@triton.jit
def row_start(row, H, stride_batch, stride_head):
    """Offset of the first vector of a row (batch element * H + head)."""
    return (row // H).to(tl.int64) * stride_batch + (row % H).to(tl.int64) * stride_head


@triton.jit
def remainder(x, period):
    """In [0, period), whatever the sign of x."""
    return ((x % period) + period) % period


@triton.jit
def log2_count(
    query,
    query_mask,
    key_id,
    key_mask,
    slot_of_key,
    lo_of_query,
    hi_of_query,
    row,
    R,
    Tq,
    S,
    period,
    WRAPS: tl.constexpr,
):
    """How often, over all rounds, queries see keys: log2 of it, and 0 where they never do.

    `key_id` is the position of a key, counted from where its level begins.
    """
    count = query * 0 + key_id * 0
    r = row * 0
    while r < R:
        of_round = (row * R + r).to(tl.int64)
        lo = tl.load(lo_of_query + of_round * Tq + query, mask=query_mask, other=0)
        hi = tl.load(hi_of_query + of_round * Tq + query, mask=query_mask, other=0)
        if WRAPS:
            other = row * 0
            while other < R:
                of_other = (row * R + other).to(tl.int64)
                slot = tl.load(slot_of_key + of_other * S + key_id, mask=key_mask, other=0)
                above_hi = hi - 1 - slot
                above_lo = lo - 1 - slot
                # Floored division by the period, of both, and their difference.
                span = above_hi - remainder(above_hi, period) - (above_lo - remainder(above_lo, period))
                count += span // period
                other += 1
        else:
            slot = tl.load(slot_of_key + of_round * S + key_id, mask=key_mask, other=0)
            count += ((slot >= lo) & (slot < hi)).to(tl.int32)
        r += 1
    return tl.log2(tl.maximum(count, 1).to(tl.float32))


@triton.jit
def kept(seed, row, round_index, query_position, key, threshold):
    """Whether dropout keeps a weight: see `reformer.ops.dropout`, whose arithmetic this is, in 32 bits."""
    round_seed = (row.to(tl.uint32) * 1000003 + round_index.to(tl.uint32)) * 0x27D4EB2F + seed.to(tl.uint32)
    query_seed = (round_seed ^ (query_position.to(tl.uint32) * 0x165667B1)) * 0x2545F491
    x = query_seed ^ (key.to(tl.uint32) * 0x9E3779B1)
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    x = x ^ (x >> 16)
    return x.to(tl.int32, bitcast=True) >= threshold
