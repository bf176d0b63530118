"""What each query may see, as ranges of sorted keys.

All windows come down to one description, so that one kernel serves them all: a list of key slots
(sorted keys, row after row), and for each query a contiguous range [lo, hi) of slots. Queries are
listed in the order of their ranges and cut into tiles, whose ranges overlap.

A row is one head of one batch element; `Layout` says where in memory the vectors of a row are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the vectors of a tensor `[B, H, T, D]` are among all its vectors, as they lie in memory.

    They lie either position after position of one head, or, in a projection whose heads were split by a
    view, head after head of one position.
    """

    num_heads: int
    length: int  # positions in a row
    heads_inside: bool  # whether the heads of a position lie side by side

    @classmethod
    def of(cls, x: Tensor) -> "Layout":
        """The layout that `[B, H, T, D]` has in memory."""
        return cls(x.shape[1], x.shape[2], not x.is_contiguous() and x.transpose(1, 2).is_contiguous())

    @classmethod
    def like(cls, x: Tensor, size: int, new: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
        """A tensor `[B, H, T, size]` that lies in memory as x does, of vectors made by `new(x, shape)`."""
        return cls.of(x).tensor(new(x, (x.shape[:3].numel(), size)))

    def vectors(self, x: Tensor) -> Tensor:
        """All vectors of `[B, H, T, D]` as `[B * H * T, D]`, without a copy if x has this layout."""
        return (x.transpose(1, 2) if self.heads_inside else x).reshape(-1, x.shape[-1])

    def tensor(self, vectors: Tensor) -> Tensor:
        """Undo `vectors`."""
        H, T, D = self.num_heads, self.length, vectors.shape[-1]
        return vectors.view(-1, T, H, D).transpose(1, 2) if self.heads_inside else vectors.view(-1, H, T, D)

    def index(self, row: Tensor, position: Tensor) -> Tensor:
        """The number of the vector of a row (batch element * H + head) at a position."""
        if self.heads_inside:
            batch = row // self.num_heads
            return (batch * self.length + position) * self.num_heads + row % self.num_heads
        return row * self.length + position

    def position(self, index: Tensor) -> Tensor:
        """The position of a vector."""
        return (index // self.num_heads if self.heads_inside else index) % self.length

    def row(self, index: Tensor) -> Tensor:
        """The row of a vector."""
        if self.heads_inside:
            return index // (self.num_heads * self.length) * self.num_heads + index % self.num_heads
        return index // self.length


@dataclass(frozen=True)
class Duplicates:
    """For the duplicate correction: where the keys are, and what each query sees, in every round.

    A slot stands for itself and for all slots a multiple of `period` away.
    """

    key_slots: list[list[Tensor]]  # for each round, the slots where keys are: int64 [B * H * Tk] each
    lo: list[Tensor]  # for each round, int64 [B * H * Tq]
    hi: list[Tensor]
    period: Tensor  # int64 [B * H * Tq]

    def count(self, queries: Tensor, keys: Tensor) -> Tensor:
        """How often, over all rounds, queries `[G, M]` see keys `[G, L]`: int64 `[G, M, L]`."""
        period = self.period[queries][..., None]
        count = torch.zeros((), dtype=torch.int64, device=keys.device)
        for slots_of_round, lo, hi in zip(self.key_slots, self.lo, self.hi, strict=True):
            for slots in slots_of_round:
                slot = slots[keys][:, None]
                below_hi = (hi[queries][..., None] - 1 - slot).div(period, rounding_mode="floor")
                count = (
                    count + below_hi - (lo[queries][..., None] - 1 - slot).div(period, rounding_mode="floor")
                )
        return count


@dataclass(frozen=True)
class Plan:
    """The queries of some rows in one round, no query twice, and the keys that they see."""

    keys: Tensor  # int64 [slots]: which vector of k and v
    queries: Tensor  # int64 [queries]: which vector of q, in the order of their ranges
    lo: Tensor  # int64 [queries]: first slot seen
    hi: Tensor  # int64 [queries]: behind the last slot seen
    tiles: Tensor  # int64 [tiles + 1]: where tiles of queries begin and end
    tile_length: int  # queries in the longest tile
    run_length: int  # key slots that a tile normally needs
    check_causal: bool  # whether the ranges hold keys later than their query
    round_index: int
    duplicates: Duplicates | None = None


def bucket_plan(
    q_buckets: Tensor,
    k_buckets: Tensor,
    key_mask: Tensor | None,
    *,
    first_row: int,
    q_layout: Layout,
    k_layout: Layout,
    q_offset: int,
    round_index: int,
    before: int,
    after: int,
    causal: bool,
) -> Plan:
    """Plan one round of window "bucket" (see `reference.bucket_counts`).

    Args:
        q_buckets: int `[rows, Tq]`; the queries are the last Tq positions.
        k_buckets: int `[rows, Tk]`.
        key_mask: bool `[rows, Tk]`, True where a real token is.
        first_row: number of the first row.
        q_layout: of q.
        k_layout: of k and v.
        q_offset: position of the first vector of a row of q.
        round_index: number of the hash round.
        before: ranks that a query sees backwards.
        after: ranks that a query sees forwards.
        causal: whether later keys are excluded.
    """
    (N, Tq), Tk = q_buckets.shape, k_buckets.shape[-1]
    device = k_buckets.device
    row = torch.arange(N, device=device)[:, None]
    num_buckets = max(int(k_buckets.max()), int(q_buckets.max())) + 2
    own = Tq == Tk and (q_buckets is k_buckets or torch.equal(q_buckets, k_buckets))
    if key_mask is not None:
        k_buckets = k_buckets.masked_fill(~key_mask, num_buckets - 1)
        q_buckets = q_buckets.masked_fill(~key_mask[:, Tk - Tq :], num_buckets - 1)
    # (row, bucket, position) as one number: 2^63 bounds rows * buckets * Tk.
    sorted_buckets, k_order = k_buckets.sort(dim=-1, stable=True)
    group = row * num_buckets
    k_code = ((sorted_buckets + group) * Tk + k_order).flatten()
    if own:
        q_code = k_code
    else:
        q_sorted, q_order = q_buckets.sort(dim=-1, stable=True)
        q_code = ((q_sorted + group) * Tk + (q_order + Tk - Tq)).flatten()
    if key_mask is not None:
        q_code = q_code[(q_code // Tk) % num_buckets != num_buckets - 1]
    bucket = q_code // Tk
    start = torch.searchsorted(k_code, bucket * Tk)
    stop = torch.searchsorted(k_code, (bucket + 1) * Tk)
    behind_own = torch.searchsorted(k_code, q_code, right=True)
    lo = torch.maximum(start, behind_own - 1 - before)
    hi = behind_own if causal else torch.minimum(stop, behind_own + after)
    queries = q_layout.index(bucket // num_buckets + first_row, q_code % Tk - q_offset)
    # Where queries are all the keys their ranges advance with them, so a tile may cross buckets.
    segment = bucket // num_buckets if own else bucket
    tile_length = 64 if own else 32
    return Plan(
        keys=k_layout.index(row + first_row, k_order).flatten(),
        queries=queries,
        lo=lo,
        hi=hi,
        tiles=_tiles(segment, tile_length),
        tile_length=tile_length,
        run_length=tile_length + before + (0 if causal else after),
        check_causal=False,
        round_index=round_index,
    )


def chunk_plans(
    buckets: Tensor,
    key_mask: Tensor | None,
    *,
    first_row: int,
    layout: Layout,
    chunk_length: int,
    chunks_before: int,
    chunks_after: int,
    causal: bool,
    correct_duplicates: bool,
    num_vectors: int,
    chunks_in_round: int | None = None,
) -> list[Plan]:
    """Plan all rounds of window "chunk" (see `reference.chunk_counts`).

    Args:
        buckets: int `[rows, R, T]`.
        key_mask: bool `[rows, T]`, True where a real token is.
        first_row: number of the first row.
        layout: of q, k and v.
        chunk_length: tokens in a chunk.
        chunks_before: chunks that a query sees backwards.
        chunks_after: chunks that a query sees forwards.
        causal: whether later keys are excluded.
        correct_duplicates: whether the plans tell how often a query sees a key.
        num_vectors: B * H * T.
        chunks_in_round: chunks in each round, some of them empty; None for as many as a row fills.
    """
    N, R, T = buckets.shape
    device = buckets.device
    if key_mask is None:
        num_real = torch.full((N, 1), T, device=device)
    else:
        num_real = key_mask.sum(-1, keepdim=True)
        buckets = buckets.masked_fill(~key_mask[:, None], int(buckets.max()) + 1)
    order = buckets.argsort(dim=-1, stable=True)
    num_chunks = (num_real + chunk_length - 1).div(chunk_length, rounding_mode="floor").clamp(min=1)
    if chunks_in_round is not None:
        num_chunks = torch.full_like(num_chunks, chunks_in_round)

    def chunk_start(chunk: Tensor | int) -> Tensor:
        """Slot where a chunk of the endless, periodic list of all rounds' chunks begins."""
        chunk = torch.as_tensor(chunk, device=device)
        rounds = chunk.div(num_chunks, rounding_mode="floor")
        return rounds * num_real + ((chunk - rounds * num_chunks) * chunk_length).minimum(num_real)

    # The part of the endless list that is seen from rounds 0 to R - 1.
    head = -chunk_start(-chunks_before)
    length = int((head + chunk_start(R * num_chunks + chunks_after)).max())
    slot = (torch.arange(length, device=device) - head) % (R * num_real).clamp(min=1)
    row = torch.arange(N, device=device)[:, None]
    keys = order.flatten(1).gather(1, slot // num_real.clamp(min=1) * T + slot % num_real.clamp(min=1))
    first_slot = row * length + head
    keys = layout.index(row + first_row, keys).flatten()
    rank = torch.arange(T, device=device)
    real = rank < num_real
    segment = (row * (T // chunk_length + 1) + rank // chunk_length)[real]
    tiles = _tiles(segment, min(chunk_length, 64))
    plans = []
    for r in range(R):
        chunk = r * num_chunks + rank // chunk_length
        plans.append(
            Plan(
                keys=keys,
                queries=layout.index(row + first_row, order[:, r])[real],
                lo=(first_slot + chunk_start(chunk - chunks_before))[real],
                hi=(first_slot + chunk_start(chunk + chunks_after + 1))[real],
                tiles=tiles,
                tile_length=min(chunk_length, 64),
                run_length=(1 + chunks_before + chunks_after) * chunk_length,
                check_causal=causal,
                round_index=r,
            )
        )
    if not correct_duplicates:
        return plans
    ranks = order.argsort(dim=-1)
    vector = layout.index(row + first_row, rank)
    endless = keys.new_zeros(num_vectors)
    slots = [_scattered(endless, vector, first_slot + r * num_real + ranks[:, r]) for r in range(R)]
    period = _scattered(endless, vector, (R * num_real).clamp(min=1).expand(N, T))
    return _with_duplicates(plans, [slots] * R, period)


def local_plan(
    q_layout: Layout,
    k_layout: Layout,
    key_mask: Tensor | None,
    *,
    num_rows: int,
    first_row: int,
    chunk_length: int,
    chunks_before: int,
    chunks_after: int,
    causal: bool,
    device: torch.device,
) -> Plan:
    """Plan the chunked sliding window (see `reference.local_counts`) of some rows.

    Args:
        q_layout: of q; the queries are the last positions.
        k_layout: of k and v.
        key_mask: bool `[rows, Tk]`, True where a real token is.
        num_rows: rows to plan.
        first_row: number of the first row.
        chunk_length: tokens in a chunk.
        chunks_before: chunks that a query sees backwards.
        chunks_after: chunks that a query sees forwards.
        causal: whether later keys are excluded.
        device: of the plan.
    """
    num_queries, num_keys = q_layout.length, k_layout.length
    row = torch.arange(num_rows, device=device)[:, None]
    position = torch.arange(num_keys, device=device).expand(num_rows, -1)
    if key_mask is None:
        num_real = torch.full((num_rows, 1), num_keys, device=device)
    else:
        num_real = key_mask.sum(-1, keepdim=True)
        position = (~key_mask).to(torch.uint8).argsort(dim=-1, stable=True)
    rank = torch.arange(num_keys, device=device)
    is_query = (rank < num_real) & (position >= num_keys - num_queries)
    chunk = rank // chunk_length
    lo = ((chunk - chunks_before) * chunk_length).clamp(min=0).expand(num_rows, -1)
    hi = ((chunk + chunks_after + 1) * chunk_length).minimum(num_real)
    if causal:
        hi = hi.minimum(rank + 1)
    queries = q_layout.index(row + first_row, position - (num_keys - num_queries))
    tile_length = min(chunk_length, 64)
    segment = row * (num_keys // chunk_length + 1) + chunk
    return Plan(
        keys=k_layout.index(row + first_row, position).flatten(),
        queries=queries[is_query],
        lo=(lo + row * num_keys)[is_query],
        hi=(hi + row * num_keys)[is_query],
        tiles=_tiles(segment[is_query], tile_length),
        tile_length=tile_length,
        run_length=(chunks_before + 1 + (0 if causal else chunks_after)) * chunk_length,
        check_causal=False,
        round_index=0,
    )


def bucket_duplicates(plans: list[Plan], num_queries: int, num_keys: int) -> list[Plan]:
    """Give the plans of all rounds of window "bucket" what the duplicate correction needs.

    Args:
        plans: one for each round.
        num_queries: B * H * Tq.
        num_keys: B * H * Tk.
    """
    zeros = plans[0].keys.new_zeros(num_keys)
    slots = torch.arange(len(plans[0].keys), device=zeros.device)
    key_slots = [[_scattered(zeros, plan.keys, slots)] for plan in plans]
    return _with_duplicates(plans, key_slots, zeros.new_full((num_queries,), 1 << 62))


def _with_duplicates(plans: list[Plan], key_slots: list[list[Tensor]], period: Tensor) -> list[Plan]:
    zeros = torch.zeros_like(period)
    lo = [_scattered(zeros, plan.queries, plan.lo) for plan in plans]
    hi = [_scattered(zeros, plan.queries, plan.hi) for plan in plans]
    duplicates = Duplicates(key_slots, lo, hi, period)
    return [replace(plan, duplicates=duplicates) for plan in plans]


def _scattered(zeros: Tensor, index: Tensor, values: Tensor) -> Tensor:
    return zeros.index_put((index.flatten(),), values.flatten())


def _tiles(segment: Tensor, tile_length: int) -> Tensor:
    """Boundaries of tiles of at most `tile_length` queries, none of which crosses a segment."""
    index = torch.arange(len(segment), device=segment.device)
    begins = torch.ones_like(segment, dtype=torch.bool)
    begins[1:] = segment[1:] != segment[:-1]
    first = torch.where(begins, index, 0).cummax(0).values
    starts = ((index - first) % tile_length == 0).nonzero().squeeze(-1)
    return torch.cat([starts, starts.new_tensor([len(segment)])])
