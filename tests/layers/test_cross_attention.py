"""Cross-attention, and reversible stacks with three branches in a layer, which read a memory."""

import math

import pytest
import torch
from torch import Tensor

from reformer.layers.cross_attention import CrossAttention
from tests.layers.live_tensors import LiveTensors
from tests.layers.stacks import HIDDEN_SIZE, MEMORY_SIZE, RecordingFixedPoint, build_stack

Found = dict[str, Tensor | None]


def _normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _cross_attention() -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(HIDDEN_SIZE, MEMORY_SIZE, 2, 8, dropout=0.1, layer_norm_eps=1e-12)


def _first(length: int, *counts: int) -> Tensor:
    return torch.arange(length) < torch.tensor(counts)[:, None]


def test_is_softmax_over_the_real_tokens_of_the_memory() -> None:
    cross = _cross_attention().double()
    x, memory = _normal(2, 10, HIDDEN_SIZE, seed=1), _normal(2, 30, MEMORY_SIZE, seed=2)
    found = cross(x, memory, None, _first(30, 30, 17))
    for row, count in enumerate((30, 17)):
        normal = torch.nn.functional.layer_norm(x[row], (HIDDEN_SIZE,), eps=1e-12).split(1)
        for t, token in enumerate(normal):
            mixed = []
            for head in (slice(0, 8), slice(8, 16)):
                query = token @ cross.query.weight[head].T
                keys = memory[row, :count] @ cross.key.weight[head].T
                values = memory[row, :count] @ cross.value.weight[head].T
                mixed.append((query @ keys.T / math.sqrt(8)).softmax(-1) @ values)
            wanted = torch.cat(mixed, -1) @ cross.output.weight.T
            torch.testing.assert_close(found[row, t : t + 1], wanted, rtol=1e-9, atol=1e-11)


def test_weights_are_those_that_mix_the_values() -> None:
    cross = _cross_attention().double()
    x, memory, mask = (
        _normal(2, 10, HIDDEN_SIZE, seed=1),
        _normal(2, 30, MEMORY_SIZE, seed=2),
        _first(30, 30, 17),
    )
    weights = cross.weights(x, memory, None, mask)
    assert weights.shape == (2, 2, 10, 30)
    values = (memory @ cross.value.weight.T).unflatten(-1, (2, 8)).transpose(1, 2)
    wanted = cross(x, memory, None, mask)
    torch.testing.assert_close(
        (weights @ values).transpose(1, 2).flatten(2) @ cross.output.weight.T, wanted, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("masked", [False, True])
def test_makes_no_weights_forwards_or_backwards(masked: bool) -> None:
    """A `[T, S]` buffer would be 16 times as large as all the rest."""
    T = S = 2048
    cross = _cross_attention()
    x, memory = _normal(1, T, HIDDEN_SIZE, seed=1).float(), _normal(1, S, MEMORY_SIZE, seed=2).float()
    mask = _first(S, S - 5) if masked else None
    with LiveTensors() as live:
        cross(x, memory.requires_grad_(), 3, mask).sum().backward()
    assert live.peak < T * S * 4 / 4


def _gradients(
    *,
    reversible: bool,
    seed: int | None = 3,
    dtype: torch.dtype = torch.float32,
    autocast: bool = False,
    num_layers: int = 7,
) -> Found:
    """Output and gradients of a stack that reads a memory, with padding in both and a frozen layer."""
    stack = build_stack(num_layers, reversible=reversible, cross_attention=True, chunk_length=60).to(dtype)
    stack.layers[1].requires_grad_(False)
    x = _normal(2, 100, HIDDEN_SIZE, seed=1).to(dtype).requires_grad_()
    memory = _normal(2, 90, MEMORY_SIZE, seed=2).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y, _ = stack.run(x, seed, _first(100, 100, 70), memory=memory, memory_mask=_first(90, 90, 41))
    (y * torch.linspace(-1, 1, y.numel(), dtype=dtype).view_as(y)).sum().backward()
    found = {"output": y.detach(), "input": x.grad, "memory": memory.grad}
    return found | {name: p.grad for name, p in stack.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"seed": None},
        {"autocast": True},
        {"dtype": torch.bfloat16},
        {"dtype": torch.float64},
    ],
    ids=["train", "eval", "autocast", "bfloat16", "float64"],
)
def test_gradients_are_those_of_stored_activations_bit_for_bit(options: dict[str, object]) -> None:
    reversible, stored = (_gradients(reversible=kind, **options) for kind in (True, False))  # type: ignore[arg-type]
    for name, value in reversible.items():
        other = stored[name]
        if name.startswith("layers.1."):
            assert value is None
            assert other is None
        else:
            assert value is not None
            assert other is not None
            assert value.any()
            assert torch.equal(value, other), name


