"""The reversible stack: exact reconstruction, and the gradients of ordinary autograd."""

import re

import pytest
import torch
from torch import Tensor

from reformer.layers.residuals import LIMIT, FixedPoint, FloatingPoint
from reformer.layers.reversible import ReversibleStack
from reformer.ops import position_wise
from tests.layers import child
from tests.layers.live_tensors import LiveTensors
from tests.layers.stacks import (
    ALL_KINDS,
    HIDDEN_SIZE,
    RecordingFixedPoint,
    RecordingFloatingPoint,
    build_stack,
)


def _input(length: int, *, batch: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, HIDDEN_SIZE, generator=generator, dtype=torch.float64).to(dtype)


def _weights_of_outputs(y: Tensor) -> Tensor:
    return torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)


def _gradients(
    stack: ReversibleStack, x: Tensor, seed: int | None, mask: Tensor | None = None, autocast: bool = False
) -> dict[str, Tensor | None]:
    """The output of a stack, and the gradients of its input and parameters."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, _ = stack.run(x, seed, mask)
    (y * _weights_of_outputs(y)).sum().backward()
    return {"output": y.detach(), "input": x.grad} | {n: p.grad for n, p in stack.named_parameters()}


def _assert_identical(a: dict[str, Tensor | None], b: dict[str, Tensor | None]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        other = b[name]
        if value is None or other is None:
            assert value is other, name
        else:
            assert torch.equal(value, other), name


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("seed", [3, None], ids=["train", "eval"])
def test_gradients_are_those_of_stored_activations_bit_for_bit(seed: int | None, autocast: bool) -> None:
    x = _input(1000)
    mask = torch.arange(1000) < torch.tensor([[1000], [700]])
    results = []
    for reversible in (True, False):
        stack = build_stack(24, reversible=reversible, attention_chunk_length=64)  # 7 chunks of 300 rows
        stack.layers[5].requires_grad_(False)
        results.append(_gradients(stack, x, seed, mask, autocast))
    _assert_identical(*results)
    frozen = [name for name, value in results[0].items() if value is None]
    assert frozen
    assert all(name.startswith("layers.5.") for name in frozen)
    assert all(value is None or value.any() for value in results[0].values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("causal", [True, False])
def test_gradients_are_identical_in_every_dtype(dtype: torch.dtype, causal: bool) -> None:
    x = _input(150, dtype=dtype)
    reversible, stored = (
        _gradients(build_stack(6, reversible=reversible, causal=causal).to(dtype), x, 3)
        for reversible in (True, False)
    )
    _assert_identical(reversible, stored)


def test_gradients_drift_with_floating_point_streams() -> None:
    """What the tests above would see if reconstruction were not exact."""
    x = _input(100)
    reversible, stored = (
        _gradients(build_stack(12, reversible=reversible, residual="float32"), x, 3)
        for reversible in (True, False)
    )
    assert torch.equal(reversible["output"], stored["output"])
    assert not torch.equal(reversible["input"], stored["input"])
    torch.testing.assert_close(reversible["input"], stored["input"], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("reversible", [True, False])
def test_gradients_are_those_of_plain_autograd(reversible: bool) -> None:
    """A loop over the branches in float64, with none of the stack's own autograd functions."""
    stack = build_stack(4, residual="float32", reversible=reversible, dropout=0.0, chunk_length=1000).double()
    x = _input(100, dtype=torch.float64)
    ours = _gradients(stack, x, None)

    stack.zero_grad()
    x = x.requires_grad_()
    y1 = y2 = x
    for layer in stack.layers:
        y1 = y1 + layer.attention(y2, None)
        y2 = y2 + layer.feed_forward(y1, None)
    y = torch.cat([y1, y2], dim=-1)
    (y * _weights_of_outputs(y)).sum().backward()
    plain = {"output": y.detach(), "input": x.grad} | {n: p.grad for n, p in stack.named_parameters()}
    for name, value in plain.items():
        torch.testing.assert_close(
            ours[name], value, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
        )


def _inputs_of_branches(stack: ReversibleStack) -> list[Tensor]:
    """The list to which every call of a branch, forwards and backwards, will append its input."""
    seen: list[Tensor] = []
    for layer in stack.layers:
        for branch in (layer.attention, layer.feed_forward):
            branch.layer_norm.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].detach().clone())
            )
    return seen


