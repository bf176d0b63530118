"""Attention of one sequence over another, such as a decoder's over its encoder's output."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reformer.layers.known_results import linear
from reformer.layers.layer_norm import LayerNorm
from reformer.layers.randomness import dropout


class CrossAttention(nn.Module):
    """`dense(attention(layer_norm(x), memory))`, dense over the memory, a branch of a reversible layer.

    In parts like `Attention`: all but `attend` is position-wise. The cost is linear in the length of the
    memory; no `[T, S]` weights are made, forwards or backwards, so none can be dropped.

    Args:
        hidden_size: features d of the stream.
        memory_size: features m of the memory, which comes normalised.
        num_heads: heads H.
        head_size: features D of a head.
        dropout: probability of dropping a feature of the result.
        layer_norm_eps: added to the variance.
    """

    def __init__(
        self,
        hidden_size: int,
        memory_size: int,
        num_heads: int,
        head_size: int,
        *,
        dropout: float,
        layer_norm_eps: float,
    ):
        super().__init__()
        self.layer_norm = LayerNorm(hidden_size, eps=layer_norm_eps)
        self.query = nn.Linear(hidden_size, num_heads * head_size, bias=False)
        self.key = nn.Linear(memory_size, num_heads * head_size, bias=False)
        self.value = nn.Linear(memory_size, num_heads * head_size, bias=False)
        self.output = nn.Linear(num_heads * head_size, hidden_size, bias=False)
        self.num_heads, self.head_size = num_heads, head_size
        self.dropout = dropout

    def forward(
        self, x: Tensor, memory: Tensor, seed: int | None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """`[B, T, d]` to `[B, T, d]`.

        Args:
            x: floating; its rows may be several times as many, those of one memory side by side.
            memory: `[B, S, m]`, floating.
            seed: of the dropout, or None for none.
            memory_mask: bool `[B, S]`, True where a real token is.
        """
        projections = *self.project_in(x, None), *self.project_memory(memory, None)
        mixed = self.attend(projections, seed, memory_mask)
        return self.project_out(mixed, seed)

    def project_in(self, x: Tensor, seed: int | None, q: Tensor | None = None) -> tuple[Tensor]:
        """Queries `[..., H * D]` of `[..., d]`, given if known; draws nothing."""
        return (linear(self.query, self.layer_norm(x), q),)

    def project_memory(
        self, memory: Tensor, seed: int | None, k: Tensor | None = None, v: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values `[..., H * D]` of `[..., m]`, given if known; draws nothing."""
        memory = memory.view_as(memory)  # no leaf, which autocast would take for a parameter
        return linear(self.key, memory, k), linear(self.value, memory, v)

    def attend(self, projections: Sequence[Tensor], seed: int | None, memory_mask: Tensor | None) -> Tensor:
        """Mix the values of the memory: queries `[B, T, H * D]` to the same; draws nothing."""
        q, k, v = projections
        # Rows that read the same memory are so many more queries of it.
        together = q.reshape(len(k), -1, q.shape[-1])
        mask = None if memory_mask is None else memory_mask[:, None, None, :]
        q_heads, k_heads, v_heads = (self._heads(x) for x in (together, k, v))
        mixed = F.scaled_dot_product_attention(q_heads, k_heads, v_heads, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(q.shape)

    def project_out(self, mixed: Tensor, seed: int | None) -> Tensor:
        """`[..., H * D]` to `[..., d]`, with dropout."""
        return dropout(self.output(mixed), self.dropout, seed)

    def weights(
        self, x: Tensor, memory: Tensor, seed: int | None, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Attention weights `[B, H, T, S]`, in float32 at least: for looking at short inputs."""
        (q,), (k, _) = self.project_in(x, None), self.project_memory(memory, None)
        scores = self._heads(q) @ self._heads(k).mT / math.sqrt(self.head_size)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if memory_mask is not None:
            scores = scores.masked_fill(~memory_mask[:, None, None, :], -math.inf)
        return scores.softmax(-1)

    def _heads(self, x: Tensor) -> Tensor:
        """`[B, T, H * D]` as a view `[B, H, T, D]`."""
        return x.unflatten(-1, (self.num_heads, self.head_size)).transpose(1, 2)
