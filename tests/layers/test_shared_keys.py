"""Keys made of queries, and their gradients by formula."""

import math

import torch
from torch import Tensor

from reformer.layers.shared_keys import shared_keys


def _by_autograd(q: Tensor) -> Tensor:
    return q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(q.shape[-1])


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_keys_and_gradients() -> None:
    q = _normal(3, 5, 2, 8, seed=1)
    q[0, 0] = 0
    q[0, 1] *= 1e-4  # of the size of the epsilon
    q.requires_grad_()
    grad = _normal(3, 5, 2, 8, seed=2)
    torch.testing.assert_close(shared_keys(q), _by_autograd(q), rtol=1e-14, atol=1e-15)
    (found,), (wanted,) = (torch.autograd.grad(f(q), q, grad) for f in (shared_keys, _by_autograd))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-10)


def test_second_derivatives() -> None:
    assert torch.autograd.gradgradcheck(shared_keys, _normal(2, 8, seed=1).requires_grad_())


def test_sixteen_bits_are_computed_with_in_float32() -> None:
    q = _normal(7, 64, seed=1).bfloat16().requires_grad_()
    k = shared_keys(q)
    assert k.dtype == torch.bfloat16
    assert torch.equal(k, _by_autograd(q.float()).bfloat16())


def test_transforms() -> None:
    q = _normal(3, 8, seed=1)
    per_row = torch.func.vmap(torch.func.grad(lambda row: shared_keys(row).sin().sum()))(q)
    q.requires_grad_()
    (wanted,) = torch.autograd.grad(_by_autograd(q).sin().sum(), q)
    torch.testing.assert_close(per_row, wanted)
