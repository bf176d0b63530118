"""Linear layers whose results are known: a backward pass needs their place in a graph, not the product."""

from typing import Any

import torch
from torch import Tensor, nn


def linear(layer: nn.Module, x: Tensor, result: Tensor | None) -> Tensor:
    """`layer(x)`, which is not computed where it is known.

    Args:
        layer: what is called if it is anything but a plain `nn.Linear` without bias.
        x: `[rows, features]`, floating.
        result: `[rows, out_features]`, what `layer(x)` gave before; None to compute it.

    Returns:
        `[rows, out_features]`, with the gradients of `layer(x)`.
    """
    if result is None or type(layer) is not nn.Linear or layer.bias is not None:
        return layer(x)  # type: ignore[no-any-return]
    return _Known.apply(x.to(result.dtype), layer.weight.to(result.dtype), result)  # type: ignore[no-any-return]


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, result: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return result.view_as(result)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, _ = ctx.needs_input_grad
        return grad @ weight if of_x else None, grad.mT @ x if of_weight else None, None
