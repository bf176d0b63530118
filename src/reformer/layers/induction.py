"""LSH attention that finds what followed the like of the last tokens, wherever it was: induction heads.

Shared-QK attention finds tokens that are like the query's, but what stands behind them, which is what a
causal model wants to know, is not in their values. Here the query of a token is made of the last n tokens, by
a depthwise causal convolution, and the key of a token is the query of the one before it: where the last n
tokens are like those before an earlier token, attention finds that token (Olsson et al. 2022, "In-context
learning and induction heads"). Positions play no part, so that a genome can follow its relatives, or a book
an earlier chapter, from any distance.

The taps of the convolution add up to 0. What all tokens have in common then drops out, so that contexts which
are not alike have products near 0 and fill the buckets evenly: without this, a like is found too seldom for
the model to learn to look for it, or to go on doing so.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from reformer.layers.attention import LSHSelfAttention
from reformer.layers.bucket_cache import BucketCache
from reformer.layers.causal_convolution import causal_convolution
from reformer.layers.decoding import NextToken
from reformer.layers.known_results import linear
from reformer.layers.shared_keys import shared_keys

_SCORE_OF_LIKE = 32.0  # of a context with itself, when the weights are new; other contexts have about 0


class InductionSelfAttention(LSHSelfAttention):
    """Causal LSH attention, window "bucket", of contexts of n tokens to what followed their like.

    Args:
        shape: sizes, without rotary positions.
        induction_length: n, at least 2.
        options: of `LSHSelfAttention`.
    """

    penalize_self = False  # the key at a token is of what stands before it

    def __init__(self, *arguments: object, induction_length: int, **options: object):
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        shape = (induction_length, self.num_heads, self.head_size)
        self.taps = nn.Parameter(torch.randn(shape) * self.std_of_taps(induction_length, 0.02))

    @override
    def project(self, x: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
        """What contexts are made of, and values, `[..., H * D]` of `[..., d]`, both given if known."""
        parts, v = known or (None, None)
        return linear(self.query_key, x, parts), linear(self.value, x, v)

    @override
    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        parts, v = projections
        q = self.contexts(parts)
        return super().attend([q, shared_keys(_one_later(q, 2)), v], seed, key_padding_mask)

    def contexts(self, parts: Tensor) -> Tensor:
        """Queries of the last n tokens, `[B, H, T, D]` of the same, 0 standing before the first."""
        return causal_convolution(parts, self.taps - self.taps.mean(0))

    def std_of_taps(self, n: int, std_of_projection: float) -> float:
        """Standard deviation of n new taps, where that of the weights of projections is known."""
        return _SCORE_OF_LIKE / (std_of_projection * math.sqrt(n * self.head_size * self.hidden_size))

    @override
    def key_buckets(self, buckets: list[Tensor]) -> list[Tensor]:
        return [_one_later(of_level, 3) for of_level in buckets]


def _one_later(x: Tensor, dim: int) -> Tensor:
    """Everything one position later, behind a 0: nothing stands before the first token."""
    first = torch.zeros_like(x.narrow(dim, 0, 1))
    return torch.cat([first, x.narrow(dim, 0, x.shape[dim] - 1)], dim)


class InductionCache(BucketCache):
    """Besides what `BucketCache` keeps, the last tokens of each row.

    `recent` `[B, H, n - 1, D]` has what the next context will be made of, `context` `[B, H, D]` the last
    query, which the key of the next token is made of.
    """

    kind: InductionSelfAttention

    @override
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        (parts, v), recent, before = projections, self.state["recent"], self.state["context"]
        last = torch.cat([recent, parts[:, :, None]], dim=2)
        q = self.kind.contexts(last)[:, :, -1]
        mixed = self._step(q, shared_keys(before), v, before.clone(), token)
        recent.copy_(last[:, :, 1:])
        before.copy_(q)
        return mixed

    @override
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        parts, v = projections
        B, H, S, D = parts.shape
        n = len(self.kind.taps)
        is_first = not self.state
        recent = parts.new_zeros(B, H, n - 1, D) if is_first else self.state["recent"]
        before = parts.new_zeros(B, H, D) if is_first else self.state["context"]
        last = torch.cat([recent, parts], dim=2)
        q = self.kind.contexts(last)[:, :, n - 1 :]
        placed = torch.cat([before[:, :, None], q], dim=2)
        mixed = self._extend(q, shared_keys(placed[:, :, :-1]), v, placed[:, :, :-1], mask, lengths)
        read = torch.full((B,), S, device=q.device) if mask is None else mask.sum(1)
        columns = read[:, None] + torch.arange(n - 1, device=q.device)
        self.state["recent"] = last.gather(2, columns[:, None, :, None].expand(-1, H, -1, D))
        self.state["context"] = placed.gather(2, read[:, None, None, None].expand(-1, H, 1, D)).squeeze(2)
        return mixed
