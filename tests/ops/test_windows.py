"""Plans: which keys every query is told to read, against loops, and the sort at a million tokens."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reformer.ops import attention, hashing
from reformer.ops.windows import Layout, Plan, bucket_plan, chunk_plans, local_plan
from tests.ops import definitions
from tests.ops.test_reference import random_mask, windows

B, H = 2, 2


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("heads_inside", [False, True])
def test_layout_finds_every_vector(num_heads: int, heads_inside: bool) -> None:
    x = torch.randn(2, num_heads, 5, 4)
    if heads_inside:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    layout = Layout.of(x)
    vectors = layout.vectors(x)
    assert vectors.data_ptr() == x.data_ptr(), "made a copy"
    assert torch.equal(layout.tensor(vectors), x)
    assert layout.tensor(vectors).stride() == x.stride()
    for row in range(2 * num_heads):
        for position in range(5):
            index = layout.index(torch.tensor(row), torch.tensor(position))
            assert torch.equal(vectors[index], x[row // num_heads, row % num_heads, position])
            assert layout.row(index) == row
            assert layout.position(index) == position


def test_layout_of_a_slice_is_a_copy_with_the_right_values() -> None:
    x = torch.randn(2, 3, 9, 4)[:, :, 2:7]
    layout = Layout.of(x)
    assert torch.equal(layout.tensor(layout.vectors(x)), x)


def keys_seen(plan: Plan, q_layout: Layout, k_layout: Layout) -> dict[tuple[int, int], list[int]]:
    """For (row, position) of each query, counted among the queries, the positions of its keys.

    Also checks what the tiled path relies on: no query twice, tiles in order and not too long, ranges that
    grow within a tile and keys from the query's own row.
    """
    sizes = plan.tiles.diff()
    assert plan.tiles[0] == 0
    assert plan.tiles[-1] == len(plan.queries)
    assert ((sizes > 0) & (sizes <= plan.tile_length)).all()
    tile = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    same_tile = tile[1:] == tile[:-1]
    for bound in (plan.lo, plan.hi):
        assert (bound.diff()[same_tile] >= 0).all()
    assert (plan.lo <= plan.hi).all()
    seen: dict[tuple[int, int], list[int]] = {}
    for query, lo, hi in zip(plan.queries, plan.lo.tolist(), plan.hi.tolist(), strict=True):
        keys = plan.keys[lo:hi]
        row = int(q_layout.row(query))
        assert len(keys) == hi - lo
        assert (k_layout.row(keys) == row).all()
        assert (row, int(q_layout.position(query))) not in seen
        seen[row, int(q_layout.position(query))] = k_layout.position(keys).tolist()
    return seen


def assert_seen(seen: dict[tuple[int, int], list[int]], row: int, expected: list[list[int]]) -> None:
    """A query that sees nothing may be missing from a plan."""
    for i, keys in enumerate(expected):
        assert Counter(seen.get((row, i), [])) == Counter(keys)


def layouts(Tq: int, Tk: int, heads_inside: bool) -> tuple[Layout, Layout]:
    return Layout(H, Tq, heads_inside), Layout(H, Tk, heads_inside)


@given(windows, st.booleans())
@settings(max_examples=100, deadline=None)
def test_bucket_plan_equals_definition(w: dict[str, Any], heads_inside: bool) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    T, Tq = w["T"], min(w["T"], w["num_queries"])
    q_layout, k_layout = layouts(Tq, T, heads_inside)
    k_buckets = torch.randint(w["num_buckets"], (B * H, T), generator=g)
    q_buckets = torch.randint(w["num_buckets"] + 1, (B * H, Tq), generator=g)
    if w["seed"] % 2:
        q_buckets = k_buckets[:, T - Tq :]
    mask = random_mask(T, w["num_real"], g).expand(B * H, T)
    reach = {"before": w["before"] * w["chunk_length"], "after": w["after"] * w["chunk_length"]}
    plan = bucket_plan(
        q_buckets[1:],
        k_buckets[1:],
        None if mask.all() else mask[1:],
        first_row=1,
        q_layout=q_layout,
        k_layout=k_layout,
        q_offset=T - Tq,
        round_index=0,
        causal=w["causal"],
        **reach,
    )
    assert not plan.check_causal
    seen = keys_seen(plan, q_layout, k_layout)
    for row in range(1, B * H):
        expected = definitions.bucket_window(
            [q_buckets[row].tolist()],
            [k_buckets[row].tolist()],
            mask[row].tolist(),
            causal=w["causal"],
            **reach,
        )
        assert_seen(seen, row, expected[0])


@given(windows, st.booleans())
@settings(max_examples=100, deadline=None)
def test_chunk_plans_equal_definition(w: dict[str, Any], heads_inside: bool) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    T, R = w["T"], w["R"]
    layout = Layout(H, T, heads_inside)
    buckets = torch.randint(w["num_buckets"], (B * H, R, T), generator=g)
    mask = torch.cat([random_mask(T, w["num_real"] * (row % 3) // 2, g) for row in range(B * H)])
    plans = chunk_plans(
        buckets[1:],
        mask[1:],
        first_row=1,
        layout=layout,
        chunk_length=w["chunk_length"],
        chunks_before=w["before"],
        chunks_after=w["after"],
        causal=w["causal"],
        correct_duplicates=False,
        num_vectors=B * H * T,
    )
    options = {name: w[name] for name in ("chunk_length", "before", "after")}
    for r, plan in enumerate(plans):
        assert plan.check_causal == w["causal"]
        assert plan.round_index == r
        seen = keys_seen(plan, layout, layout)
        for row in range(1, B * H):
            # The ranges hold later keys too; these are excluded by their scores.
            expected = definitions.chunk_window(
                buckets[row].tolist(), mask[row].tolist(), causal=False, **options
            )
            assert_seen(seen, row, expected[r])


@given(windows, st.booleans())
@settings(max_examples=100, deadline=None)
def test_local_plan_equals_definition(w: dict[str, Any], heads_inside: bool) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    T, Tq = w["T"], min(w["T"], w["num_queries"])
    q_layout, k_layout = layouts(Tq, T, heads_inside)
    mask = torch.cat([random_mask(T, w["num_real"] * (row % 3) // 2, g) for row in range(B * H)])
    plan = local_plan(
        q_layout,
        k_layout,
        mask[1:],
        num_rows=B * H - 1,
        first_row=1,
        chunk_length=w["chunk_length"],
        chunks_before=w["before"],
        chunks_after=w["after"],
        causal=w["causal"],
        device=mask.device,
    )
    assert not plan.check_causal
    seen = keys_seen(plan, q_layout, k_layout)
    options = {name: w[name] for name in ("chunk_length", "before", "after", "causal")}
    for row in range(1, B * H):
        assert_seen(seen, row, definitions.local_window(Tq, mask[row].tolist(), **options)[0])


@pytest.mark.parametrize("heads_inside", [False, True])
def test_duplicates_are_counted(heads_inside: bool) -> None:
    """`Duplicates.count` against counting in what all rounds' plans show."""
    g = torch.Generator().manual_seed(0)
    R, T = 3, 17
    layout = Layout(H, T, heads_inside)
    buckets = torch.randint(3, (B * H, R, T), generator=g)
    mask = torch.rand(B * H, T, generator=g) < 0.8
    chunked = chunk_plans(
        buckets,
        mask,
        first_row=0,
        layout=layout,
        chunk_length=4,
        chunks_before=7,  # more chunks than a round has: some keys are seen twice in a round
        chunks_after=1,
        causal=False,
        correct_duplicates=True,
        num_vectors=B * H * T,
    )
    total = [Counter[tuple[int, int, int]]() for _ in chunked]
    for r, plan in enumerate(chunked):
        for (row, position), keys in keys_seen(plan, layout, layout).items():
            total[r].update((row, position, j) for j in keys)
    merged = sum(total, Counter[tuple[int, int, int]]())
    assert max(merged.values()) > R
    for (row, position, j), count in merged.items():
        query, key = (layout.index(torch.tensor(row), torch.tensor(p))[None, None] for p in (position, j))
        assert chunked[0].duplicates.count(query, key).item() == count


