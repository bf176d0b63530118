"""The place of a known result in a graph gives the gradients that computing it gives."""

import pytest
import torch
from torch import Tensor, nn

from reformer.layers.known_results import linear


def _gradients(layer: nn.Module, x: Tensor, result: Tensor | None, grad: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    out = linear(layer, leaf, result)
    return [out.detach(), *torch.autograd.grad(out, [leaf, *layer.parameters()], grad)]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_gradients_are_those_of_the_layer(bfloat16: bool) -> None:
    g = torch.Generator().manual_seed(0)
    layer = nn.Linear(6, 4, bias=False)
    x = torch.randn(10, 6, generator=g)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        result = layer(x).detach()
        grad = torch.randn(10, 4, generator=g).to(result.dtype)
        wanted = _gradients(layer, x, None, grad)
        found = _gradients(layer, x, result, grad)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other)


def test_the_known_result_is_taken() -> None:
    layer, result = nn.Linear(3, 2, bias=False), torch.full((5, 2), 7.0)
    assert torch.equal(linear(layer, torch.ones(5, 3), result), result)


def test_other_layers_are_called() -> None:
    """Such as one with an adapter, of which the result of its parts is not known."""
    layer = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    x, result = torch.ones(5, 3), torch.full((5, 2), 7.0)
    assert torch.equal(linear(layer, x, result), layer(x))


def test_a_frozen_weight_has_no_gradient() -> None:
    layer = nn.Linear(3, 2, bias=False).requires_grad_(False)
    x = torch.ones(5, 3, requires_grad=True)
    linear(layer, x, torch.zeros(5, 2)).sum().backward()
    assert layer.weight.grad is None
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(5, 3))  # type: ignore[arg-type]
