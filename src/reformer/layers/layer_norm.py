"""The normalisation that a branch begins with."""

from torch import Tensor, nn

from reformer.layers.chunking import product_dtype
from reformer.ops.position_wise import layer_norm


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm`, whose result has the dtype that matrix products with it are computed in."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., d]` to `[..., d]`."""
        return layer_norm(x, self.weight, self.bias, self.eps, product_dtype(x))