def sorted_plan(buckets: Tensor, mask: Tensor | None, num_queries: int, *, causal: bool) -> Plan:
    rows, T = buckets.shape
    return bucket_plan(
        buckets[:, T - num_queries :] if num_queries < T else buckets,
        buckets,
        mask,
        first_row=0,
        q_layout=Layout(rows, num_queries, False),
        k_layout=Layout(rows, T, False),
        q_offset=T - num_queries,
        round_index=0,
        before=64,
        after=64,
        causal=causal,
    )


def assert_sorted_at_scale(
    buckets: Tensor, mask: Tensor | None = None, *, num_queries: int | None = None, causal: bool = True
) -> None:
    """Order of all keys, and the ranges of 200 queries against a search through all keys."""
    rows, T = buckets.shape
    num_queries = num_queries or T
    plan = sorted_plan(buckets, mask, num_queries, causal=causal)
    positions = plan.keys.view(rows, T) - T * torch.arange(rows)[:, None]
    assert torch.equal(positions.sort(-1).values, torch.arange(T).expand(rows, T)), "not a permutation"
    behind_all = buckets.max() + 1
    keyed = buckets if mask is None else torch.where(mask, buckets, behind_all)
    in_order = keyed.gather(1, positions)
    same = in_order[:, 1:] == in_order[:, :-1]
    assert (in_order[:, 1:] >= in_order[:, :-1]).all()
    assert (positions[:, 1:] > positions[:, :-1])[same].all(), "not stable"
    num_real = rows * num_queries if mask is None else int(mask[:, T - num_queries :].sum())
    assert len(plan.queries) == num_real
    assert len(plan.queries.unique()) == num_real
    for i in torch.randint(num_real, (200,), generator=torch.Generator().manual_seed(0)).tolist():
        row, position = divmod(int(plan.queries[i]), num_queries)
        position += T - num_queries
        members = (keyed[row] == keyed[row, position]).nonzero()[:, 0]
        own = int((members < position).sum())
        expected = members[max(0, own - 64) : own + 1 if causal else own + 65]
        assert torch.equal(plan.keys[plan.lo[i] : plan.hi[i]] - row * T, expected)


