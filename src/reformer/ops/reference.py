"""The definition of the attention ops: short, eager, dense, exact in float64.

Every window is described by `counts[b, h, r, q, k]`: how often query q sees key k in round r. The
output of all rounds, merged by their logsumexps, is then one softmax over everything that was seen:
`softmax(scores + log(counts))` over (r, k) together.
"""

import math

import torch
from torch import Tensor

from reformer.ops.dropout import keep_mask, position_seed

SELF_SCORE = -1e5


def bucket_counts(
    q_buckets: Tensor, k_buckets: Tensor, key_mask: Tensor, *, before: int, after: int, causal: bool
) -> Tensor:
    """Window "bucket": keys of the query's own bucket whose rank is near the query's.

    Args:
        q_buckets: int `[B, H, R, Tq]`; the queries are the last Tq positions.
        k_buckets: int `[B, H, R, Tk]`.
        key_mask: bool `[B, Tk]`, True where a real token is.
        before: ranks that a query sees backwards.
        after: ranks that a query sees forwards.
        causal: whether later keys are excluded.

    Returns:
        int64 `[B, H, R, Tq, Tk]`, 0 or 1.
    """
    q_position, k_position = positions(q_buckets.shape[-1], k_buckets.shape[-1], q_buckets.device)
    real_key = key_mask[:, None, None, None, :]
    same_bucket = (q_buckets[..., :, None] == k_buckets[..., None, :]) & real_key
    q_rank = (same_bucket & (k_position <= q_position)).sum(-1, keepdim=True) - 1
    k_rank = same_bucket.cumsum(-1) - 1
    seen = same_bucket & (q_rank - k_rank <= before) & (k_rank - q_rank <= after)
    real_query = key_mask[:, -q_buckets.shape[-1] :][:, None, None, :, None]
    return (seen & real_query & (k_position <= q_position if causal else True)).long()


def chunk_counts(
    buckets: Tensor,
    key_mask: Tensor,
    *,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
    num_chunks: int | None = None,
) -> Tensor:
    """Window "chunk": the sorted keys cut into chunks; a query sees its own and neighbouring chunks.

    Neighbours are taken around the flat list of all rounds' chunks. Padding belongs to no chunk, so
    the last chunk of a round may be short. A key seen twice in one round counts twice.

    Args:
        buckets: int `[B, H, R, T]`.
        key_mask: bool `[B, T]`, True where a real token is.
        chunk_length: tokens in a chunk.
        before: chunks that a query sees backwards.
        after: chunks that a query sees forwards.
        causal: whether later keys are excluded.
        num_chunks: chunks in each round, those behind the last real key being empty; by default as many
            as the real keys fill.

    Returns:
        int64 `[B, H, R, T, T]`.
    """
    B, H, R, T = buckets.shape
    counts = torch.zeros(B, H, R, T, T, dtype=torch.int64, device=buckets.device)
    for b in range(B):
        real = key_mask[b].nonzero().squeeze(-1)
        for h in range(H):
            chunks = [
                (r, order[i * chunk_length : (i + 1) * chunk_length])
                for r in range(R)
                for order in [real[buckets[b, h, r, real].argsort(stable=True)]]
                for i in range(num_chunks or math.ceil(len(real) / chunk_length))
            ]
            for i, (r, queries) in enumerate(chunks if len(real) else []):
                for j in range(i - before, i + after + 1):
                    keys = chunks[j % len(chunks)][1]
                    counts[b, h, r, queries[:, None], keys] += 1
    q_position, k_position = positions(T, T, buckets.device)
    return counts * (k_position <= q_position) if causal else counts


def local_counts(
    num_queries: int, key_mask: Tensor, *, chunk_length: int, before: int, after: int, causal: bool
) -> Tensor:
    """Chunked sliding window: chunks of consecutive real tokens, no wrap-around.

    Args:
        num_queries: Tq; the queries are the last Tq positions.
        key_mask: bool `[B, Tk]`, True where a real token is.
        chunk_length: tokens in a chunk.
        before: chunks that a query sees backwards.
        after: chunks that a query sees forwards.
        causal: whether later keys are excluded.

    Returns:
        int64 `[B, 1, 1, Tq, Tk]`, 0 or 1.
    """
    chunk = (key_mask.cumsum(-1) - 1).div(chunk_length, rounding_mode="floor")
    distance = chunk[:, None, :] - chunk[:, -num_queries:, None]
    seen = (distance >= -before) & (distance <= after)
    seen &= key_mask[:, None, :] & key_mask[:, -num_queries:, None]
    q_position, k_position = positions(num_queries, key_mask.shape[-1], key_mask.device)
    return (seen & (k_position <= q_position if causal else True))[:, None, None].long()


def positions(num_queries: int, num_keys: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Positions `[Tq, 1]` of the queries, which are the last Tq, and `[1, Tk]` of the keys."""
    k_position = torch.arange(num_keys, device=device)[None, :]
    return k_position[:, num_keys - num_queries :].T, k_position


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    counts: Tensor,
    *,
    penalize_self: bool,
    correct_duplicates: bool,
    dropout: float = 0.0,
    dropout_seed: int = 0,
) -> Tensor:
    """One softmax over all that each query sees, in all rounds.

    Args:
        q: `[B, H, Tq, D]`, floating.
        k: `[B, H, Tk, D]`.
        v: `[B, H, Tk, D]`.
        counts: int `[B, H, R, Tq, Tk]` (B, H, R may be 1): how often a query sees a key in a round.
        penalize_self: give a query's own key the score -1e5.
        correct_duplicates: subtract the log of the number of times that a key was seen (paper, eq. 16).
        dropout: probability of dropping a weight, in [0, 1).
        dropout_seed: the weights that are dropped are a function of it and of the positions.

    Returns:
        `[B, H, Tq, D]` in the dtype of q; zero where a query sees no key.
    """
    P = weights(q, k, counts, penalize_self=penalize_self, correct_duplicates=correct_duplicates)
    if dropout:
        B, H, R, Tq, Tk = P.shape
        q_position, k_position = positions(Tq, Tk, q.device)
        row = torch.arange(B * H, device=q.device).view(B, H, 1, 1)
        kept = [
            keep_mask(position_seed(dropout_seed, r, row, q_position, k_position), dropout) for r in range(R)
        ]
        P = P * torch.stack(kept, dim=2) / (1 - dropout)
    return torch.einsum("bhrqk,bhkd->bhqd", P, v.to(P.dtype)).to(q.dtype)


def weights(q: Tensor, k: Tensor, counts: Tensor, *, penalize_self: bool, correct_duplicates: bool) -> Tensor:
    """Attention weights `[B, H, R, Tq, Tk]`: they sum to 1 over (R, Tk), or to 0 if nothing is seen."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(dtype) @ k.to(dtype).mT
    if penalize_self:
        q_position, k_position = positions(q.shape[-2], k.shape[-2], q.device)
        scores = torch.where(q_position == k_position, SELF_SCORE, scores)
    seen = counts > 0
    multiplicity = counts.to(dtype)
    if correct_duplicates:
        multiplicity = multiplicity / counts.sum(2, keepdim=True).clamp(min=1)
    logits = scores[:, :, None].masked_fill(~seen, -torch.inf)
    highest = logits.detach().amax((2, 4), keepdim=True).clamp(min=torch.finfo(dtype).min)
    P = multiplicity * (logits - highest).exp()
    return P / P.sum((2, 4), keepdim=True).clamp(min=torch.finfo(dtype).tiny)
