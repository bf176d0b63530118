"""The normalisation that a branch begins with."""

from torch import Tensor, nn

from reformer.layers.chunking import product_dtype
from reformer.ops.position_wise import layer_norm


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm`, whose result has the dtype that matrix products with it are computed in."""

    def forward(self, x: Tensor) -> Tensor:
        """`[..., d]` to `[..., d]`."""
        return normalise_for_products(self, x)


def normalise_for_products(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """What `LayerNorm` makes of `[..., d]`, with the parameters of any layer normalisation."""
    return layer_norm(x, norm.weight, norm.bias, norm.eps, product_dtype(x))
