"""Self-attention: one block for all kinds, and the kinds (LSH, local, full)."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from reformer.layers.known_results import linear
from reformer.layers.layer_norm import LayerNorm
from reformer.layers.positions import rotate
from reformer.layers.randomness import derive, dropout, generator, move
from reformer.layers.shared_keys import shared_keys
from reformer.layers.transformers_layout import TransformersLayout
from reformer.ops import local_attention, lsh_attention, lsh_attention_by_level, lsh_hash

MAX_ATTENTIONS_LENGTH = 2048
"""Longest input whose attention weights `[B, H, T, T]` are given out."""

_LARGEST_FACTOR = 64  # more buckets than this are hashed in several factors


class Attention(nn.Module):
    """`dense(attention(layer_norm(x)))`, the first branch of a reversible layer.

    In three parts, since the first and last are position-wise: the reversible stack calls them chunk by
    chunk, forwards and backwards.

    Args:
        kind: which attention.
        dropout: probability of dropping a feature of the result.
        layer_norm_eps: added to the variance.
    """

    def __init__(self, kind: "SelfAttention", *, dropout: float, layer_norm_eps: float):
        super().__init__()
        self.layer_norm = LayerNorm(kind.hidden_size, eps=layer_norm_eps)
        self.self_attention = kind
        self.output = _Output(kind.num_heads * kind.head_size, kind.hidden_size)
        self.dropout = dropout

    def forward(self, x: Tensor, seed: int | None, key_padding_mask: Tensor | None = None) -> Tensor:
        """`[B, T, d]` to `[B, T, d]`.

        Args:
            x: floating.
            seed: of rotations and dropout in training; None in evaluation.
            key_padding_mask: bool `[B, T]`, True where a real token is; real tokens come first.
        """
        mixed = self.attend(self.project_in(x, seed), seed, key_padding_mask)
        return self.project_out(mixed, None if seed is None else derive(seed, 3))

    def project_in(self, x: Tensor, seed: int | None, *known: Tensor) -> tuple[Tensor, ...]:
        """What the kind projects, `[..., H * D]` each, of `[..., d]`; draws nothing.

        Only their place in a graph is made where they are `known`.
        """
        return self.self_attention.project(self.layer_norm(x), *known)

    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Mix the values of tokens: `[B, T, H * D]` each to the same."""
        mixed = self.self_attention.attend(self.heads(projections), seed, key_padding_mask)
        return mixed.transpose(1, 2).flatten(2)

    def project_out(self, mixed: Tensor, seed: int | None) -> Tensor:
        """`[..., H * D]` to `[..., d]`, with dropout."""
        return dropout(self.output(mixed), self.dropout, seed)

    def weights(self, x: Tensor, seed: int | None, key_padding_mask: Tensor | None = None) -> Tensor:
        """Attention weights `[B, H, T, T]`, summed over hash rounds.

        They are what the attention makes of unit vectors as values.

        Raises:
            ValueError: T is above MAX_ATTENTIONS_LENGTH.
        """
        B, T, _ = x.shape
        if T > MAX_ATTENTIONS_LENGTH:
            raise ValueError(
                "output_attentions=True makes [B, H, T, T] tensors: T must be at most "
                f"{MAX_ATTENTIONS_LENGTH}, got {T}"
            )
        *others, v = self.heads(self.project_in(x, seed))
        values = torch.eye(T, dtype=v.dtype, device=v.device).expand(B, v.shape[1], T, T)
        return self.self_attention.attend([*others, values], seed, key_padding_mask)

    def heads(self, projections: Sequence[Tensor]) -> list[Tensor]:
        """`[B, T, H * D]` as views `[B, H, T, D]`."""
        return [p.unflatten(-1, (self.self_attention.num_heads, -1)).transpose(1, 2) for p in projections]