def _seeds_of_branches(stack: ReversibleStack) -> list[int | None]:
    """The list to which every call of a branch, forwards and backwards, will append its seed."""
    seeds: list[int | None] = []
    for layer in stack.layers:
        attend = layer.attention.attend
        layer.attention.attend = lambda *args, attend=attend: (seeds.append(args[1]), attend(*args))[1]
        project_out = layer.attention.project_out
        layer.attention.project_out = lambda *args, f=project_out: (seeds.append(args[1]), f(*args))[1]
        layer.feed_forward.register_forward_pre_hook(lambda _, inputs: seeds.append(inputs[1]))
    return seeds


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_inputs_are_rebuilt_bit_for_bit_at_64_layers(dtype: torch.dtype) -> None:
    stack = build_stack(64, chunk_length=1000, attention_chunk_length=32).to(dtype)
    stack.residual = recording = RecordingFixedPoint()
    inputs = _inputs_of_branches(stack)
    x = _input(100, dtype=dtype).requires_grad_()
    y, _ = stack.run(x, 3)
    begun = FixedPoint().encode(x)
    assert all(not torch.equal(stream, begun) for stream in recording.streams)
    y.sum().backward()
    assert len(recording.streams) == 2
    assert all(torch.equal(stream, begun) for stream in recording.streams)

    # The backward pass projects the input of an attention twice: to attend again, and to differentiate.
    assert len(inputs) == (2 + 3) * 64
    forwards, backwards = inputs[:128], inputs[128:]
    for layer in range(64):
        attention, feed_forward = forwards[2 * layer : 2 * layer + 2]
        rebuilt_feed_forward, *rebuilt_attention = backwards[3 * (63 - layer) :][:3]
        assert torch.equal(feed_forward, rebuilt_feed_forward), layer
        assert all(torch.equal(attention, rebuilt) for rebuilt in rebuilt_attention), layer


def test_every_call_of_a_branch_has_a_seed_of_its_own_and_keeps_it_in_the_backward() -> None:
    stack = build_stack(6)
    seeds = _seeds_of_branches(stack)
    y, _ = stack.run(_input(400).requires_grad_(), 3)  # 800 rows: 3 chunks
    forwards = list(seeds)
    assert len(set(forwards)) == len(forwards) == 6 * (1 + 3 + 3)
    seeds.clear()
    y.sum().backward()
    assert set(seeds) == set(forwards)
    seeds.clear()
    stack.run(_input(400), None)
    assert seeds == [None] * 42


def test_floating_point_streams_are_not_rebuilt_exactly_at_64_layers() -> None:
    stack = build_stack(64, residual="float32", attention_chunk_length=32)
    stack.residual = recording = RecordingFloatingPoint()
    x = _input(100)
    y, _ = stack.run(x.clone().requires_grad_(), 3)
    y.sum().backward()
    drift = max(float((stream - x).abs().max()) for stream in recording.streams)
    assert 0 < drift < 1e-2


