"""Gradients of queries: tiles of sorted queries gather from the keys that they see, one round a launch.

The weights are rebuilt from the highest score and the sum of exponentials of each query. Every vector has one
writer in a launch, here and in `backward_keys`, so there are no atomics and the order of sums is fixed.
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
def _attention_bwd_queries_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    out_ptr,
    grad_out_ptr,
    grad_q_ptr,
    sum_ptr,  # gradient so far, float32 [rows, Tq, D]; not used where there is one round
    highest_ptr,
    total_ptr,
    delta_ptr,  # grad_out . out of each query, written by the first launch
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
    grad_out_batch,
    grad_out_head,
    grad_out_token,
    grad_q_batch,
    grad_q_head,
    grad_q_token,
    H,
    R,
    Tq,
    S,
    round_index,
    first_row,
    q_offset,
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
    grad_out = load_vectors(
        grad_out_ptr + row_start(row, H, grad_out_batch, grad_out_head),
        query,
        grad_out_token,
        filled,
        DV,
        PADDED_DV,
    )
    of_query = row.to(tl.int64) * Tq + query
    highest = tl.load(highest_ptr + of_query, mask=filled, other=0.0)
    highest = tl.where(highest == -float("inf"), 0.0, highest)
    total = tl.load(total_ptr + of_query, mask=filled, other=1.0)
    inverse_total = 1.0 / tl.where(total == 0, 1.0, total)
    if round_index == 0:
        out_row = out_ptr + row_start(row, H, out_batch, out_head)
        out = load_vectors(out_row, query, out_token, filled, DV, PADDED_DV)
        delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
        tl.store(delta_ptr + of_query, delta, mask=filled)
    else:
        delta = tl.load(delta_ptr + of_query, mask=filled, other=0.0)
    sum_row = sum_ptr + row.to(tl.int64) * Tq * D
    merged = filled & (round_index > 0)
    grad_q = load_vectors(sum_row, query, D, merged, D, PADDED_D)

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
        weights = tl.exp2(scores - highest[:, None]) * inverse_total[:, None]
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
        if DROPOUT:
            keeps = kept(
                dropout_seed,
                first_row + row,
                round_index,
                q_position[:, None],
                key[None, :],
                dropout_threshold,
            )
            grad_weights = tl.where(keeps, grad_weights * dropout_scale, 0.0)
        grad_scores = tl.where(seen, weights * (grad_weights - delta[:, None]), 0.0)
        if PENALIZE_SELF:
            grad_scores = tl.where(key[None, :] == q_position[:, None], 0.0, grad_scores)
        grad_q = tl.dot(grad_scores.to(k.dtype), k, grad_q, input_precision=PRECISION)

        slot_first += TILE
        slot_first = tl.min(tl.where(hi > slot_first, tl.maximum(lo, slot_first), stop), 0)

    is_last = round_index == R - 1
    store_vectors(sum_row, query, D, grad_q, filled & (round_index < R - 1), D, PADDED_D)
    grad_q_row = grad_q_ptr + row_start(row, H, grad_q_batch, grad_q_head)
    store_vectors(grad_q_row, query, grad_q_token, grad_q, filled & is_last, D, PADDED_D)
