"""The attention ops: check the arguments, choose a backend."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor

from reformer.ops import cpu, reference
from reformer.ops.tiled import Scoring, TiledAttention
from reformer.ops.triton import attention as triton
from reformer.ops.triton.support import unsupported as triton_unsupported
from reformer.ops.windows import Layout, Plan, bucket_duplicates, bucket_plan, chunk_plans, local_plan

Backend = Literal["auto", "reference", "torch", "cpu", "triton"]
Window = Literal["bucket", "chunk"]

_log = logging.getLogger("reformer")
_FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ROW_TOKENS = 1 << 17  # keys of the rows that are planned together


def lsh_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_buckets: Tensor,
    k_buckets: Tensor | None = None,
    *,
    chunk_length: int = 64,
    num_chunks_before: int = 1,
    num_chunks_after: int = 0,
    window: Window = "bucket",
    num_chunks: int | None = None,
    causal: bool = True,
    penalize_self: bool = True,
    key_padding_mask: Tensor | None = None,
    correct_duplicates: bool = False,
    dropout: float = 0.0,
    dropout_seed: int = 0,
    backend: Backend = "auto",
) -> Tensor:
    """Attend to the keys that locality-sensitive hashing brings near (Kitaev et al. 2020, section 2).

    Each of R hash rounds lets a query see some keys; the output merges the rounds by the logsumexps of
    their scores. Scores are `q . k`, unscaled: with shared query-key, `k` is `q` scaled to unit length.

    Window "bucket": in each round the keys of the query's own bucket at most
    `num_chunks_before * chunk_length` places before and `num_chunks_after * chunk_length` places after
    its own, counting only the bucket's keys. Causal outputs then never depend on later tokens.
    Window "chunk": in each round the keys, sorted by (bucket, position), are cut into chunks, and a query
    sees its own chunk and its neighbours, whatever their bucket (the paper's scheme).

    Args:
        q: `[B, H, Tq, D]`, float32, bfloat16, float16 or float64. The queries are the last Tq positions.
        k: `[B, H, Tk, D]`, the dtype of q.
        v: `[B, H, Tk, Dv]`, the dtype of q; Dv is D as a rule.
        q_buckets: int `[B, H, R, Tq]`. Carries no gradient.
        k_buckets: int `[B, H, R, Tk]`; q_buckets if absent.
        chunk_length: tokens C in a chunk, at least 1.
        num_chunks_before: chunks seen backwards.
        num_chunks_after: chunks seen forwards.
        window: "bucket" or "chunk"; "chunk" needs Tq == Tk and the same buckets for both.
        num_chunks: for window "chunk", how many chunks lie on the circle in each round, those behind a
            row's last real key being empty; by default as many as its real keys fill.
        causal: exclude keys later than the query.
        penalize_self: give a query's own key the score -1e5, so that it looks at itself only when it
            sees nothing else.
        key_padding_mask: bool `[B, Tk]`, True where a real token is. Padding is seen by no query, and
            queries at padding get zeros.
        correct_duplicates: count a key that several rounds show once (paper, eq. 16), not once a round.
        dropout: probability of dropping an attention weight, in [0, 1).
        dropout_seed: which weights are dropped is a function of it and of the positions alone.
        backend: "auto", "reference" (dense, exact), "torch" (tiled), "cpu" or "triton" (compiled).

    Returns:
        `[B, H, Tq, Dv]` in the dtype of q. A query that sees no key gets zeros.

    Raises:
        ValueError: shapes, dtypes or options do not fit.
        NotImplementedError: the backend asked for cannot run here.
    """
    own_buckets = k_buckets is None or k_buckets is q_buckets
    k_buckets = q_buckets if k_buckets is None else k_buckets
    _check_tensors(q, k, v, key_padding_mask)
    _check_buckets(q, k, q_buckets, k_buckets)
    _check_options(chunk_length, num_chunks_before, num_chunks_after, dropout)
    if window not in ("bucket", "chunk"):
        raise ValueError(f'window must be "bucket" or "chunk", got {window!r}')
    if window == "chunk" and (
        q.shape[2] != k.shape[2] or (k_buckets is not q_buckets and not torch.equal(q_buckets, k_buckets))
    ):
        raise ValueError('window "chunk" needs queries and keys with the same positions and buckets')

    (B, H, Tq), Tk = q.shape[:3], k.shape[2]
    full_chunks = -(-Tk // chunk_length)
    if num_chunks is not None and (window != "chunk" or num_chunks < full_chunks):
        raise ValueError(
            f'num_chunks needs window "chunk" and must hold all {Tk} keys in chunks of {chunk_length}: at '
            f"least {full_chunks}, got {num_chunks} with window {window!r}"
        )
    if num_chunks == full_chunks and key_padding_mask is None:
        num_chunks = None  # as many as the keys fill
    keys_seen = (num_chunks_before + 1 + num_chunks_after) * chunk_length
    num_slots = q_buckets.shape[2] * Tk + keys_seen
    chosen = _choose(backend, q, k, v, num_slots=num_slots, empty_chunks=num_chunks is not None)
    if chosen == "reference":
        mask = _full_mask(k, key_padding_mask)
        if window == "bucket":
            counts = reference.bucket_counts(
                q_buckets,
                k_buckets,
                mask,
                before=num_chunks_before * chunk_length,
                after=num_chunks_after * chunk_length,
                causal=causal,
            )
        else:
            counts = reference.chunk_counts(
                q_buckets,
                mask,
                chunk_length=chunk_length,
                before=num_chunks_before,
                after=num_chunks_after,
                causal=causal,
                num_chunks=num_chunks,
            )
        return _reference(
            q,
            k,
            v,
            counts,
            penalize_self=penalize_self,
            correct_duplicates=correct_duplicates,
            dropout=dropout,
            dropout_seed=dropout_seed,
        )

    if chosen in ("cpu", "triton"):
        return _compiled(chosen, own_buckets=own_buckets)(
            q,
            k,
            v,
            [(q_buckets, k_buckets)],
            key_padding_mask,
            window=window,
            chunk_length=chunk_length,
            before=num_chunks_before * (chunk_length if window == "bucket" else 1),
            after=num_chunks_after * (chunk_length if window == "bucket" else 1),
            causal=causal,
            penalize_self=penalize_self,
            correct_duplicates=correct_duplicates,
            dropout=dropout,
            dropout_seed=dropout_seed,
        )
    scoring = Scoring(*_layouts(q, k), Tk - Tq, penalize_self, dropout, dropout_seed)

    def plans() -> Iterator[Plan]:
        if window == "bucket":
            yield from _bucket_plans(
                [(q_buckets, k_buckets)],
                key_padding_mask,
                scoring,
                before=num_chunks_before * chunk_length,
                after=num_chunks_after * chunk_length,
                causal=causal,
                correct_duplicates=correct_duplicates,
            )
            return
        for rows, mask in _row_blocks(B * H, Tk, key_padding_mask, H):
            yield from chunk_plans(
                q_buckets.flatten(0, 1)[rows],
                mask,
                first_row=rows.start,
                layout=scoring.k_layout,
                chunk_length=chunk_length,
                chunks_before=num_chunks_before,
                chunks_after=num_chunks_after,
                causal=causal,
                correct_duplicates=correct_duplicates,
                num_vectors=B * H * Tk,
                chunks_in_round=num_chunks,
            )

    return _tiled(q, k, v, plans, scoring)


def lsh_attention_by_level(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    buckets: Sequence[Tensor],
    k_buckets: Sequence[Tensor] | None = None,
    *,
    chunk_length: int = 64,
    num_chunks_before: int = 1,
    penalize_self: bool = True,
    key_padding_mask: Tensor | None = None,
    correct_duplicates: bool = False,
    dropout: float = 0.0,
    dropout_seed: int = 0,
    backend: Backend = "auto",
) -> Tensor:
    """Causal LSH attention whose resolution grows with position, level by level.

    Level j has its own hash of all tokens before its end E_j, and serves the queries from E_(j-1) up to
    E_j; the result is that of one `lsh_attention` a level with window "bucket", side by side.

    Args:
        q: `[B, H, T, D]`; see `lsh_attention` for all that is not said here.
        k: `[B, H, T, D]`.
        v: `[B, H, T, D]`.
        buckets: for each level int `[B, H, R, E_j]`, with E_j growing and the last one T.
        k_buckets: those of the keys, likewise; buckets if absent.
        chunk_length: tokens in a chunk.
        num_chunks_before: chunks seen backwards.
        penalize_self: give a query's own key the score -1e5.
        key_padding_mask: bool `[B, T]`; real tokens come first in each row, so that levels are the
            same for all.
        correct_duplicates: count a key that several rounds show once.
        dropout: probability of dropping an attention weight.
        dropout_seed: see `lsh_attention`.
        backend: see `lsh_attention`.

    Returns:
        `[B, H, T, D]` in the dtype of q.
    """
    _check_tensors(q, k, v, key_padding_mask)
    _check_options(chunk_length, num_chunks_before, 0, dropout)
    ends = [0] + [level.shape[-1] for level in buckets]
    if ends[-1] != q.shape[2] or q.shape[2] != k.shape[2] or ends != sorted(set(ends)):
        raise ValueError(f"levels must end at growing positions up to T={q.shape[2]}, they end at {ends[1:]}")
    of_keys = buckets if k_buckets is None else k_buckets
    levels = [
        (of_queries[..., start:], level)
        for start, of_queries, level in zip(ends[:-1], buckets, of_keys, strict=True)
    ]
    for q_level, k_level in levels:
        _check_buckets(q[:, :, : q_level.shape[-1]], k[:, :, : k_level.shape[-1]], q_level, k_level)

    keys_seen = (num_chunks_before + 1) * chunk_length
    chosen = _choose(backend, q, k, v, num_slots=buckets[-1].shape[2] * q.shape[2] + keys_seen)
    if chosen == "reference":
        outputs = [
            lsh_attention(
                q[:, :, start:stop],
                k[:, :, :stop],
                v[:, :, :stop],
                q_level,
                k_level,
                chunk_length=chunk_length,
                num_chunks_before=num_chunks_before,
                penalize_self=penalize_self,
                key_padding_mask=None if key_padding_mask is None else key_padding_mask[:, :stop],
                correct_duplicates=correct_duplicates,
                dropout=dropout,
                dropout_seed=dropout_seed,
                backend="reference",
            )
            for (q_level, k_level), start, stop in zip(levels, ends[:-1], ends[1:], strict=True)
        ]
        return torch.cat(outputs, dim=2)

    if chosen in ("cpu", "triton"):
        return _compiled(chosen, own_buckets=of_keys is buckets)(
            q,
            k,
            v,
            levels,
            key_padding_mask,
            window="bucket",
            chunk_length=chunk_length,
            before=num_chunks_before * chunk_length,
            after=0,
            causal=True,
            penalize_self=penalize_self,
            correct_duplicates=correct_duplicates,
            dropout=dropout,
            dropout_seed=dropout_seed,
        )
    scoring = Scoring(*_layouts(q, k), 0, penalize_self, dropout, dropout_seed)

    def plans() -> Iterator[Plan]:
        return _bucket_plans(
            levels,
            key_padding_mask,
            scoring,
            before=num_chunks_before * chunk_length,
            after=0,
            causal=True,
            correct_duplicates=correct_duplicates,
        )

    return _tiled(q, k, v, plans, scoring)


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    chunk_length: int = 64,
    num_chunks_before: int = 1,
    num_chunks_after: int = 0,
    causal: bool = True,
    key_padding_mask: Tensor | None = None,
    dropout: float = 0.0,
    dropout_seed: int = 0,
    backend: Backend = "auto",
) -> Tensor:
    """Attend within a chunked sliding window over the real tokens, without wrap-around.

    A query in chunk c (its position among the real tokens divided by `chunk_length`) sees the chunks
    from c - num_chunks_before to c + num_chunks_after. Scores are `q . k`, unscaled.

    Args:
        q: `[B, H, Tq, D]`; see `lsh_attention` for all that is not said here.
        k: `[B, H, Tk, D]`.
        v: `[B, H, Tk, D]`.
        chunk_length: tokens in a chunk.
        num_chunks_before: chunks seen backwards.
        num_chunks_after: chunks seen forwards.
        causal: exclude keys later than the query.
        key_padding_mask: bool `[B, Tk]`, True where a real token is.
        dropout: probability of dropping an attention weight.
        dropout_seed: see `lsh_attention`.
        backend: see `lsh_attention`.

    Returns:
        `[B, H, Tq, D]` in the dtype of q.

    Raises:
        ValueError: shapes, dtypes or options do not fit.
        NotImplementedError: the backend asked for cannot run here.
    """
    _check_tensors(q, k, v, key_padding_mask)
    _check_options(chunk_length, num_chunks_before, num_chunks_after, dropout)
    (B, H, Tq), Tk = q.shape[:3], k.shape[2]
    keys_seen = (num_chunks_before + 1 + num_chunks_after) * chunk_length
    chosen = _choose(backend, q, k, v, num_slots=Tk + keys_seen)
    if chosen == "reference":
        counts = reference.local_counts(
            Tq,
            _full_mask(k, key_padding_mask),
            chunk_length=chunk_length,
            before=num_chunks_before,
            after=num_chunks_after,
            causal=causal,
        )
        return _reference(
            q,
            k,
            v,
            counts,
            penalize_self=False,
            correct_duplicates=False,
            dropout=dropout,
            dropout_seed=dropout_seed,
        )

    if chosen in ("cpu", "triton"):
        return _compiled(chosen, own_buckets=True)(
            q,
            k,
            v,
            [],
            key_padding_mask,
            window="local",
            chunk_length=chunk_length,
            before=num_chunks_before,
            after=num_chunks_after,
            causal=causal,
            dropout=dropout,
            dropout_seed=dropout_seed,
        )
    scoring = Scoring(*_layouts(q, k), Tk - Tq, False, dropout, dropout_seed)

    def plans() -> Iterator[Plan]:
        for rows, mask in _row_blocks(B * H, Tk, key_padding_mask, H):
            yield local_plan(
                scoring.q_layout,
                scoring.k_layout,
                mask,
                num_rows=rows.stop - rows.start,
                first_row=rows.start,
                chunk_length=chunk_length,
                chunks_before=num_chunks_before,
                chunks_after=num_chunks_after,
                causal=causal,
                device=q.device,
            )

    return _tiled(q, k, v, plans, scoring)


def _bucket_plans(
    levels: Sequence[tuple[Tensor, Tensor]],
    key_padding_mask: Tensor | None,
    scoring: Scoring,
    *,
    before: int,
    after: int,
    causal: bool,
    correct_duplicates: bool,
) -> Iterator[Plan]:
    """Plans of every level (q_buckets, k_buckets), block of rows and round."""
    for q_buckets, k_buckets in levels:
        (B, H, R, _), Tk = q_buckets.shape, k_buckets.shape[-1]
        mask = None if key_padding_mask is None else key_padding_mask[:, :Tk]
        for rows, row_mask in _row_blocks(B * H, Tk, mask, H):
            q_rows, k_rows = q_buckets.flatten(0, 1)[rows], k_buckets.flatten(0, 1)[rows]
            plans = (
                bucket_plan(
                    q_rows[:, r],
                    k_rows[:, r],
                    row_mask,
                    first_row=rows.start,
                    q_layout=scoring.q_layout,
                    k_layout=scoring.k_layout,
                    q_offset=scoring.q_offset,
                    round_index=r,
                    before=before,
                    after=after,
                    causal=causal,
                )
                for r in range(R)
            )
            if correct_duplicates:
                lengths = scoring.q_layout.length, scoring.k_layout.length
                yield from bucket_duplicates(list(plans), B * H * lengths[0], B * H * lengths[1])
            else:
                yield from plans


def _row_blocks(
    num_rows: int, num_keys: int, key_padding_mask: Tensor | None, num_heads: int
) -> Iterator[tuple[slice, Tensor | None]]:
    """Rows that are planned together, with their padding masks `[rows, Tk]`."""
    step = max(1, _ROW_TOKENS // max(1, num_keys))
    for start in range(0, num_rows, step):
        rows = slice(start, min(start + step, num_rows))
        mask = None
        if key_padding_mask is not None:
            batch = torch.arange(rows.start, rows.stop, device=key_padding_mask.device) // num_heads
            mask = key_padding_mask[batch]
        yield rows, mask


def _tiled(q: Tensor, k: Tensor, v: Tensor, plans: Callable[[], Iterator[Plan]], scoring: Scoring) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return TiledAttention.apply(q, k, v, plans, scoring)[0]


def _reference(q: Tensor, k: Tensor, v: Tensor, counts: Tensor, **options: Any) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return reference.attention(q, k, v, counts, **options)


def _layouts(q: Tensor, k: Tensor) -> tuple[Layout, Layout]:
    q_layout = Layout.of(q)
    return q_layout, replace(q_layout, length=k.shape[2])


def _full_mask(k: Tensor, key_padding_mask: Tensor | None) -> Tensor:
    if key_padding_mask is None:
        return torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device)
    return key_padding_mask


def _choose(
    backend: Backend, q: Tensor, k: Tensor, v: Tensor, *, num_slots: int, empty_chunks: bool = False
) -> str:
    """The backend to use: a function of what the tensors are and of what is installed."""
    if backend in ("reference", "torch"):
        return backend
    if backend not in ("auto", "cpu", "triton"):
        raise ValueError(f'backend must be "auto", "reference", "torch", "cpu" or "triton", got {backend!r}')
    compiled = ("triton" if q.is_cuda else "cpu") if backend == "auto" else backend
    unsupported = cpu.unsupported if compiled == "cpu" else triton_unsupported
    reason = unsupported(q, k, v, num_slots=num_slots)
    if empty_chunks and reason is None:
        reason = "num_chunks is given, so that chunks may be empty"
    if backend != "auto" and reason is not None:
        raise NotImplementedError(f'backend "{backend}" cannot run here: {reason}')
    if backend == "auto" and not torch.compiler.is_compiling():
        _log_choice(q.device.type, compiled, reason)
    return compiled if reason is None else "torch"


def _compiled(backend: str, *, own_buckets: bool) -> Callable[..., Tensor]:
    """Attention by a compiled backend.

    Args:
        backend: "cpu" or "triton".
        own_buckets: whether the buckets of queries are those of the keys at their positions.
    """
    return cpu.attention if backend == "cpu" else partial(triton.attention, own=own_buckets)


@cache
def _log_choice(device_type: str, compiled: str, reason: str | None) -> None:
    if reason is not None:
        _log.info('attention on %s uses backend "torch": %s', device_type, reason)
    elif compiled == "triton":
        _log.info('attention on %s uses backend "triton"', device_type)
    else:
        instructions = cpu.library.instruction_sets[cpu.library.instruction_set]
        _log.info('attention on %s uses backend "cpu" (%s)', device_type, instructions)


def _check_tensors(q: Tensor, k: Tensor, v: Tensor, key_padding_mask: Tensor | None) -> None:
    if q.dim() != 4 or k.dim() != 4:
        raise ValueError(f"q, k and v must be [B, H, T, D], got {list(q.shape)} and {list(k.shape)}")
    B, H, Tq, D = q.shape
    Tk = k.shape[2]
    if k.shape != (B, H, Tk, D) or v.dim() != 4 or v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"k must be [B={B}, H={H}, Tk, D={D}] like q and v [B, H, Tk, Dv], got {list(k.shape)} and "
            f"{list(v.shape)}"
        )
    if not 1 <= Tq <= Tk:
        raise ValueError(f"there must be at least one query and no more queries than keys, got {Tq} and {Tk}")
    if q.dtype not in _FLOATING or k.dtype != q.dtype or v.dtype != q.dtype:
        raise ValueError(f"q, k and v must share a floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if key_padding_mask is not None and (
        key_padding_mask.dtype != torch.bool or key_padding_mask.shape != (B, Tk)
    ):
        raise ValueError(
            f"key_padding_mask must be bool [B={B}, Tk={Tk}], got {key_padding_mask.dtype} "
            f"{list(key_padding_mask.shape)}"
        )


def _check_buckets(q: Tensor, k: Tensor, q_buckets: Tensor, k_buckets: Tensor) -> None:
    for name, buckets, x in (("q_buckets", q_buckets, q), ("k_buckets", k_buckets, k)):
        B, H, T = x.shape[:3]
        if buckets.dim() != 4 or (*buckets.shape[:2], buckets.shape[3]) != (B, H, T):
            raise ValueError(f"{name} must be [B={B}, H={H}, R, T={T}], got {list(buckets.shape)}")
        if buckets.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"{name} must be int64 or int32, got {buckets.dtype}")
    if q_buckets.shape[2] != k_buckets.shape[2]:
        raise ValueError(f"q_buckets has {q_buckets.shape[2]} rounds, k_buckets {k_buckets.shape[2]}")


def _check_options(chunk_length: int, num_chunks_before: int, num_chunks_after: int, dropout: float) -> None:
    if chunk_length < 1:
        raise ValueError(f"chunk_length must be at least 1, got {chunk_length}")
    if num_chunks_before < 0 or num_chunks_after < 0:
        raise ValueError(
            f"num_chunks_before and num_chunks_after must not be negative, got {num_chunks_before} and "
            f"{num_chunks_after}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout}")
