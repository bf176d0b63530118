"""Attention of tiles of sorted queries over gathered keys, one hash round a launch.

The rounds merge online: what a query has so far is its unnormalised output (float32), the highest score and
the sum of exponentials, which each launch reads and writes. No tensor has rounds and features.
"""

import triton
import triton.language as tl

from reformer.ops.triton.kernels.scores import (
    LOG2_E,
    NOT_SPECIALIZED,
    SELF_SCORE,
    kept,
    load_vectors,
    log2_count,
    remainder,
    row_start,
    store_vectors,
)


@triton.jit(do_not_specialize=NOT_SPECIALIZED)
def _attention_fwd_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    sum_ptr,  # unnormalised output so far, float32 [rows, Tq, DV]; not used where there is one round
    highest_ptr,
    total_ptr,
    keys_ptr,
    queries_ptr,
    lo_ptr,
    hi_ptr,
    num_real_ptr,
    slot_of_key_ptr,
    lo_of_query_ptr,
    hi_of_query_ptr,
    level_of_slot_ptr,
    q_batch,
    q_head,
    q_token,
    k_batch,
    k_head,
    k_token,
    v_batch,
    v_head,
    v_token,
    out_batch,
    out_head,
    out_token,
    H,
    R,
    Tq,
    S,
    round_index,
    first_row,  # among all rows, of those that are worked on
    q_offset,  # position of query 0
    dropout_seed,
    dropout_threshold,
    dropout_scale,
    D: tl.constexpr,
    DV: tl.constexpr,
    PADDED_D: tl.constexpr,
    PADDED_DV: tl.constexpr,
    TILE: tl.constexpr,
    WRAPS: tl.constexpr,
    CHECK_CAUSAL: tl.constexpr,
    PENALIZE_SELF: tl.constexpr,
    DUPLICATES: tl.constexpr,
    DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    num_tiles = tl.cdiv(Tq, TILE)
    row = tl.program_id(0) // num_tiles
    index = tl.program_id(0) % num_tiles * TILE + tl.arange(0, TILE)
    of_round = (row * R + round_index).to(tl.int64)
    filled = index < Tq
    query = tl.load(queries_ptr + of_round * Tq + index, mask=filled, other=0)
    lo = tl.load(lo_ptr + of_round * Tq + index, mask=filled, other=0)
    hi = tl.load(hi_ptr + of_round * Tq + index, mask=filled, other=0)
    hi = tl.maximum(lo, hi)
    q_position = query + q_offset
    num_real = tl.maximum(tl.load(num_real_ptr + row), 1)
    period = num_real * R

    k_row = k_ptr + row_start(row, H, k_batch, k_head)
    v_row = v_ptr + row_start(row, H, v_batch, v_head)
    q = load_vectors(q_ptr + row_start(row, H, q_batch, q_head), query, q_token, filled, D, PADDED_D)

    of_query = row.to(tl.int64) * Tq + query
    merged = filled & (round_index > 0)
    highest = tl.load(highest_ptr + of_query, mask=merged, other=-float("inf"))
    total = tl.load(total_ptr + of_query, mask=merged, other=0.0)
    sum_row = sum_ptr + row.to(tl.int64) * Tq * DV
    out = load_vectors(sum_row, query, DV, merged, DV, PADDED_DV)

    stop = tl.max(hi, 0)
    slot_first = tl.min(tl.where(hi > lo, lo, stop), 0)
    while slot_first < stop:
        slot = slot_first + tl.arange(0, TILE)
        inside = slot < stop
        if WRAPS:
            place = remainder(slot, period)
            of_slot = row.to(tl.int64) * R * S + (place // num_real).to(tl.int64) * S + place % num_real
        else:
            of_slot = of_round * S + slot
        key = tl.load(keys_ptr + of_slot, mask=inside, other=0)
        k = load_vectors(k_row, key, k_token, inside, D, PADDED_D)
        v = load_vectors(v_row, key, v_token, inside, DV, PADDED_DV)

        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * LOG2_E
        seen = (slot[None, :] >= lo[:, None]) & (slot[None, :] < hi[:, None])
        if CHECK_CAUSAL:
            seen = seen & (key[None, :] <= q_position[:, None])
        if PENALIZE_SELF:
            scores = tl.where(key[None, :] == q_position[:, None], SELF_SCORE, scores)
        if DUPLICATES:
            if WRAPS:
                key_id = key
            else:
                key_id = key + tl.load(level_of_slot_ptr + slot, mask=inside, other=0)
            scores -= log2_count(
                query[:, None],
                filled[:, None],
                key_id[None, :],
                inside[None, :],
                slot_of_key_ptr,
                lo_of_query_ptr,
                hi_of_query_ptr,
                row,
                R,
                Tq,
                S,
                period,
                WRAPS,
            )
        scores = tl.where(seen, scores, -float("inf"))

        new_highest = tl.maximum(highest, tl.max(scores, 1))
        reference = tl.where(new_highest == -float("inf"), 0.0, new_highest)
        old_weight = tl.exp2(highest - reference)
        weights = tl.exp2(scores - reference[:, None])
        total = total * old_weight + tl.sum(weights, 1)
        highest = new_highest
        if DROPOUT:
            keeps = kept(
                dropout_seed,
                first_row + row,
                round_index,
                q_position[:, None],
                key[None, :],
                dropout_threshold,
            )
            weights = tl.where(keeps, weights * dropout_scale, 0.0)
        out = out * old_weight[:, None]
        out = tl.dot(weights.to(v.dtype), v, out, input_precision=PRECISION)

        # On to the next slot that any query sees.
        slot_first += TILE
        slot_first = tl.min(tl.where(hi > slot_first, tl.maximum(lo, slot_first), stop), 0)

    tl.store(highest_ptr + of_query, highest, mask=filled)
    tl.store(total_ptr + of_query, total, mask=filled)
    is_last = round_index == R - 1
    store_vectors(sum_row, query, DV, out, filled & (round_index < R - 1), DV, PADDED_DV)
    out = out / tl.where(total == 0, 1.0, total)[:, None]
    out_row = out_ptr + row_start(row, H, out_batch, out_head)
    store_vectors(out_row, query, out_token, out, filled & is_last, DV, PADDED_DV)
