"""Attention over planned windows in plain torch: tiles that stay in cache, exact in any order.

Scores are kept in units of log2, since exp2 is several times faster than exp on a CPU, and rows are
gathered by index_select, several times faster than indexing. The forward keeps, for each query, the
running maximum and sum of its exponentials and its unnormalised output, and merges tile after tile,
round after round (online softmax: Milakov and Gimelshein 2018; Dao et al. 2022). The backward rebuilds
the weights from the maximum and sum. Nothing of size [T, T], [R, T, D] or of all tiles at once is ever
made.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer.ops.dropout import keep_mask, position_seed
from reformer.ops.reference import SELF_SCORE
from reformer.ops.windows import Layout, Plan

_LOG2_E = math.log2(math.e)
_TILE_NUMEL = 1 << 18  # scores computed at once: 1 MiB in float32
_MAX_RUN = 512  # key slots read at once
_MASKED = -1e30  # finite, so that no difference of two is NaN; exp2 of it is 0


@dataclass(frozen=True)
class Scoring:
    """How scores become weights, apart from what is seen."""

    q_layout: Layout
    k_layout: Layout
    q_offset: int  # position of the first vector of a row of q
    penalize_self: bool = False
    dropout: float = 0.0
    dropout_seed: int = 0


class TiledAttention(torch.autograd.Function):
    """Attention of q over k and v as a sequence of plans says.

    Args (of `apply`):
        q: `[B, H, Tq, D]`, floating.
        k: `[B, H, Tk, D]`.
        v: `[B, H, Tk, Dv]`.
        make_plans: gives the plans, the same at each call. A query may be in many plans.
        scoring: how scores become weights.

    Returns:
        `[B, H, Tq, Dv]` in the dtype of q, zero where a query sees nothing; and for each vector of q its
        highest score (log2 units) and its sum of exponentials, without gradient.
    """

    @staticmethod
    def forward(  # noqa: D102
        q: Tensor, k: Tensor, v: Tensor, make_plans: Callable[[], Iterable[Plan]], scoring: Scoring
    ) -> tuple[Tensor, Tensor, Tensor]:
        q_layout, k_layout = scoring.q_layout, scoring.k_layout
        q_rows, k_rows, v_rows = q_layout.vectors(q), k_layout.vectors(k), k_layout.vectors(v)
        dtype = torch.promote_types(q.dtype, torch.float32)
        num_rows = len(q_rows)
        # One row more than there are queries: the empty places of tiles are written there.
        out = q_rows.new_zeros(num_rows + 1, v_rows.shape[1], dtype=dtype)
        highest = q_rows.new_full((num_rows + 1,), _MASKED, dtype=dtype)
        total = q_rows.new_zeros(num_rows + 1, dtype=dtype)
        for plan in make_plans():
            for tile in _tile_batches(plan):
                scores, _ = tile.scores(q_rows, k_rows, dtype, scoring)
                old_highest = _rows(highest, tile.queries)
                new_highest = torch.maximum(scores.amax(-1), old_highest)
                weights = scores.sub_(new_highest[..., None]).exp2_()
                old_weight = (old_highest - new_highest).exp2_()
                new_total = (_rows(total, tile.queries) * old_weight).add_(weights.sum(-1))
                tile.drop(weights, scoring)
                old_out = _rows(out, tile.queries).mul_(old_weight[..., None])
                new_out = old_out.baddbmm_(weights, _rows(v_rows, tile.keys).to(dtype))
                target = torch.where(tile.filled, tile.queries, num_rows)
                highest[target], total[target] = new_highest, new_total
                out.index_copy_(0, target.flatten(), new_out.flatten(0, 1))
        highest, total, out = highest[:-1], total[:-1], out[:-1]
        out.div_(total.clamp(min=torch.finfo(dtype).tiny)[:, None])
        return q_layout.tensor(out.to(q.dtype)), highest, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # noqa: D102
        *tensors, ctx.make_plans, ctx.scoring = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # noqa: D102
        with torch.autocast(grad_out.device.type, enabled=False):
            return *_gradients(ctx, grad_out), None, None


def _gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v, out, highest, total = ctx.saved_tensors
    scoring = ctx.scoring
    q_layout, k_layout = scoring.q_layout, scoring.k_layout
    q_rows, out_rows, grad_rows = (q_layout.vectors(x) for x in (q, out, grad_out))
    k_rows, v_rows = k_layout.vectors(k), k_layout.vectors(v)
    dtype = highest.dtype
    grad_q, grad_k, grad_v = (x.new_zeros(x.shape, dtype=dtype) for x in (q_rows, k_rows, v_rows))
    inverse_total = total.clamp(min=torch.finfo(dtype).tiny).reciprocal()
    for plan in ctx.make_plans():
        for tile in _tile_batches(plan):
            rows = tile.queries
            scores, others = tile.scores(q_rows, k_rows, dtype, scoring)
            weights = scores.sub_(_rows(highest, rows)[..., None]).exp2_()
            weights.mul_((_rows(inverse_total, rows) * tile.filled)[..., None])
            grad_tile = _rows(grad_rows, rows).to(dtype)
            delta = (grad_tile * _rows(out_rows, rows).to(dtype)).sum(-1, keepdim=True)
            grad_weights = grad_tile @ _rows(v_rows, tile.keys).to(dtype).mT
            tile.drop(grad_weights, scoring)
            grad_scores = grad_weights.sub_(delta).mul_(weights)
            if others is not None:
                grad_scores.mul_(others)
            tile.drop(weights, scoring)
            _add_rows(grad_v, tile.keys, weights.mT @ grad_tile)
            _add_rows(grad_k, tile.keys, grad_scores.mT @ _rows(q_rows, rows).to(dtype))
            _add_rows(grad_q, rows, grad_scores @ _rows(k_rows, tile.keys).to(dtype))
    return (
        q_layout.tensor(grad_q.to(q.dtype)),
        k_layout.tensor(grad_k.to(k.dtype)),
        k_layout.tensor(grad_v.to(v.dtype)),
    )


@dataclass(frozen=True)
class _TileBatch:
    """G tiles of M queries, each with L of the key slots that it needs."""

    plan: Plan
    index: Tensor  # int64 [G, M]: of the query in the plan; a short tile repeats its last query
    filled: Tensor  # bool [G, M]: False where the query is such a repetition
    queries: Tensor  # int64 [G, M]: row of q
    slots: Tensor  # int64 [G]: first key slot
    keys: Tensor  # int64 [G, L]: row of k and v

    def scores(
        self, q_rows: Tensor, k_rows: Tensor, dtype: torch.dtype, scoring: Scoring
    ) -> tuple[Tensor, Tensor | None]:
        """Scores `[G, M, L]` in units of log2, about -1e30 where a key is not seen.

        With the penalty for a query's own key, also `[G, M, L]` that is 0 there and 1 elsewhere.

        Masks are arithmetic on floats, several times faster than booleans on a CPU: `distance` below
        is positive exactly where a key is outside.
        """
        scores = _rows(q_rows, self.queries).to(dtype).mul(_LOG2_E) @ _rows(k_rows, self.keys).to(dtype).mT
        q_position, k_position = self._positions(scoring)
        others = None
        if self.plan.check_causal or scoring.penalize_self:
            # Positions are exact in float32 below 2^24.
            exact = dtype if scoring.k_layout.length < 1 << 24 else torch.float64
            offset = (k_position.to(exact)[:, None, :] - q_position.to(exact)[:, :, None]).to(dtype)
            if scoring.penalize_self:
                others = offset.abs().clamp_(max=1)
                scores.mul_(others).add_(1 - others, alpha=SELF_SCORE * _LOG2_E)
            if self.plan.check_causal:
                scores.add_(offset.clamp_(min=0), alpha=2 * _MASKED)
        lo = _rows(self.plan.lo, self.index) - self.slots[:, None]
        hi = _rows(self.plan.hi, self.index) - self.slots[:, None]
        # |slot - middle| <= half of the width - 1/2, doubled to stay with integers.
        width = torch.where(hi > lo, hi - lo - 1, -1).to(dtype)
        slot = torch.arange(0, 2 * self.keys.shape[1], 2, device=lo.device, dtype=dtype)
        distance = (slot - (lo + hi - 1).to(dtype)[..., None]).abs_().sub_(width[..., None])
        scores.add_(distance.clamp_(min=0), alpha=_MASKED)
        if self.plan.duplicates is not None:
            count = self.plan.duplicates.count(self.queries, self.keys).clamp_(min=1)
            scores.sub_(count.to(dtype).log2_())
        return scores, others

    def drop(self, weights: Tensor, scoring: Scoring) -> None:
        """Apply attention dropout in place."""
        if scoring.dropout:
            q_position, k_position = self._positions(scoring)
            row = scoring.q_layout.row(self.queries)
            seed = position_seed(
                scoring.dropout_seed,
                self.plan.round_index,
                row[..., None],
                q_position[..., None],
                k_position[:, None],
            )
            weights.mul_(keep_mask(seed, scoring.dropout)).div_(1 - scoring.dropout)

    def _positions(self, scoring: Scoring) -> tuple[Tensor, Tensor]:
        q_position = scoring.q_layout.position(self.queries) + scoring.q_offset
        return q_position, scoring.k_layout.position(self.keys)


def _tile_batches(plan: Plan) -> Iterator[_TileBatch]:
    """Cut a plan into batches of tiles; a tile that needs more keys than fit comes again with the next."""
    starts, stops = plan.tiles[:-1], plan.tiles[1:]
    if not len(starts):
        return
    M, L = plan.tile_length, min(plan.run_length, _MAX_RUN)
    # Ranges begin and end in the order of the queries, so a tile's keys lie between the first's and last's.
    first_slot, stop_slot = plan.lo[starts], plan.hi[stops - 1]
    num_runs = (stop_slot - first_slot + L - 1).div(L, rounding_mode="floor").clamp(min=1)
    place = torch.arange(M, device=starts.device)
    run = torch.arange(L, device=starts.device)
    for step in range(int(num_runs.max())):
        active = (
            torch.arange(len(starts), device=starts.device)
            if step == 0
            else (num_runs > step).nonzero()[:, 0]
        )
        for tiles in active.split(max(1, _TILE_NUMEL // (M * L))):
            index = starts[tiles][:, None] + place
            last = stops[tiles][:, None] - 1
            filled = index <= last
            index = index.minimum(last)
            slots = first_slot[tiles] + step * L
            yield _TileBatch(
                plan=plan,
                index=index,
                filled=filled,
                queries=_rows(plan.queries, index),
                slots=slots,
                keys=_rows(plan.keys, (slots[:, None] + run).clamp(max=len(plan.keys) - 1)),
            )


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """`x[index]`."""
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:])


def _add_rows(target: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values to rows that may repeat, in a fixed order (on a GPU index_add_ would use atomics)."""
    rows, values = rows.flatten(), values.flatten(0, -2)
    if target.is_cuda:
        target.index_put_((rows,), values, accumulate=True)
    else:
        target.index_add_(0, rows, values)