class _Output(nn.Module):
    """A linear layer under the name that checkpoints have for it."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)


@dataclass(frozen=True)
class AttentionShape:
    """What all kinds of attention share.

    `rope_theta` is the base of rotary positions, or None for none. `dropout` is the probability of
    dropping an attention weight. `layout` is how transformers cuts chunks, or None for our way.
    """

    hidden_size: int
    num_heads: int
    head_size: int
    causal: bool
    dropout: float
    rope_theta: float | None = None
    layout: TransformersLayout | None = None


class SelfAttention(nn.Module):
    """A kind of attention: how tokens are projected, and how they then attend."""

    chunk_length: int

    def __init__(self, shape: AttentionShape):
        super().__init__()
        self.hidden_size, self.num_heads, self.head_size = shape.hidden_size, shape.num_heads, shape.head_size
        self.shape = shape

    def _linear(self) -> nn.Linear:
        return nn.Linear(self.hidden_size, self.num_heads * self.head_size, bias=False)

    def _rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        theta = self.shape.rope_theta
        return (q, k) if theta is None else (rotate(q, theta), rotate(k, theta))

    def _num_chunks(self, length: int) -> int | None:
        """Chunks of an input on transformers' circle."""
        return None if self.shape.layout is None else self.shape.layout.num_chunks(length, self.chunk_length)

    def _dropout(self, seed: int | None) -> dict[str, float | int]:
        return {} if seed is None else {"dropout": self.shape.dropout, "dropout_seed": derive(seed, 1)}

    @abstractmethod
    def project(self, x: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values `[..., H * D]` of `[..., d]`, all given if known; `q . k` is the score."""

    @abstractmethod
    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        """Attention `[B, H, T, Dv]` of what was projected, `[B, H, T, D]` each, and values last.

        See `Attention.forward`.
        """


class _SeparateProjections(SelfAttention):
    """Queries, keys and values of their own."""

    def __init__(self, shape: AttentionShape):
        super().__init__(shape)
        self.query, self.key, self.value = self._linear(), self._linear(), self._linear()

    @override
    def project(self, x: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
        q, k, v = known or (None, None, None)
        scale = math.sqrt(self.head_size)
        q = linear(self.query, x, q)
        k = linear(self.key, x, None if k is None else k * scale) / scale
        return q, k, linear(self.value, x, v)


class LocalSelfAttention(_SeparateProjections):
    """Chunked sliding window.

    Args:
        shape: sizes.
        chunk_length: tokens in a chunk.
        num_chunks_before: chunks seen backwards.
        num_chunks_after: chunks seen forwards.
    """

    def __init__(
        self, shape: AttentionShape, *, chunk_length: int, num_chunks_before: int, num_chunks_after: int
    ):
        super().__init__(shape)
        self.chunk_length = chunk_length
        self.num_chunks_before, self.num_chunks_after = num_chunks_before, num_chunks_after

    @override
    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        q, k, v = projections
        q, k = self._rotate(q, k)
        circle = self._num_chunks(q.shape[2])
        if circle is not None and (not self.shape.causal or circle <= self.num_chunks_before):
            # On a circle, a chunk can be seen from both sides: as one bucket that is cut into chunks.
            one_bucket = torch.zeros(
                q.shape[0], q.shape[1], 1, q.shape[2], dtype=torch.int64, device=q.device
            )
            return lsh_attention(
                q,
                k,
                v,
                one_bucket,
                chunk_length=self.chunk_length,
                num_chunks_before=self.num_chunks_before,
                num_chunks_after=self.num_chunks_after,
                window="chunk",
                num_chunks=circle,
                causal=self.shape.causal,
                penalize_self=False,
                key_padding_mask=key_padding_mask,
                **self._dropout(seed),  # type: ignore[arg-type]
            )
        return local_attention(
            q,
            k,
            v,
            chunk_length=self.chunk_length,
            num_chunks_before=self.num_chunks_before,
            num_chunks_after=self.num_chunks_after,
            causal=self.shape.causal,
            key_padding_mask=key_padding_mask,
            **self._dropout(seed),  # type: ignore[arg-type]
        )


class FullSelfAttention(_SeparateProjections):
    """Every token sees every token (causal: every earlier one)."""

    @override
    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        q, k, v = projections
        q, k = self._rotate(q, k)
        causal = self.shape.causal
        if seed is not None and self.shape.dropout:
            # torch's own dropout cannot be drawn again; one chunk that holds all is full attention.
            return local_attention(
                q,
                k,
                v,
                chunk_length=q.shape[2],
                num_chunks_before=0,
                causal=causal,
                key_padding_mask=key_padding_mask,
                **self._dropout(seed),  # type: ignore[arg-type]
            )
        # Real tokens come first, so that causality alone hides the padding from them.
        mask = None if causal or key_padding_mask is None else key_padding_mask[:, None, None, :]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=1.0)


class LSHSelfAttention(SelfAttention):
    """Shared query-key attention within hash buckets.

    Causal with window "bucket" and no fixed number of buckets, the resolution grows with position:
    queries from C * 2^j to C * 2^(j+1) are hashed with 2^(j+1) buckets, so that a bucket holds at most C
    keys on average, as many as the window looks back. Otherwise one hash serves all.

    Args:
        shape: sizes.
        window: "bucket" or "chunk".
        chunk_length: tokens C in a chunk.
        num_chunks_before: chunks seen backwards.
        num_chunks_after: chunks seen forwards.
        num_hashes: hash rounds R.
        num_buckets: an even number, factors, or None to choose by the number of tokens.
        max_num_buckets: largest number chosen.
        hash_seed: of the rotations in evaluation.
    """

    penalize_self = True

    def __init__(
        self,
        shape: AttentionShape,
        *,
        window: str,
        chunk_length: int,
        num_chunks_before: int,
        num_chunks_after: int,
        num_hashes: int,
        num_buckets: int | Sequence[int] | None,
        max_num_buckets: int,
        hash_seed: int,
    ):
        super().__init__(shape)
        self.query_key, self.value = self._linear(), self._linear()
        self.window = window
        self.chunk_length = chunk_length
        self.num_chunks_before, self.num_chunks_after = num_chunks_before, num_chunks_after
        self.num_hashes = num_hashes
        self.num_buckets = num_buckets
        self.max_num_buckets = max_num_buckets
        self.hash_seed = hash_seed

    @override
    def project(self, x: Tensor, *known: Tensor) -> tuple[Tensor, ...]:
        q, _, v = known or (None, None, None)
        q = linear(self.query_key, x, q)
        k = shared_keys(q.unflatten(-1, (self.num_heads, self.head_size))).flatten(-2)
        return q, k, linear(self.value, x, v)

    @override
    def attend(
        self, projections: Sequence[Tensor], seed: int | None, key_padding_mask: Tensor | None
    ) -> Tensor:
        q, k, v = projections
        if self.shape.causal and self.window == "bucket" and self.num_buckets is None:
            buckets = [
                self._hash(q[:, :, :end], factors(num_buckets, self.head_size), level, seed, None)
                for level, (end, num_buckets) in enumerate(self.levels(q.shape[2]))
            ]
            q, k = self._rotate(q, k)
            return lsh_attention_by_level(
                q,
                k,
                v,
                buckets,
                self.key_buckets(buckets),
                chunk_length=self.chunk_length,
                num_chunks_before=self.num_chunks_before,
                penalize_self=self.penalize_self,
                key_padding_mask=key_padding_mask,
                **self._dropout(seed),  # type: ignore[arg-type]
            )
        buckets = [self._buckets(q, seed, key_padding_mask)]
        q, k = self._rotate(q, k)
        return lsh_attention(
            q,
            k,
            v,
            *buckets,
            *self.key_buckets(buckets),
            chunk_length=self.chunk_length,
            num_chunks_before=self.num_chunks_before,
            num_chunks_after=self.num_chunks_after,
            window=self.window,  # type: ignore[arg-type]
            num_chunks=self._num_chunks(q.shape[2]),
            causal=self.shape.causal,
            penalize_self=self.penalize_self,
            key_padding_mask=key_padding_mask,
            **self._dropout(seed),  # type: ignore[arg-type]
        )

    def key_buckets(self, buckets: list[Tensor]) -> list[Tensor]:
        """Buckets `[B, H, R, T]` of keys from those of queries, in each level."""
        return buckets

    def levels(self, length: int) -> list[tuple[int, int]]:
        """End position and number of buckets of each level of an input of `length` tokens."""
        levels = []
        end, num_buckets = self.chunk_length, 1
        while end < length and 2 * num_buckets <= self.max_num_buckets:
            levels.append((end, num_buckets))
            end, num_buckets = 2 * end, 2 * num_buckets
        return [*levels, (length, num_buckets)]

    def _buckets(self, q: Tensor, seed: int | None, key_padding_mask: Tensor | None) -> Tensor:
        """Buckets `[B, H, R, T]` where one hash serves all positions.

        A number of buckets that is not given depends on the number of real tokens, so that padding
        changes nothing: rows with the same number are hashed together.
        """
        B, _, T, _ = q.shape
        if self.num_buckets is not None:
            given = self.num_buckets
            given = (given,) if isinstance(given, int) else tuple(given)
            return self._hash(q, given, 0, seed, key_padding_mask)
        if self.shape.layout is not None:
            chosen = self.shape.layout.bucket_factors(T, self.chunk_length)
            return self._hash(q, chosen, 0, seed, key_padding_mask)
        lengths = [T] * B if key_padding_mask is None else key_padding_mask.sum(-1).tolist()
        wanted = [self._choose_num_buckets(length) for length in lengths]
        if len(set(wanted)) == 1:
            return self._hash(q, factors(wanted[0], self.head_size), 0, seed, key_padding_mask)
        buckets = torch.empty(B, self.num_heads, self.num_hashes, T, dtype=torch.int64, device=q.device)
        for num_buckets in sorted(set(wanted)):
            rows = [b for b in range(B) if wanted[b] == num_buckets]
            mask = None if key_padding_mask is None else key_padding_mask[rows]
            buckets[rows] = self._hash(q[rows], factors(num_buckets, self.head_size), 0, seed, mask)
        return buckets

    def _choose_num_buckets(self, length: int) -> int:
        """The power of two at or below T / C ("bucket") or 2T / C ("chunk", the paper's choice)."""
        chunks = length * (2 if self.window == "chunk" else 1) // self.chunk_length
        return min(1 << (max(1, chunks).bit_length() - 1), self.max_num_buckets)

    def _hash(
        self, x: Tensor, num_buckets: tuple[int, ...], level: int, seed: int | None, mask: Tensor | None
    ) -> Tensor:
        """Hash with rotations drawn from the seed, or in evaluation from `hash_seed`."""
        rotations = self._rotations(num_buckets, level, seed)
        return lsh_hash(x, move(rotations, x.device), num_buckets, padding_mask=mask)

    def _rotations(self, num_buckets: tuple[int, ...], level: int, seed: int | None) -> Tensor:
        if seed is None:
            seed = self.hash_seed if level == 0 else derive(self.hash_seed, level)
        else:
            seed = derive(seed, 2, level)
        width = 0 if num_buckets == (1,) else sum(num_buckets) // 2
        size = (self.num_heads, self.head_size, self.num_hashes, width)
        rotations = torch.randn(size, generator=generator(seed))
        return orthonormal(rotations) if self.window == "bucket" and width else rotations

    @property
    def last_level(self) -> int:
        """The level that goes on for ever: 0 where one hash serves all positions."""
        return 0 if self.num_buckets is not None else self.max_num_buckets.bit_length() - 1

    def level_of(self, position: int) -> int:
        """The level whose hash serves a causal query at a position, with window "bucket"."""
        return min((position // self.chunk_length).bit_length(), self.last_level)

    def factors_of(self, level: int) -> tuple[int, ...]:
        """Factors of the number of buckets of a level, with window "bucket"."""
        given = self.num_buckets
        if given is None:
            return factors(1 << level, self.head_size)
        return (given,) if isinstance(given, int) else tuple(given)

    def rotations_of(self, level: int) -> Tensor:
        """Rotations `[H, D, R, sum(factors) / 2]` of a level in evaluation."""
        return self._rotations(self.factors_of(level), level, None)


def orthonormal(rotations: Tensor) -> Tensor:
    """Make the columns of `[H, D, R, n]` orthonormal, D at a time.

    Buckets then fill evenly: of independent columns, the longest attract more than their share of keys,
    and a bucket that is too full is not seen whole (measured by `python -m benchmarks.visibility`).
    """
    columns = rotations.double().transpose(1, 2)
    blocks = [torch.linalg.qr(block).Q for block in columns.split(columns.shape[2], dim=-1)]
    return torch.cat(blocks, dim=-1).transpose(1, 2).to(rotations.dtype)


def factors(num_buckets: int, head_size: int) -> tuple[int, ...]:
    """Factors of about `num_buckets`, a power of two: one up to 64, above that two or three.

    n buckets take n / 2 columns of a rotation, and no more than D columns are orthonormal. Factors that
    take many more are not independent and fill their buckets unevenly; a small third one saves columns.
    Buckets of C keys on average hide a repeat from too many queries: from 16 on, the factors multiply to
    an eighth or, where columns are short, a sixteenth more than was asked. Beyond 2 D^2, where few causal
    queries come, they multiply to a little less (measured by `python -m benchmarks.visibility`).
    """
    if num_buckets <= _LARGEST_FACTOR:
        return (num_buckets + num_buckets // 16 * 2,)
    first = 1 << (num_buckets.bit_length() // 2)
    second = num_buckets // first
    third = 2 * math.ceil(num_buckets / (2 * head_size**2))
    if first + second <= 2 * head_size or head_size % 2 or 4 * third > head_size:
        eighth = first // 8
        fits = first + eighth + second <= 2 * head_size
        return second, first + (eighth if fits else _even_share(first))
    if third == 2:
        second = num_buckets // (2 * head_size * third) * 2
        return third, second, head_size + _even_share(head_size)
    return third, head_size - _even_share(head_size), head_size - 2 * _even_share(head_size)


def _even_share(n: int) -> int:
    """A sixteenth of a number, rounded up to an even one."""
    return 2 * math.ceil(n / 32)