def test_any_chunk_length_gives_the_same_function() -> None:
    x = _input(100, dtype=torch.float64)
    whole, chunks = (
        _gradients(build_stack(3, dropout=0.0, residual="float32", chunk_length=n).double(), x, None)
        for n in (1000, 7)
    )
    for name, value in whole.items():
        torch.testing.assert_close(
            chunks[name], value, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("seed", [3, None], ids=["train", "eval"])
def test_compiled_branches_give_the_same_gradients(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    x = _input(400)  # 800 rows: 3 chunks, one of another size
    by_kernels = _gradients(build_stack(3, dropout=0.0), x, seed)
    # Compiled code has torch's operators, so that only those round as it does.
    monkeypatch.setattr(position_wise, "_kernels_take", lambda *_: False)
    plain = _gradients(build_stack(3, dropout=0.0), x, seed)
    stack = build_stack(3, dropout=0.0)
    stack.compile_branches(backend="aot_eager")
    compiled = _gradients(stack, x, seed)
    for name, value in plain.items():
        torch.testing.assert_close(compiled[name], value, rtol=1e-4, atol=1e-5)
        assert (by_kernels[name] - value).norm() < 1e-4 * value.norm(), name


def test_branches_with_dropout_cannot_be_compiled() -> None:
    with pytest.raises(ValueError, match=r"hidden_dropout_prob must be 0, got 0\.5"):
        build_stack(1, dropout=0.5).compile_branches()


def test_second_backward_gives_the_same_gradients() -> None:
    stack = build_stack(4)
    x = _input(60).requires_grad_()
    y, _ = stack.run(x, 3)
    loss = (y * _weights_of_outputs(y)).sum()
    wanted = [x, *stack.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    for _ in range(2):
        again = torch.autograd.grad(loss, wanted, retain_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_gradient_of_an_output_used_twice_or_in_part() -> None:
    x = _input(50)
    gradients = []
    for reversible in (True, False):
        stack = build_stack(3, reversible=reversible)
        leaf = x.clone().requires_grad_()
        y, _ = stack.run(leaf, 3)
        (y[..., :5].square().sum() + y[:, 7].sum()).backward()
        gradients.append({"input": leaf.grad} | {n: p.grad for n, p in stack.named_parameters()})
    _assert_identical(*gradients)


def test_input_without_gradient() -> None:
    stack = build_stack(2)
    y, _ = stack.run(_input(40), 3)
    y.sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


def test_everything_frozen_but_the_input() -> None:
    stack = build_stack(2).requires_grad_(False)
    x = _input(40).requires_grad_()
    stack.run(x, 3)[0].sum().backward()
    assert x.grad is not None
    assert all(p.grad is None for p in stack.parameters())


def test_no_graph_without_gradients() -> None:
    stack = build_stack(2)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            y, _ = stack.run(_input(40), None)
        assert y.grad_fn is None


def test_parameters_changed_between_forward_and_backward_are_an_error() -> None:
    stack = build_stack(2)
    y, _ = stack.run(_input(40), 3)
    with torch.no_grad():
        next(stack.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_a_branch_that_gives_another_result_when_called_again_is_an_error() -> None:
    stack = build_stack(3)
    y, _ = stack.run(_input(40).requires_grad_(), 3)
    stack.layers[1].feed_forward.register_forward_hook(lambda _, inputs, output: output + 2.0**-15)
    with pytest.raises(RuntimeError, match="a branch gave another result when it was called again"):
        y.sum().backward()


def test_a_branch_that_draws_from_the_global_generator_is_an_error() -> None:
    stack = build_stack(3)
    stack.layers[1].attention.output.dense = torch.nn.Sequential(
        stack.layers[1].attention.output.dense, torch.nn.Dropout(0.3)
    )
    with pytest.raises(RuntimeError, match="draws from torch's global generator"):
        stack.run(_input(40), 3)


def test_backward_after_one_that_was_interrupted_is_an_error() -> None:
    stack = build_stack(3)
    y, _ = stack.run(_input(40).requires_grad_(), 3)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = stack.layers[1].attention.output.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        y.sum().backward(retain_graph=True)
    handle.remove()
    with pytest.raises(RuntimeError, match="an earlier backward pass through the same graph was interrupted"):
        y.sum().backward()


def test_hidden_states_are_the_second_stream_before_each_layer_and_at_the_end() -> None:
    stack = build_stack(3)
    x = _input(40)
    y, none = stack.run(x, 3)
    with_states, states = stack.run(x, 3, output_hidden_states=True)
    assert none == []
    assert torch.equal(y, with_states)
    assert len(states) == 4
    torch.testing.assert_close(states[0], x, rtol=0, atol=2.0**-21)
    assert torch.equal(states[-1], y[..., HIDDEN_SIZE:])


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_overflow_names_layer_and_branch(kind: str, reversible: bool) -> None:
    stack = build_stack(3, kinds=[kind], reversible=reversible)
    with torch.no_grad():
        stack.layers[1].attention.output.dense.weight.mul_(1e5)
    with pytest.raises(FloatingPointError, match=re.escape("layer 1: adding the attention branch")):
        stack.run(_input(40), None)
    stack = build_stack(3, kinds=[kind], reversible=reversible)
    with torch.no_grad():
        stack.layers[2].feed_forward.output.dense.bias[3] = -LIMIT - 5
    with pytest.raises(FloatingPointError, match=re.escape("layer 2: adding the feed-forward branch")):
        stack.run(_input(40), None)


@pytest.mark.parametrize("residual", ["int32", "float32"])
def test_nan_names_layer_and_branch(residual: str) -> None:
    stack = build_stack(3, residual=residual)
    with torch.no_grad():
        stack.layers[1].feed_forward.dense.dense.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=re.escape("layer 1: adding the feed-forward branch")):
        stack.run(_input(40), None)


@pytest.mark.parametrize("value", [5000.0, -5000.0, torch.nan, torch.inf])
@pytest.mark.parametrize("reversible", [True, False])
def test_input_out_of_range_is_an_error(value: float, reversible: bool) -> None:
    stack = build_stack(1, kinds=["full"], reversible=reversible)
    with torch.no_grad():
        stack.layers[0].attention.output.dense.weight.zero_()
        stack.layers[0].feed_forward.output.dense.weight.zero_()
        stack.layers[0].feed_forward.output.dense.bias.zero_()
    x = _input(40)
    x[1, 3, 2] = value
    with pytest.raises(FloatingPointError):
        stack.run(x, None)


class TestFixedPoint:
    def test_adding_is_undone_exactly(self) -> None:
        generator = torch.Generator().manual_seed(0)
        residual = FixedPoint()
        begun = residual.encode(torch.randn(10000, 4, generator=generator) * 100)
        stream = begun.clone()
        updates = [
            torch.randn(10000, 4, generator=generator).mul(3).to(dtype)
            for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        ]
        for update in updates:
            assert not residual.add_(stream, update)
        assert not torch.equal(stream, begun)
        for update in reversed(updates):
            residual.subtract_(stream, update)
        assert torch.equal(stream, begun)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_rounds_to_the_nearest_unit(self, dtype: torch.dtype) -> None:
        x = torch.randn(1000, dtype=dtype)
        decoded = FixedPoint().decode(FixedPoint().encode(x), dtype)
        assert float((decoded - x).abs().max()) <= 2.0**-21

    @pytest.mark.parametrize(
        ("begun", "update", "overflows"),
        [
            (2047.0, 0.5, False),
            (2047.0, 1.0, True),
            (2047.0, 4000.0, True),
            (-2047.0, -1.0, False),
            (-2047.0, -1.001, True),
            (-2047.0, 2047.9, False),
            (0.0, 2048.0, True),
            (0.0, 1e30, True),
            (0.0, torch.nan, True),
            (0.0, -torch.inf, True),
        ],
    )
    def test_leaving_the_range_is_told(self, begun: float, update: float, overflows: bool) -> None:
        residual = FixedPoint()
        stream = residual.encode(torch.zeros(9000, 2))
        stream[8999, 1] = int(begun * 2**20)
        change = torch.zeros(9000, 2)
        change[8999, 1] = update
        assert bool(residual.add_(stream, change)) == overflows


def test_floating_point_tells_of_what_is_not_finite() -> None:
    residual = FloatingPoint()
    stream = residual.encode(torch.zeros(10, 2))
    assert not residual.add_(stream, torch.ones(10, 2))
    assert residual.add_(stream, torch.full((10, 2), torch.inf))


def _memory_stack(num_layers: int, reversible: bool) -> ReversibleStack:
    return build_stack(
        num_layers,
        kinds=["local", "lsh"],
        hidden_size=64,
        reversible=reversible,
        chunk_length=256,
        attention_chunk_length=64,
    )


def _step(stack: ReversibleStack, length: int) -> None:
    stack.run(torch.randn(1, length, 64), 3)[0].sum().backward()


def _gradient_bytes(stack: ReversibleStack) -> int:
    return sum(p.grad.numel() * p.grad.element_size() for p in stack.parameters() if p.grad is not None)


def test_no_tensor_is_kept_for_each_layer() -> None:
    def peak(num_layers: int, reversible: bool) -> int:
        stack = _memory_stack(num_layers, reversible)
        with LiveTensors() as live:
            _step(stack, 300)
        return live.peak - _gradient_bytes(stack)

    peak(2, True)  # makes what steps share: tables of rotary positions
    assert peak(2, True) == peak(3, True) == peak(8, True)
    assert peak(4, False) - peak(2, False) > 2 * 2 * 300 * 64 * 4


def resident_memory_by_depth() -> dict[str, int]:
    """Peaks of a training step less its gradients, in bytes, in a process of its own; T = 8192, d = 64."""

    def peak(num_layers: int, reversible: bool) -> int:
        stack = _memory_stack(num_layers, reversible)
        return child.growth_at_peak(lambda: _step(stack, 8192)) - _gradient_bytes(stack)

    peak(2, True)  # what libraries keep for themselves is then there
    return {
        f"{num_layers} {'reversible' if reversible else 'stored'}": peak(num_layers, reversible)
        for num_layers, reversible in ((2, True), (16, True), (2, False), (6, False))
    }


@pytest.mark.slow
@child.needs_proc
def test_resident_memory_does_not_grow_with_depth() -> None:
    peak = child.call("tests.layers.test_reversible:resident_memory_by_depth")
    # The allocator needs a few MB of its own for more and more small blocks.
    assert abs(peak["16 reversible"] - peak["2 reversible"]) < 0.1 * peak["2 reversible"], peak
    assert peak["6 stored"] > 2 * peak["2 stored"], peak
