"""Gradients of keys and values: tiles of sorted keys gather from the queries that see them.

Those queries are neighbours in the plan. There is a launch for each hash round, and for each level, since a
key is in all levels that end behind it.
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


@triton.jit(
    do_not_specialize=[
        *NOT_SPECIALIZED,
        "Tk",
        "num_all_tiles",
        "level_size",
        "first_slot",
        "first_tile",
        "is_first",
        "is_last",
    ]
)
def _attention_bwd_keys_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    grad_out_ptr,
    grad_k_ptr,
    grad_v_ptr,
    sum_k_ptr,  # gradients so far, float32 [rows, Tk, D]; not used where one launch is all
    sum_v_ptr,  # likewise, DV
    highest_ptr,
    total_ptr,
    delta_ptr,
    keys_ptr,
    queries_ptr,
    lo_ptr,
    hi_ptr,
    first_viewer_ptr,
    stop_viewer_ptr,
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
    grad_out_batch,
    grad_out_head,
    grad_out_token,
    grad_k_batch,
    grad_k_head,
    grad_k_token,
    grad_v_batch,
    grad_v_head,
    grad_v_token,
    H,
    R,
    Tq,
    S,
    Tk,
    num_all_tiles,  # of a round, in all levels
    level_size,  # keys of the level
    round_index,
    first_slot,  # of the level
    first_tile,
    is_first,  # whether no launch before has written
    is_last,
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
    num_tiles = tl.cdiv(level_size, TILE)
    row = tl.program_id(0) // num_tiles
    tile = tl.program_id(0) % num_tiles
    place = first_slot + tile * TILE + tl.arange(0, TILE)
    of_round = (row * R + round_index).to(tl.int64)
    filled = place < first_slot + level_size
    key = tl.load(keys_ptr + of_round * S + place, mask=filled, other=0)
    num_real = tl.load(num_real_ptr + row)
    slot = place
    if WRAPS:
        # Places of padding have numbers that belong to the next round: no query may see them there.
        slot = tl.where(place < num_real, place + round_index * num_real, -0x7FFFFFFF)
    num_real = tl.maximum(num_real, 1)
    period = num_real * R

    q_row = q_ptr + row_start(row, H, q_batch, q_head)
    grad_out_row = grad_out_ptr + row_start(row, H, grad_out_batch, grad_out_head)
    k = load_vectors(k_ptr + row_start(row, H, k_batch, k_head), key, k_token, filled, D, PADDED_D)
    v = load_vectors(v_ptr + row_start(row, H, v_batch, v_head), key, v_token, filled, DV, PADDED_DV)
    sum_k_row = sum_k_ptr + row.to(tl.int64) * Tk * D
    sum_v_row = sum_v_ptr + row.to(tl.int64) * Tk * DV
    merged = filled & (is_first == 0)
    grad_k = load_vectors(sum_k_row, key, D, merged, D, PADDED_D)
    grad_v = load_vectors(sum_v_row, key, DV, merged, DV, PADDED_DV)
    key_id = key
    if DUPLICATES:
        key_id = key + first_slot

    of_tile = of_round * num_all_tiles + first_tile + tile
    viewer_stop = tl.load(stop_viewer_ptr + of_tile)
    viewer_first = tl.load(first_viewer_ptr + of_tile)
    while viewer_first < viewer_stop:
        number = viewer_first + tl.arange(0, TILE)
        viewer_first += TILE
        inside = number < viewer_stop
        if WRAPS:
            index = remainder(number, period)
            query_round = index // num_real
            of_index = row.to(tl.int64) * R * Tq + query_round.to(tl.int64) * Tq + index % num_real
            turn = number - index
        else:
            query_round = number * 0 + round_index
            of_index = of_round * Tq + number
            turn = 0
        query = tl.load(queries_ptr + of_index, mask=inside, other=0)
        lo = tl.load(lo_ptr + of_index, mask=inside, other=0) + turn
        hi = tl.load(hi_ptr + of_index, mask=inside, other=0) + turn
        q_position = query + q_offset
        of_query = row.to(tl.int64) * Tq + query
        highest = tl.load(highest_ptr + of_query, mask=inside, other=0.0)
        highest = tl.where(highest == -float("inf"), 0.0, highest)
        total = tl.load(total_ptr + of_query, mask=inside, other=1.0)
        inverse_total = 1.0 / tl.where(total == 0, 1.0, total)
        delta = tl.load(delta_ptr + of_query, mask=inside, other=0.0)
        q = load_vectors(q_row, query, q_token, inside, D, PADDED_D)
        grad_out = load_vectors(grad_out_row, query, grad_out_token, inside, DV, PADDED_DV)

        # Everything from here on is [keys, queries].
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * LOG2_E
        seen = inside[None, :] & (slot[:, None] >= lo[None, :]) & (slot[:, None] < hi[None, :])
        if CHECK_CAUSAL:
            seen = seen & (key[:, None] <= q_position[None, :])
        if PENALIZE_SELF:
            scores = tl.where(key[:, None] == q_position[None, :], SELF_SCORE, scores)
        if DUPLICATES:
            scores -= log2_count(
                query[None, :],
                inside[None, :],
                key_id[:, None],
                filled[:, None],
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
        weights = tl.exp2(scores - highest[None, :]) * inverse_total[None, :]
        grad_weights = tl.dot(v, tl.trans(grad_out), input_precision=PRECISION)
        dropped = weights
        if DROPOUT:
            keeps = kept(
                dropout_seed,
                first_row + row,
                query_round[None, :],
                q_position[None, :],
                key[:, None],
                dropout_threshold,
            )
            grad_weights = tl.where(keeps, grad_weights * dropout_scale, 0.0)
            dropped = tl.where(keeps, weights * dropout_scale, 0.0)
        grad_v = tl.dot(dropped.to(grad_out.dtype), grad_out, grad_v, input_precision=PRECISION)
        grad_scores = tl.where(seen, weights * (grad_weights - delta[None, :]), 0.0)
        if PENALIZE_SELF:
            grad_scores = tl.where(key[:, None] == q_position[None, :], 0.0, grad_scores)
        grad_k = tl.dot(grad_scores.to(q.dtype), q, grad_k, input_precision=PRECISION)

    unfinished = filled & (is_last == 0)
    finished = filled & (is_last != 0)
    store_vectors(sum_k_row, key, D, grad_k, unfinished, D, PADDED_D)
    store_vectors(sum_v_row, key, DV, grad_v, unfinished, DV, PADDED_DV)
    grad_k_row = grad_k_ptr + row_start(row, H, grad_k_batch, grad_k_head)
    grad_v_row = grad_v_ptr + row_start(row, H, grad_v_batch, grad_v_head)
    store_vectors(grad_k_row, key, grad_k_token, grad_k, finished, D, PADDED_D)
    store_vectors(grad_v_row, key, grad_v_token, grad_v, finished, DV, PADDED_DV)
