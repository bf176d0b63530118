"""The attention kernels as operators that autograd and torch.compile know."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reformer.ops.triton.plan import Plan, bucket_plan, chunk_plan, find_duplicates, local_plan
from reformer.ops.triton.support import float32_precision, padded_size
from reformer.ops.windows import Layout

_SUMS_NUMEL = 1 << 28  # of a float32 tensor in which launches add up: 1 GiB


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    levels: Sequence[tuple[Tensor, Tensor]],
    key_padding_mask: Tensor | None,
    *,
    window: str,
    own: bool = True,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    penalize_self: bool = False,
    correct_duplicates: bool = False,
    dropout: float,
    dropout_seed: int,
) -> Tensor:
    """Attention over windows "bucket", "chunk" or "local".

    Args:
        q: `[B, H, Tq, D]`, float32, bfloat16 or float16; see `unsupported`.
        k: `[B, H, Tk, D]`.
        v: `[B, H, Tk, Dv]`.
        levels: (q_buckets, k_buckets) of each level, `[B, H, R, *]`: the next queries, over the first keys.
            Empty for window "local", or one.
        key_padding_mask: bool `[B, Tk]`, True where a real token is.
        window: "bucket", "chunk" or "local".
        own: whether the buckets of queries are those of the keys at their positions.
        chunk_length: tokens in a chunk.
        before: what a query sees backwards: keys ("bucket") or chunks.
        after: what a query sees forwards.
        causal: whether later keys are excluded.
        penalize_self: give a query's own key the score -1e5.
        correct_duplicates: count a key that several rounds show once.
        dropout: probability of dropping a weight.
        dropout_seed: see `reformer.ops.dropout`.

    Returns:
        `[B, H, Tq, Dv]` in the dtype of q.
    """
    tile = _tile_length(q, v, chunk_length)
    reach: Any = {"before": before, "after": after, "tile": tile}
    with torch.no_grad():
        if window == "bucket":
            plan = bucket_plan(levels, key_padding_mask, own=own, causal=causal, **reach)
        elif window == "chunk":
            plan = chunk_plan(levels[0][1], key_padding_mask, chunk_length=chunk_length, **reach)
        else:
            plan = local_plan(
                q.shape[2],
                k.shape[2],
                q.shape[0] * q.shape[1],
                key_padding_mask,
                chunk_length=chunk_length,
                causal=causal,
                device=q.device,
                **reach,
            )
    return _attention(
        q,
        k,
        v,
        *_tensors_of(plan),
        plan.level_keys,
        plan.wraps,
        tile,
        causal and window == "chunk",
        penalize_self,
        correct_duplicates,
        dropout,
        dropout_seed,
    )[0]


def _tensors_of(plan: Plan) -> tuple[Tensor, ...]:
    viewers = plan.first_viewer, plan.stop_viewer
    return plan.keys, plan.queries, plan.lo, plan.hi, *viewers, plan.num_real


def _tile_length(q: Tensor, v: Tensor, chunk_length: int) -> int:
    """Queries and keys in a tile: as many as a chunk has, where registers allow it.

    Exact float32 products run without tensor cores and keep their factors in registers.
    """
    if q.element_size() == 2:
        return 64 if chunk_length > 32 else 32
    return 32 if _padded_size_of(q, v) <= 64 else 16


def _num_warps(q: Tensor, v: Tensor) -> int:
    """As many as let a kernel spill least, by what the compiler says for an H100."""
    return 4 if q.element_size() == 2 and _padded_size_of(q, v) <= 64 else 8


def _padded_size_of(*vectors: Tensor) -> int:
    return max(padded_size(x.shape[3]) for x in vectors)


@torch.library.custom_op("reformer::triton_attention", mutates_args=())
def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    queries: Tensor,
    lo: Tensor,
    hi: Tensor,
    first_viewer: Tensor,
    stop_viewer: Tensor,
    num_real: Tensor,
    level_keys: Sequence[int],
    wraps: bool,
    tile: int,
    check_causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
    dropout_seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and of each query `[B, H, Tq]` its highest score (log2 units) and sum of exponentials."""
    from reformer.ops.triton.kernels.forward import _attention_fwd_kernel

    out = _empty_like(q, v.shape[-1])
    highest = torch.empty(q.shape[:3], dtype=torch.float32, device=q.device)
    total = torch.empty_like(highest)
    if not q.numel():
        return out, highest, total
    (B, H, Tq, _), R = q.shape, keys.shape[1]
    options = _options(q, v, tile, wraps, check_causal, penalize_self, correct_duplicates, dropout)
    by_row = (keys, queries, lo, hi, num_real)
    *duplicates, level_of_slot = _duplicates(correct_duplicates, *by_row, level_keys, wraps)
    with torch.cuda.device_of(q):
        for part, rows in _parts(B, H, Tq * v.shape[3]):
            vectors = [_with_contiguous_vectors(x[part]) for x in (q, k, v, out)]
            of_rows = [x.flatten(0, 1)[rows] for x in (highest, total)]
            sums = _sums(of_rows[0], Tq, v.shape[3], is_needed=R > 1)
            for round_index in range(R):
                _attention_fwd_kernel[(len(of_rows[0]) * math.ceil(Tq / tile),)](
                    *(*vectors, sums, *of_rows, *(x[rows] for x in (*by_row, *duplicates)), level_of_slot),
                    *_strides(vectors),
                    *(vectors[0].shape[1], R, Tq, keys.shape[2]),
                    *(round_index, rows.start, k.shape[2] - Tq),
                    *_dropout(dropout, dropout_seed),
                    **options,
                )
    return out, highest, total