MILLION = 1 << 20


def random_buckets(rows: int, T: int, num_buckets: int, seed: int = 0) -> Tensor:
    return torch.randint(num_buckets, (rows, T), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_buckets", [64, 1 << 14])
def test_sort_of_a_million_keys(num_buckets: int) -> None:
    assert_sorted_at_scale(random_buckets(1, MILLION, num_buckets))


@pytest.mark.slow
@pytest.mark.parametrize("num_buckets", [1, 2, 64, 2048, 1 << 14, 1 << 17, MILLION, 1 << 30])
@pytest.mark.parametrize(
    ("num_queries", "padded", "causal"),
    [(MILLION, False, True), (MILLION, True, False), (MILLION // 2 + 1, True, True)],
)
def test_sort_of_a_million_keys_in_every_way(
    num_buckets: int, num_queries: int, padded: bool, causal: bool
) -> None:
    buckets = random_buckets(2, MILLION, num_buckets).to(torch.int32 if padded else torch.int64)
    mask = torch.rand(2, MILLION, generator=torch.Generator().manual_seed(1)) < 0.9 if padded else None
    assert_sorted_at_scale(buckets, mask, num_queries=num_queries, causal=causal)


@pytest.mark.slow
@pytest.mark.parametrize("num_buckets", [2, 64, (64, 32), (128, 128), (256, 256)], ids=str)
def test_eight_hashed_rounds_of_a_million_tokens(num_buckets: int | tuple[int, ...]) -> None:
    """The plans that `lsh_attention` makes, of buckets that `lsh_hash` makes."""
    g = torch.Generator().manual_seed(0)
    factors = (num_buckets,) if isinstance(num_buckets, int) else num_buckets
    x = torch.randn(1, 2, MILLION, 8, generator=g)
    buckets = hashing.lsh_hash(x, torch.randn(2, 8, 8, sum(factors) // 2, generator=g), num_buckets)
    layout = Layout(2, MILLION, False)
    plans = attention._bucket_plans(
        [(buckets, buckets)],
        None,
        attention.Scoring(layout, layout, 0),
        before=64,
        after=0,
        causal=True,
        correct_duplicates=False,
    )
    seen = 0
    for plan in plans:
        row = int(layout.row(plan.queries[0]))
        of_round = buckets[0, row, plan.round_index]
        order = of_round.sort(stable=True).indices
        assert torch.equal(plan.queries, order + row * MILLION)
        assert torch.equal(plan.keys, plan.queries)
        starts = torch.searchsorted(of_round[order], of_round[order])
        own = torch.arange(MILLION)
        assert torch.equal(plan.hi, own + 1)
        assert torch.equal(plan.lo, torch.maximum(starts, own - 64))
        seen += 1
    assert seen == 2 * 8
