"""What each query sees, as ranges of sorted keys, for the GPU: the counterpart of `ops/windows.py`.

All shapes follow from those of the inputs, so that nothing waits for the device. Keys are sorted by torch:
its stable radix sort is the vendor's own, and sorting takes a small part of the time of the attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_BEHIND_ALL = torch.iinfo(torch.int64).max  # the bucket of padding
_SORTED_AT_ONCE = 1 << 25  # keys of the rows that are planned together: 1 GiB of work space


@dataclass(frozen=True)
class Plan:
    """The sorted keys and queries of N = B * H rows in R rounds, and the ranges of slots that queries see.

    A round of a row has S slots, in which its keys lie sorted, padding behind all. S is the number of keys,
    or of the keys of all levels, one level behind the other. Keys are cut into tiles of `tile` slots, and
    queries whose ranges hold a slot of a tile are its viewers: they are neighbours too.

    In window "chunk" slots and queries are numbered through all rounds of a row, round r from
    `r * num_real` on, and around: a number stands for itself and for all that are a multiple of
    `R * num_real` away.
    """

    keys: Tensor  # int32 [N, R, S]: position of the key in each slot
    queries: Tensor  # int32 [N, R, Tq]: number of each query in the order of their ranges
    lo: Tensor  # int32 [N, R, Tq]: first slot seen
    hi: Tensor  # int32 [N, R, Tq]: behind the last slot seen
    first_viewer: Tensor  # int32 [N, R, tiles]
    stop_viewer: Tensor  # int32 [N, R, tiles]
    num_real: Tensor  # int32 [N]: real tokens
    level_keys: Sequence[int]  # keys of each level
    wraps: bool  # whether numbers go through all rounds


def bucket_plan(
    levels: Sequence[tuple[Tensor, Tensor]],
    key_padding_mask: Tensor | None,
    *,
    own: bool,
    before: int,
    after: int,
    causal: bool,
    tile: int,
) -> Plan:
    """Plan window "bucket" (see `reference.bucket_counts`).

    Args:
        levels: (q_buckets, k_buckets) of each level, `[B, H, R, *]`: the next queries, over the first keys.
        key_padding_mask: bool `[B, Tk]`, True where a real token is.
        own: whether the buckets of queries are those of the keys at their positions.
        before: ranks that a query sees backwards.
        after: ranks that a query sees forwards.
        causal: whether later keys are excluded.
        tile: slots in a tile of keys.
    """
    parts: list[list[Tensor]] = []
    level_reals, base = [], 0
    for q_buckets, k_buckets in levels:
        (B, H, R, Tq), E = q_buckets.shape, k_buckets.shape[3]
        real = (
            None if key_padding_mask is None else key_padding_mask[:, None, :E].expand(B, H, E).flatten(0, 1)
        )
        num_real = _num_real(real, B * H, E, q_buckets.device)[:, None, None]
        level_reals.append(num_real)
        blocks = []
        for rows in _row_blocks(B * H, R * E):
            k_rows, q_rows = k_buckets.flatten(0, 1)[rows], q_buckets.flatten(0, 1)[rows]
            if real is not None:
                padding = ~real[rows, None]
                k_rows = k_rows.long().masked_fill(padding, _BEHIND_ALL)
                q_rows = q_rows.long().masked_fill(padding[..., E - Tq :], _BEHIND_ALL)
            ranges = _ranges_of_own if own else _ranges_of_others
            keys, queries, lo, hi = ranges(
                q_rows, k_rows, num_real[rows], before=before, after=after, causal=causal
            )
            queries = queries - (E - Tq) + sum(part[1].shape[2] for part in parts)
            blocks.append([x.to(torch.int32) for x in (keys, queries, lo + base, hi + base)])
        parts.append([torch.cat(x) for x in zip(*blocks, strict=True)])
        base += E
    keys, queries, lo, hi = (torch.cat(x, dim=2) for x in zip(*parts, strict=True))
    level_keys = [k_buckets.shape[3] for _, k_buckets in levels]
    first, stop = _viewers(lo, hi, level_keys, level_reals, tile)
    return Plan(keys, queries, lo, hi, first, stop, level_reals[-1].flatten(), level_keys, wraps=False)


def chunk_plan(
    buckets: Tensor, key_padding_mask: Tensor | None, *, chunk_length: int, before: int, after: int, tile: int
) -> Plan:
    """Plan window "chunk" (see `reference.chunk_counts`), but for causality.

    Args:
        buckets: int `[B, H, R, T]`.
        key_padding_mask: bool `[B, T]`, True where a real token is.
        chunk_length: tokens in a chunk.
        before: chunks that a query sees backwards.
        after: chunks that a query sees forwards.
        tile: slots in a tile of keys.
    """
    B, H, R, T = buckets.shape
    device = buckets.device
    real = None if key_padding_mask is None else key_padding_mask[:, None].expand(B, H, T).flatten(0, 1)
    orders = []
    for rows in _row_blocks(B * H, R * T):
        of_rows = buckets.flatten(0, 1)[rows]
        if real is not None:
            of_rows = of_rows.long().masked_fill(~real[rows, None], _BEHIND_ALL)
        orders.append(of_rows.argsort(dim=-1, stable=True).to(torch.int32))
    order = torch.cat(orders)
    # Rows of one batch element have the same ranges.
    num_real = _num_real(key_padding_mask, 1 if key_padding_mask is None else B, T, device)
    n = num_real[:, None, None]
    num_chunks = ((n + chunk_length - 1) // chunk_length).clamp(min=1)

    def chunk_start(chunk: Tensor) -> Tensor:
        """Number of the slot where a chunk of the endless list of all rounds' chunks begins."""
        rounds = chunk.div(num_chunks, rounding_mode="floor")
        return rounds * n + ((chunk - rounds * num_chunks) * chunk_length).minimum(n)

    round_first = torch.arange(R, device=device, dtype=torch.int32)[:, None] * num_chunks
    rank = torch.arange(T, device=device, dtype=torch.int32)
    chunk = round_first + rank // chunk_length
    is_real = rank < n
    lo = torch.where(is_real, chunk_start(chunk - before), 0)
    hi = torch.where(is_real, chunk_start(chunk + after + 1), 0)
    first_rank = torch.arange(0, T, tile, device=device, dtype=torch.int32)
    last_rank = (first_rank + tile - 1).minimum(n - 1)
    first = chunk_start(round_first + first_rank // chunk_length - after)
    stop = chunk_start(round_first + last_rank // chunk_length + before + 1)
    stop = torch.where(first_rank < n, stop, first)
    heads = B * H // max(1, len(num_real))
    ranges = (x.repeat_interleave(heads, dim=0) for x in (lo, hi, first, stop, num_real))
    lo, hi, first, stop, num_real = ranges
    return Plan(order, order, lo, hi, first, stop, num_real, [T], wraps=True)


def local_plan(
    num_queries: int,
    num_keys: int,
    num_rows: int,
    key_padding_mask: Tensor | None,
    *,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    tile: int,
    device: torch.device,
) -> Plan:
    """Plan the chunked sliding window (see `reference.local_counts`).

    Args:
        num_queries: Tq; the queries are the last positions.
        num_keys: Tk.
        num_rows: B * H.
        key_padding_mask: bool `[B, Tk]`, True where a real token is.
        chunk_length: tokens in a chunk.
        before: chunks that a query sees backwards.
        after: chunks that a query sees forwards.
        causal: whether later keys are excluded.
        tile: slots in a tile of keys.
        device: of the plan.
    """
    # Rows of one batch element have one plan, but for what they share out of it.
    B = 1 if key_padding_mask is None else key_padding_mask.shape[0]
    if key_padding_mask is None:
        order = torch.arange(num_keys, device=device)[None, None]
    else:
        order = (~key_padding_mask).to(torch.uint8).argsort(dim=-1, stable=True)[:, None]
    n = _num_real(key_padding_mask, B, num_keys, device)[:, None, None]
    queries, rank = _slots_of_queries(order, num_queries)
    chunk = rank // chunk_length
    lo = ((chunk - before) * chunk_length).clamp(min=0).minimum(n)
    hi = ((chunk + after + 1) * chunk_length).minimum(n)
    if causal:
        hi = hi.minimum(rank + 1)
    lo, hi = (torch.where(rank < n, x, n).to(torch.int32) for x in (lo, hi))
    first, stop = _viewers(lo, hi, [num_keys], [n], tile)
    heads = num_rows // max(B, 1)
    per_row = (
        order.to(torch.int32),
        (queries - (num_keys - num_queries)).to(torch.int32),
        lo,
        hi,
        first,
        stop,
    )
    keys, queries, lo, hi, first, stop = (x.repeat_interleave(heads, dim=0) for x in per_row)
    num_real = n.flatten().repeat_interleave(heads)
    return Plan(keys, queries, lo, hi, first, stop, num_real, [num_keys], wraps=False)


@dataclass(frozen=True)
class Duplicates:
    """For the duplicate correction: where each key is and what each query sees, by position."""

    slot_of_key: Tensor  # int32 [N, R, S]: of each level, its slot by position
    lo_of_query: Tensor  # int32 [N, R, Tq]
    hi_of_query: Tensor  # int32 [N, R, Tq]
    level_of_slot: Tensor  # int32 [S]: where the level of a slot begins


def find_duplicates(
    keys: Tensor,
    queries: Tensor,
    lo: Tensor,
    hi: Tensor,
    num_real: Tensor,
    level_keys: Sequence[int],
    *,
    wraps: bool,
) -> Duplicates:
    """Invert a plan, whose fields these are."""
    device, S = keys.device, keys.shape[2]
    starts = [sum(level_keys[:i]) for i in range(len(level_keys))]
    level_of_slot = torch.cat(
        [
            torch.full((E,), start, dtype=torch.int32, device=device)
            for start, E in zip(starts, level_keys, strict=True)
        ]
    )
    slots = torch.arange(S, dtype=torch.int32, device=device).expand_as(keys)
    if wraps:
        slots = (
            slots
            + torch.arange(keys.shape[1], dtype=torch.int32, device=device)[:, None] * num_real[:, None, None]
        )
    slot_of_key = torch.empty_like(keys).scatter_(2, (keys + level_of_slot).long(), slots)
    lo, hi = (torch.empty_like(x).scatter_(2, queries.long(), x) for x in (lo, hi))
    return Duplicates(slot_of_key, lo, hi, level_of_slot)


def _ranges_of_own(
    q_buckets: Tensor, k_buckets: Tensor, num_real: Tensor, *, before: int, after: int, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys by slot, queries (positions) in order and their ranges, where queries are the last keys."""
    buckets, order = k_buckets.sort(dim=-1, stable=True)
    queries, slot = _slots_of_queries(order, q_buckets.shape[-1])
    of_queries = buckets if queries is order else buckets.gather(-1, slot)
    start = torch.searchsorted(buckets, of_queries)
    lo = torch.maximum(start, slot - before)
    hi = (slot + 1).expand_as(lo)
    if not causal:
        hi = torch.minimum(torch.searchsorted(buckets, of_queries, right=True), hi + after)
    is_real = slot < num_real
    return order, queries, torch.where(is_real, lo, num_real), torch.where(is_real, hi, num_real)


def _ranges_of_others(
    q_buckets: Tensor, k_buckets: Tensor, num_real: Tensor, *, before: int, after: int, causal: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same for queries with buckets of their own."""
    Tq, Tk = q_buckets.shape[-1], k_buckets.shape[-1]
    buckets, order = k_buckets.sort(dim=-1, stable=True)
    of_queries, queries = q_buckets.sort(dim=-1, stable=True)
    queries = queries + Tk - Tq
    start = torch.searchsorted(buckets, of_queries)
    stop = torch.searchsorted(buckets, of_queries, right=True)
    # (bucket, position) as one number; a bucket is named by its first slot.
    code = (torch.searchsorted(buckets, buckets) << 32) | order
    behind_own = torch.searchsorted(code, (start << 32) | queries, right=True).minimum(stop)
    lo = torch.maximum(start, behind_own - 1 - before)
    hi = behind_own if causal else torch.minimum(stop, behind_own + after)
    is_real = of_queries != _BEHIND_ALL
    return order, queries, torch.where(is_real, lo, num_real), torch.where(is_real, hi, num_real)


def _slots_of_queries(order: Tensor, num_queries: int) -> tuple[Tensor, Tensor]:
    """Positions and slots `[*, Tq]` of the last Tq positions, in the order `[*, Tk]` of the keys."""
    num_keys = order.shape[-1]
    if num_queries == num_keys:
        return order, torch.arange(num_keys, device=order.device)[None, None]
    is_no_query = (order < num_keys - num_queries).to(torch.uint8)
    slot = is_no_query.argsort(dim=-1, stable=True)[..., :num_queries]
    return order.gather(-1, slot), slot


def _viewers(
    lo: Tensor, hi: Tensor, level_keys: Sequence[int], level_reals: Sequence[Tensor], tile: int
) -> tuple[Tensor, Tensor]:
    """First viewer of each tile of keys, and the query behind the last: int32 `[N, R, tiles]`.

    Args:
        lo: first slot seen, int32 `[N, R, Tq]`.
        hi: behind the last slot seen.
        level_keys: keys of each level.
        level_reals: how many of them are real, int32 `[N, 1, 1]`.
        tile: slots in a tile.
    """
    base, first_slots, last_slots = 0, [], []
    for E, num_real in zip(level_keys, level_reals, strict=True):
        first = torch.arange(base, base + E, tile, device=lo.device, dtype=torch.int32)
        first_slots.append(first.expand(lo.shape[0], lo.shape[1], -1))
        last = (first + tile - 1).minimum(base + num_real - 1)
        last_slots.append(last.expand(lo.shape[0], lo.shape[1], -1))
        base += E
    first = torch.searchsorted(hi, torch.cat(first_slots, dim=2), right=True, out_int32=True)
    stop = torch.searchsorted(lo, torch.cat(last_slots, dim=2), right=True, out_int32=True)
    return first, torch.maximum(first, stop)


def _num_real(mask: Tensor | None, num_rows: int, num_keys: int, device: torch.device) -> Tensor:
    if mask is None:
        return torch.full((num_rows,), num_keys, dtype=torch.int32, device=device)
    return mask.sum(-1, dtype=torch.int32)


def _row_blocks(num_rows: int, keys_of_row: int) -> list[slice]:
    step = max(1, _SORTED_AT_ONCE // max(1, keys_of_row))
    return [slice(start, start + step) for start in range(0, max(1, num_rows), step)]
