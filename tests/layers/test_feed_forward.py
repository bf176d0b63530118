"""The position-wise branch."""

import torch
from torch import nn
from torch.nn import functional as F

from reformer.layers.feed_forward import FeedForward


def _feed_forward(dropout: float = 0.0) -> FeedForward:
    torch.manual_seed(0)
    return FeedForward(6, 10, activation=nn.ReLU(), dropout=dropout, layer_norm_eps=1e-12).double()


def test_is_two_dense_layers_after_a_norm() -> None:
    module = _feed_forward()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    weights = dict(module.named_parameters())
    inner = F.layer_norm(x, (6,), weights["layer_norm.weight"], weights["layer_norm.bias"], 1e-12)
    inner = (inner @ weights["dense.dense.weight"].T + weights["dense.dense.bias"]).relu()
    outer = inner @ weights["output.dense.weight"].T + weights["output.dense.bias"]
    torch.testing.assert_close(module(x, None), outer)
    assert len(weights) == 6


def test_is_position_wise() -> None:
    module = _feed_forward()
    x = torch.randn(20, 6, dtype=torch.float64)
    torch.testing.assert_close(module(x, None)[3:5], module(x[3:5], None))


def test_dropout_belongs_to_the_seed() -> None:
    module = _feed_forward(dropout=0.5)
    x = torch.randn(20, 6, dtype=torch.float64)
    assert torch.equal(module(x, 1), module(x, 1))
    assert not torch.equal(module(x, 1), module(x, 2))
    assert 0.2 < float((module(x, 1) == 0).double().mean()) < 0.8
