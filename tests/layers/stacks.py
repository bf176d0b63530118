"""Small reversible stacks, and ways to look into them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reformer.layers.attention import (
    Attention,
    AttentionShape,
    FullSelfAttention,
    LocalSelfAttention,
    LSHSelfAttention,
    SelfAttention,
)
from reformer.layers.cross_attention import CrossAttention
from reformer.layers.feed_forward import FeedForward
from reformer.layers.residuals import FixedPoint, FloatingPoint
from reformer.layers.reversible import ReversibleLayer, ReversibleStack

HIDDEN_SIZE = 16
MEMORY_SIZE = 24
ALL_KINDS = ("local", "lsh", "full")


def lsh_attention_layer(shape: AttentionShape, **changes: object) -> LSHSelfAttention:
    options: dict[str, object] = {
        "window": "bucket",
        "chunk_length": 16,
        "num_chunks_before": 1,
        "num_chunks_after": 0 if shape.causal else 1,
        "num_hashes": 2,
        "num_buckets": None,
        "max_num_buckets": 64,
        "hash_seed": 0,
    }
    return LSHSelfAttention(shape, **(options | changes))  # type: ignore[arg-type]


def attention_kind(kind: str, shape: AttentionShape, attention_chunk_length: int = 16) -> SelfAttention:
    if kind == "full":
        return FullSelfAttention(shape)
    if kind == "local":
        after = 0 if shape.causal else 1
        return LocalSelfAttention(
            shape, chunk_length=attention_chunk_length, num_chunks_before=1, num_chunks_after=after
        )
    return lsh_attention_layer(shape, chunk_length=attention_chunk_length)


def build_stack(
    num_layers: int,
    *,
    kinds: Sequence[str] = ALL_KINDS,
    residual: str = "int32",
    reversible: bool = True,
    hidden_size: int = HIDDEN_SIZE,
    causal: bool = True,
    dropout: float = 0.1,
    chunk_length: int = 300,
    attention_chunk_length: int = 16,
    cross_attention: bool = False,
) -> ReversibleStack:
    """A stack with the same random weights at each call."""
    torch.manual_seed(0)
    shape = AttentionShape(hidden_size, 2, hidden_size // 2, causal, dropout, 10000.0)
    layers = [
        ReversibleLayer(
            Attention(
                attention_kind(kinds[i % len(kinds)], shape, attention_chunk_length),
                dropout=dropout,
                layer_norm_eps=1e-12,
            ),
            FeedForward(
                hidden_size,
                2 * hidden_size,
                activation=nn.GELU(),
                dropout=dropout,
                layer_norm_eps=1e-12,
            ),
            CrossAttention(
                hidden_size, MEMORY_SIZE, 2, hidden_size // 2, dropout=dropout, layer_norm_eps=1e-12
            )
            if cross_attention
            else None,
        )
        for i in range(num_layers)
    ]
    return ReversibleStack(layers, residual=residual, reversible=reversible, chunk_length=chunk_length)


class _Recording:
    """Keeps the streams that were begun: they change in place, and the backward takes them back."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Tensor] = []

    def encode(self, x: Tensor) -> Tensor:
        stream = super().encode(x)  # type: ignore[misc]
        self.streams.append(stream)
        return stream


class RecordingFixedPoint(_Recording, FixedPoint):
    pass


class RecordingFloatingPoint(_Recording, FloatingPoint):
    pass