@torch.library.custom_op("reformer::triton_attention_backward", mutates_args=())
def _attention_backward(
    grad_out: Tensor,
    out: Tensor,
    highest: Tensor,
    total: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    keys: Tensor,
    queries: Tensor,
    lo: Tensor,
    hi: Tensor,
    first_viewer: Tensor,
    stop_viewer: Tensor,
    num_real: Tensor,
    level_keys: Sequence[int],
    wraps: bool,
    tile: int,
    check_causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
    dropout_seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    from reformer.ops.triton.kernels.backward_keys import _attention_bwd_keys_kernel
    from reformer.ops.triton.kernels.backward_queries import _attention_bwd_queries_kernel

    grad_q, grad_k, grad_v = (_empty_like(x) for x in (q, k, v))
    if not q.numel():
        return grad_q, grad_k, grad_v
    (B, H, Tq, D), Tk, Dv, (R, S) = q.shape, k.shape[2], v.shape[3], keys.shape[1:]
    options = _options(q, v, tile, wraps, check_causal, penalize_self, correct_duplicates, dropout)
    by_row = (keys, queries, lo, hi, num_real)
    *duplicates, level_of_slot = _duplicates(correct_duplicates, *by_row, level_keys, wraps)
    delta = torch.empty_like(highest)
    with torch.cuda.device_of(q):
        for part, rows in _parts(B, H, Tk * max(D, Dv)):
            q_, k_, v_, out_, grad_out_ = (
                _with_contiguous_vectors(x[part]) for x in (q, k, v, out, grad_out)
            )
            grads = [x[part] for x in (grad_q, grad_k, grad_v)]
            of_queries = [x.flatten(0, 1)[rows] for x in (highest, total, delta)]
            num_rows, num_heads = len(of_queries[0]), q_.shape[1]
            plan = [x[rows] for x in (keys, queries, lo, hi)]
            rest = [x[rows] for x in (num_real, *duplicates)] + [level_of_slot]
            sums = _sums(of_queries[0], Tq, D, is_needed=R > 1)
            for round_index in range(R):
                vectors = [q_, k_, v_, out_, grad_out_, grads[0]]
                _attention_bwd_queries_kernel[(num_rows * math.ceil(Tq / tile),)](
                    *(*vectors, sums, *of_queries, *plan, *rest),
                    *_strides(vectors),
                    *(num_heads, R, Tq, S),
                    *(round_index, rows.start, Tk - Tq),
                    *_dropout(dropout, dropout_seed),
                    **options,
                )
            del sums
            vectors = [q_, k_, v_, grad_out_, *grads[1:]]
            viewers = [x[rows] for x in (first_viewer, stop_viewer)]
            launches = _launches_for_keys(level_keys, R, tile)
            sums_k, sums_v = (_sums(of_queries[0], Tk, size, is_needed=len(launches) > 1) for size in (D, Dv))
            for number, (level_size, *place) in enumerate(launches):
                is_last = len(level_keys) == 1 and number == len(launches) - 1
                _attention_bwd_keys_kernel[(num_rows * math.ceil(level_size / tile),)](
                    *(*vectors, sums_k, sums_v, *of_queries, *plan, *viewers, *rest),
                    *_strides(vectors),
                    *(num_heads, R, Tq, S, Tk, first_viewer.shape[2]),
                    *(level_size, *place),
                    *(int(number == 0), int(is_last), rows.start, Tk - Tq),
                    *_dropout(dropout, dropout_seed),
                    **options,
                )
            if len(level_keys) > 1:
                grads[1].copy_(sums_k.view(grads[1].shape))
                grads[2].copy_(sums_v.view(grads[2].shape))
    return grad_q, grad_k, grad_v


def _launches_for_keys(
    level_keys: Sequence[int], num_rounds: int, tile: int
) -> list[tuple[int, int, int, int]]:
    """Keys of the level, round, first slot and first tile of each launch.

    A key is in the levels that end behind it: the last level holds all keys, and comes first.
    """
    launches = []
    for level in reversed(range(len(level_keys))):
        before = level_keys[:level]
        first_tile = sum(math.ceil(E / tile) for E in before)
        launches += [(level_keys[level], r, sum(before), first_tile) for r in range(num_rounds)]
    return launches


def _parts(B: int, H: int, numel_of_row: int) -> Iterator[tuple[tuple[slice, slice], slice]]:
    """Batch elements and heads that are worked on together, and their rows.

    Float32 sums of all rows at once would be the largest tensors of a training step.
    """
    most = max(1, _SUMS_NUMEL // numel_of_row)
    num_elements, num_heads = (most // H, H) if most >= H else (1, most)
    for b in range(0, B, num_elements):
        for h in range(0, H, num_heads):
            part = slice(b, min(b + num_elements, B)), slice(h, min(h + num_heads, H))
            num_rows = (part[0].stop - b) * (part[1].stop - h)
            yield part, slice(b * H + h, b * H + h + num_rows)


def _strides(vectors: Sequence[Tensor]) -> list[int]:
    return [stride for x in vectors for stride in x.stride()[:3]]


def _options(
    q: Tensor,
    v: Tensor,
    tile: int,
    wraps: bool,
    check_causal: bool,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float,
) -> dict[str, Any]:
    """What kernels are compiled for."""
    return {
        "D": q.shape[3],
        "DV": v.shape[3],
        "PADDED_D": padded_size(q.shape[3]),
        "PADDED_DV": padded_size(v.shape[3]),
        "TILE": tile,
        "WRAPS": wraps,
        "CHECK_CAUSAL": check_causal,
        "PENALIZE_SELF": penalize_self,
        "DUPLICATES": correct_duplicates,
        "DROPOUT": dropout > 0,
        "PRECISION": float32_precision(),
        "num_warps": _num_warps(q, v),
    }


def _dropout(rate: float, seed: int) -> tuple[int, int, float]:
    """The seed as int32, the least int32 that is kept, and by what the kept are multiplied."""
    low = seed & 0xFFFFFFFF
    return (low ^ 1 << 31) - (1 << 31), min(round(rate * 2**32) - 2**31, 2**31 - 1), 1 / (1 - rate)


def _duplicates(
    correct_duplicates: bool,
    keys: Tensor,
    queries: Tensor,
    lo: Tensor,
    hi: Tensor,
    num_real: Tensor,
    level_keys: Sequence[int],
    wraps: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not correct_duplicates:
        return keys, lo, hi, keys  # they are not read
    found = find_duplicates(keys, queries, lo, hi, num_real, level_keys, wraps=wraps)
    return found.slot_of_key, found.lo_of_query, found.hi_of_query, found.level_of_slot


def _sums(of_queries: Tensor, length: int, size: int, *, is_needed: bool) -> Tensor:
    """Where launches add up, float32 `[rows, length, size]`; something else where there is one launch."""
    return of_queries.new_empty(len(of_queries), length, size) if is_needed else of_queries


def _empty_like(x: Tensor, size: int | None = None) -> Tensor:
    """A tensor with the dtype and layout of x, or with vectors of another size."""
    return Layout.of(x).tensor(x.new_empty(x.shape[:3].numel(), size or x.shape[3]))


def _with_contiguous_vectors(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


@_attention.register_fake
def _attention_fake(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    highest = q.new_empty(q.shape[:3], dtype=torch.float32)
    return _empty_like(q, v.shape[-1]), highest, torch.empty_like(highest)


@_attention_backward.register_fake
def _attention_backward_fake(
    grad_out: Tensor, out: Tensor, highest: Tensor, total: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_like(q), _empty_like(k), _empty_like(v)


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.num_tensors = sum(isinstance(x, Tensor) for x in inputs)
    ctx.options = inputs[ctx.num_tensors :]
    ctx.save_for_backward(*output, *inputs[: ctx.num_tensors])
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad_out: Tensor, *_: Any) -> tuple[Any, ...]:
    gradients = _attention_backward(grad_out, *ctx.saved_tensors, *ctx.options)
    # One gradient for each argument; the list of levels has a list.
    plan = [None] * (ctx.num_tensors - 3)
    return (*gradients, *plan, *(None for _ in ctx.options))


_attention.register_autograd(_differentiate, setup_context=_save_for_backward)