@pytest.mark.parametrize("reversible", [True, False])
def test_gradients_are_those_of_plain_autograd(reversible: bool) -> None:
    """Half-steps that alternate between two streams, written out for three layers."""
    stack = build_stack(
        3, residual="float32", reversible=reversible, dropout=0.0, chunk_length=60, cross_attention=True
    ).double()
    x = _normal(2, 100, HIDDEN_SIZE, seed=1).requires_grad_()
    memory = _normal(2, 90, MEMORY_SIZE, seed=2).requires_grad_()
    mask = _first(90, 90, 41)
    leaves = [x, memory, *stack.parameters()]

    y, _ = stack.run(x, None, memory=memory, memory_mask=mask)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    found = torch.autograd.grad((y * weights).sum(), leaves)

    first, second, third = stack.layers
    a = b = x
    a = a + first.attention(b, None)
    b = b + first.cross_attention(a, memory, None, mask)
    a = a + first.feed_forward(b, None)
    b = b + second.attention(a, None)
    a = a + second.cross_attention(b, memory, None, mask)
    b = b + second.feed_forward(a, None)
    a = a + third.attention(b, None)
    b = b + third.cross_attention(a, memory, None, mask)
    a = a + third.feed_forward(b, None)
    plain = torch.cat([a, b], dim=-1)
    torch.testing.assert_close(y, plain, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(found, torch.autograd.grad((plain * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_streams_are_rebuilt_and_a_second_backward_gives_the_same_gradients() -> None:
    stack = build_stack(5, cross_attention=True)
    stack.residual = recording = RecordingFixedPoint()
    x = _normal(2, 60, HIDDEN_SIZE, seed=1).float().requires_grad_()
    memory = _normal(2, 90, MEMORY_SIZE, seed=2).float().requires_grad_()
    y, _ = stack.run(x, 3, memory=memory)
    loss = y.square().sum()
    wanted = [x, memory, *stack.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    begun = RecordingFixedPoint().encode(x)
    assert all(torch.equal(stream, begun) for stream in recording.streams)
    again = torch.autograd.grad(loss, wanted)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_memory_without_gradient() -> None:
    stack = build_stack(2, cross_attention=True)
    y, _ = stack.run(_normal(1, 40, HIDDEN_SIZE, seed=1).float(), 3, memory=torch.ones(1, 5, MEMORY_SIZE))
    y.sum().backward()
    assert all(p.grad is not None for p in stack.parameters())


def test_hidden_states_and_weights_of_each_layer() -> None:
    stack = build_stack(3, cross_attention=True)
    x, memory = (
        _normal(1, 40, HIDDEN_SIZE, seed=1).float(),
        _normal(1, 20, MEMORY_SIZE, seed=2).float(),
    )
    plain, _ = stack.run(x, 3, memory=memory)
    weights: list[Tensor] = []
    y, states = stack.run(x, 3, memory=memory, output_hidden_states=True, attention_weights=weights)
    assert torch.equal(plain, y)
    assert [tuple(w.shape) for w in weights] == [(1, 2, 40, 40), (1, 2, 40, 20)] * 3
    assert len(states) == 4
    assert torch.equal(states[-1], y[..., :HIDDEN_SIZE])  # nine half-steps: the first stream changed last


def test_nan_names_the_branch() -> None:
    stack = build_stack(3, cross_attention=True)
    with torch.no_grad():
        stack.layers[1].cross_attention.value.weight[0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="layer 1: adding the cross-attention branch"):
        stack.run(torch.ones(1, 40, HIDDEN_SIZE), None, memory=torch.ones(1, 5, MEMORY_SIZE))


def test_no_tensor_is_kept_for_each_layer() -> None:
    def peak(num_layers: int) -> int:
        stack = build_stack(num_layers, cross_attention=True, kinds=["local", "lsh"], chunk_length=64)
        memory = torch.ones(1, 500, MEMORY_SIZE, requires_grad=True)
        with LiveTensors() as live:
            stack.run(torch.randn(1, 300, HIDDEN_SIZE), 3, memory=memory)[0].sum().backward()
        gradients = [p.grad for p in stack.parameters()]
        return live.peak - sum(g.numel() * g.element_size() for g in gradients if g is not None)

    peak(2)  # makes what steps share: tables of rotary positions
    assert peak(2) == peak(3) == peak(8)
