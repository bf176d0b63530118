"""Position-wise methods, chunk by chunk: the same function, less memory."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reformer.layers.chunking import chunked, row_chunks
from reformer.layers.randomness import derive, dropout
from tests.layers import child
from tests.layers.live_tensors import LiveTensors


class _Module(nn.Module):
    """A position-wise module with all that `chunked` allows for."""

    def __init__(self, features: int = 6, rate: float = 0.0, inner: int = 10) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(features)
        self.first = nn.Linear(features, inner)
        self.second = nn.Linear(inner, features)
        self.unused = nn.Linear(2, 2)
        self.rate = rate

    def one(self, rows: Tensor, seed: int | None) -> Tensor:
        return self.second(dropout(self.first(self.norm(rows)).relu(), self.rate, seed))

    def several(self, rows: Tensor, seed: int | None, scale: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        inner = self.first(self.norm(rows)) * scale[:, None]
        return self.second(inner), inner + label[:, None]


def _input(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _gradients(
    module: nn.Module, x: Tensor, function: Callable[[Tensor], tuple[Tensor, ...]]
) -> list[Tensor | None]:
    """Outputs, and gradients of the input and the parameters, of a nonlinear function of the outputs."""
    module.zero_grad()
    x = x.detach().clone().requires_grad_()
    outputs = function(x)
    sum((i + 1) * output.sin().sum() for i, output in enumerate(outputs)).backward()  # type: ignore[union-attr]
    return [output.detach() for output in outputs] + [x.grad] + [p.grad for p in module.parameters()]


def _assert_close(a: list[Tensor | None], b: list[Tensor | None]) -> None:
    for left, right in zip(a, b, strict=True):
        if left is None or right is None:
            assert left is right
        else:
            torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("chunk_length", [1, 4, 7, 20, 21, 22])
def test_equals_unchunked(chunk_length: int) -> None:
    module, x = _Module().double(), _input(3, 7, 6)
    whole = _gradients(module, x, lambda x: (module.one(x, None),))
    parts = _gradients(module, x, lambda x: chunked(module.one, x, chunk_length=chunk_length, seed=None))
    _assert_close(whole, parts)
    assert parts[-1] is None
    assert all(part is not None for part in parts[:-2])


def test_several_outputs_and_aligned_tensors() -> None:
    module, x = _Module().double(), _input(3, 7, 6)
    scale, label = _input(3, 7), torch.arange(21).view(3, 7)
    whole = _gradients(
        module,
        x,
        lambda x: tuple(
            out.view(3, 7, -1)
            for out in module.several(x.view(21, 6), None, scale.flatten(), label.flatten())
        ),
    )
    parts = _gradients(
        module, x, lambda x: chunked(module.several, x, scale, label, chunk_length=4, seed=None)
    )
    assert parts[0] is not None
    assert parts[0].shape == (3, 7, 6)
    assert parts[1] is not None
    assert parts[1].shape == (3, 7, 10)
    _assert_close(whole, parts)


def test_one_of_several_outputs_unused() -> None:
    module, x = _Module().double(), _input(21, 6)
    rest = torch.ones(21, dtype=torch.float64), torch.zeros(21)
    whole = _gradients(module, x, lambda x: module.several(x, None, *rest)[1:])
    parts = _gradients(module, x, lambda x: chunked(module.several, x, *rest, chunk_length=4, seed=None)[1:])
    assert whole[-3] is None  # the bias of the second layer
    assert parts[-3] is not None
    assert not parts[-3].any()
    del whole[-4:], parts[-4:]
    _assert_close(whole, parts)


def test_frozen_parameters() -> None:
    module, x = _Module().double(), _input(21, 6)
    module.first.requires_grad_(False)
    whole = _gradients(module, x, lambda x: (module.one(x, None),))
    parts = _gradients(module, x, lambda x: chunked(module.one, x, chunk_length=5, seed=None))
    assert [part is None for part in parts[-8:]] == [False, False, True, True, False, False, True, True]
    _assert_close(whole, parts)


def test_input_without_gradient() -> None:
    module, x = _Module().double(), _input(21, 6)
    (out,) = chunked(module.one, x, chunk_length=4, seed=None)
    out.sum().backward()
    assert module.first.weight.grad is not None


def test_everything_frozen_makes_no_graph() -> None:
    module = _Module().double().requires_grad_(False)
    (out,) = chunked(module.one, _input(21, 6), chunk_length=4, seed=None)
    assert not out.requires_grad


def test_input_that_is_not_contiguous() -> None:
    module, x = _Module().double(), _input(7, 6, 3).permute(2, 0, 1)
    whole = _gradients(module, x, lambda x: (module.one(x, None),))
    parts = _gradients(module, x, lambda x: chunked(module.one, x, chunk_length=4, seed=None))
    _assert_close(whole, parts)


def test_each_chunk_has_its_own_seed_and_keeps_it_in_the_backward() -> None:
    module, x = _Module(rate=0.4).double(), _input(21, 6)

    def by_hand(x: Tensor) -> tuple[Tensor]:
        chunks = [module.one(x[rows], derive(9, index)) for index, rows in row_chunks(21, 5)]
        return (torch.cat(chunks),)

    parts = _gradients(module, x, lambda x: chunked(module.one, x, chunk_length=5, seed=9))
    _assert_close(_gradients(module, x, by_hand), parts)
    (one_chunk,) = chunked(module.one, x, chunk_length=21, seed=9)
    assert torch.equal(one_chunk, module.one(x, derive(9, 0)))


def test_the_backward_runs_under_the_autocast_of_the_forward() -> None:
    """Bit for bit the gradients of two calls under autocast; in float32 they would differ."""
    module, x = _Module(), _input(21, 6).float()

    def whole(x: Tensor) -> tuple[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            return (torch.cat([module.one(x[:11], None), module.one(x[11:], None)]),)

    def parts(x: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16):
            return chunked(module.one, x, chunk_length=11, seed=None)

    wanted, found = _gradients(module, x, whole), _gradients(module, x, parts)
    assert found[0] is not None
    assert found[0].dtype == torch.bfloat16
    for left, right in zip(wanted[:-2], found[:-2], strict=True):
        assert left is not None
        assert right is not None
        assert left.dtype == right.dtype
        assert torch.equal(left, right)


def test_a_chunked_forward_leaves_no_cast_without_a_graph_behind() -> None:
    module = _Module()
    with torch.autocast("cpu", torch.bfloat16):
        chunked(module.one, _input(21, 6).float(), chunk_length=5, seed=None)
        out = module.one(_input(3, 6).float(), None)
    out.float().sum().backward()
    assert module.first.weight.grad is not None


def test_twice_backward_is_the_same() -> None:
    module, x = _Module(rate=0.3).double(), _input(21, 6).requires_grad_()
    loss = chunked(module.one, x, chunk_length=5, seed=2)[0].square().sum()
    first, second = (torch.autograd.grad(loss, [x, module.first.weight], retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_functional_call_gives_gradients_of_the_tensors_that_it_puts_in() -> None:
    module, x = _Module().double(), _input(21, 6)
    replaced = {name: (p.detach() * 1.5).requires_grad_() for name, p in module.named_parameters()}

    class Chunks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return chunked(self.inner.one, x, chunk_length=5, seed=None)[0]

    out = torch.func.functional_call(Chunks(), {f"inner.{name}": t for name, t in replaced.items()}, (x,))
    out.sin().sum().backward()
    assert all(p.grad is None for p in module.parameters())
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(replaced[name])
    wanted = _gradients(module, x, lambda x: (module.one(x, None),))[2:]
    _assert_close([t.grad for t in replaced.values()], wanted)


def test_row_chunks_cover_all_rows_once() -> None:
    chunks = list(row_chunks(10, 4))
    assert chunks == [(0, slice(0, 4)), (1, slice(4, 8)), (2, slice(8, 10))]


def _run(chunk_length: int) -> None:
    module = _Module(16, inner=512, rate=0.1)
    (out,) = chunked(module.one, torch.randn(1 << 14, 16), chunk_length=chunk_length, seed=1)
    out.sum().backward()


def test_neither_forward_nor_backward_holds_what_all_positions_need() -> None:
    def peak(chunk_length: int) -> int:
        with LiveTensors() as live:
            _run(chunk_length)
        return live.peak

    inner = 4 * 512 * (1 << 14)
    assert peak(1 << 14) > 3 * inner
    assert peak(1 << 9) < inner / 4


def resident_memory(*chunk_lengths: int) -> list[int]:
    """In a process of its own."""
    _run(64)
    return [child.growth_at_peak(lambda n=n: _run(n)) for n in chunk_lengths]  # type: ignore[misc]


@pytest.mark.slow
@child.needs_proc
def test_resident_memory() -> None:
    whole, chunks = child.call("tests.layers.test_chunking:resident_memory", 1 << 14, 1 << 9)
    inner = 4 * 512 * (1 << 14)
    assert whole > 3 * inner
    assert chunks < inner / 4


class _Casts(TorchDispatchMode):
    """Counts tensors of a shape that become bfloat16."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.number = shape, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and out.dtype == torch.bfloat16:
            self.number += tuple(out.shape) == self.shape
        return out


def test_autocast_casts_a_weight_once_and_not_for_others() -> None:
    module, x = _Module(), _input(21, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        with _Casts((10, 6)) as forward:
            (y,) = chunked(module.one, x, chunk_length=4, seed=None)
        inner = module.first(x)  # with a cast of its own, which has a graph
    with _Casts((10, 6)) as backward:
        y.float().sum().backward()
    assert (forward.number, backward.number) == (1, 1)
    found = module.first.weight.grad
    assert found is not None
    before = found.clone()
    inner.float().sum().backward()
    assert not torch.equal(module.first.weight.grad, before)
