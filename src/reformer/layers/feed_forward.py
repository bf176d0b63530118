"""The position-wise half of a layer."""

from collections.abc import Callable

from torch import Tensor, nn

from reformer.layers.layer_norm import LayerNorm
from reformer.layers.randomness import derive, dropout


class FeedForward(nn.Module):
    """`dense(activation(dense(layer_norm(x))))`, the second branch of a reversible layer.

    Position-wise: the reversible stack calls it chunk by chunk, forwards and backwards.

    Args:
        hidden_size: features d of the stream.
        feed_forward_size: features between the two dense layers.
        activation: applied between them; may change what it gets.
        dropout: probability of dropping a feature, before the activation and at the end.
        layer_norm_eps: added to the variance.
    """

    def __init__(
        self,
        hidden_size: int,
        feed_forward_size: int,
        *,
        activation: Callable[[Tensor], Tensor],
        dropout: float,
        layer_norm_eps: float,
    ):
        super().__init__()
        self.layer_norm = LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dense = _Dense(hidden_size, feed_forward_size)
        self.output = _Dense(feed_forward_size, hidden_size)
        self.activation = activation
        self.dropout = dropout

    def forward(self, x: Tensor, seed: int | None) -> Tensor:
        """`[..., d]` to `[..., d]`.

        Args:
            x: floating.
            seed: of the dropout, or None for none.
        """
        inner = self.dense(self.layer_norm(x))
        inner = dropout(inner, self.dropout, None if seed is None else derive(seed, 1))
        outer = self.output(self.activation(inner))
        return dropout(outer, self.dropout, None if seed is None else derive(seed, 2))


class _Dense(nn.Module):
    """A linear layer under the name that checkpoints have for it."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__()
        self.dense = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(x)
