"""Reversible residual layers whose inputs are rebuilt from their outputs, bit for bit.

Two streams x1, x2 pass through layers `y1 = x1 + attention(x2)`, `y2 = x2 + feed_forward(y1)` (Gomez et
al. 2017; Kitaev et al. 2020, section 3). The backward pass goes through the layers from the last to
the first: it calls a branch again, subtracts its result from the stream to rebuild what the stream was
before it, and takes the gradient of that one call. Nothing is kept for each layer.

Floating-point addition cannot be undone exactly, so the streams are fixed-point integers: int32 in
units of 2^-20. Adding and subtracting are then exact, and the rebuilt inputs are the originals.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reformer.layers.attention import Attention
from reformer.layers.chunking import Parameters, autocast_like_now, chunked, fill_by_chunks, row_chunks
from reformer.layers.feed_forward import FeedForward
from reformer.layers.randomness import derive

FRACTION_BITS = 20
LIMIT = 2.0 ** (31 - FRACTION_BITS)
"""A stream of int32 holds values in [-2048, 2048)."""

_ROWS_AT_ONCE = 4096


class Residual(Protocol):
    """How the streams are kept."""

    def encode(self, x: Tensor) -> Tensor:
        """A new stream with the value of a floating tensor."""

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """The value of a stream."""

    def add_(self, stream: Tensor, update: Tensor) -> Tensor:
        """Add to a stream in place; tells as a bool scalar whether its range was left."""

    def subtract_(self, stream: Tensor, update: Tensor) -> None:
        """Undo `add_`."""


class FixedPoint:
    """Streams of int32 in units of 2^-20: adding is exact, so subtracting undoes it bit for bit."""

    def encode(self, x: Tensor) -> Tensor:
        """Round to the nearest multiple of 2^-20.

        Raises:
            FloatingPointError: x is not finite or not in range.
        """
        fixed = self._fixed(x)
        if not fixed.abs().amax() < 2**31:
            raise FloatingPointError(f"the input of the layers is NaN or not in [-{LIMIT:g}, {LIMIT:g})")
        return fixed.to(torch.int32)

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """Scale back; float32 has 24 bits for the 31 of the stream, the same ones at every call."""
        return stream.to(torch.promote_types(dtype, torch.float32)).mul_(2.0**-FRACTION_BITS).to(dtype)

    def add_(self, stream: Tensor, update: Tensor) -> Tensor:
        """Add in place; True if the sum left [-2048, 2048) or the update is not finite."""
        overflow = torch.zeros((), dtype=torch.bool, device=stream.device)
        for part, rows in _row_blocks(stream, update):
            fixed = self._fixed(rows)
            in_range = fixed.abs().amax() < 2**31
            delta = fixed.to(torch.int32)
            total = part + delta
            wrapped = ((part ^ total) & (delta ^ total)).amin() < 0
            overflow |= ~in_range | wrapped
            part.copy_(total)
        return overflow

    def subtract_(self, stream: Tensor, update: Tensor) -> None:
        """Subtract in place what `add_` added."""
        for part, rows in _row_blocks(stream, update):
            part.sub_(self._fixed(rows).to(torch.int32))

    def _fixed(self, x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32)).mul(2.0**FRACTION_BITS).round_()


class FloatingPoint:
    """Streams of float32 (float64 for a float64 model): rebuilt inputs drift with depth."""

    def encode(self, x: Tensor) -> Tensor:
        """A copy."""
        return x.to(torch.promote_types(x.dtype, torch.float32), copy=True)

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """A copy: the stream changes in place."""
        return stream.to(dtype, copy=True)

    def add_(self, stream: Tensor, update: Tensor) -> Tensor:
        """Add in place; True if the sum is not finite."""
        return ~stream.add_(update).abs().amax().isfinite()

    def subtract_(self, stream: Tensor, update: Tensor) -> None:
        """Subtract in place, up to rounding what `add_` added."""
        stream.sub_(update)


RESIDUALS: dict[str, type[Residual]] = {"int32": FixedPoint, "float32": FloatingPoint}


class ReversibleLayer(nn.Module):
    """The two branches of a layer.

    Args:
        attention: position-wise before and after it mixes tokens.
        feed_forward: position-wise.
    """

    def __init__(self, attention: Attention, feed_forward: FeedForward):
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward


class ReversibleStack(nn.Module):
    """Layers on two streams, both of which begin as the input.

    Args:
        layers: from first to last.
        residual: "int32" (exact) or "float32".
        reversible: rebuild activations in the backward pass; if False every layer's are stored.
        chunk_length: tokens that go through what is position-wise at once.
    """

    def __init__(
        self, layers: Iterable[ReversibleLayer], *, residual: str, reversible: bool, chunk_length: int
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual: Residual = RESIDUALS[residual]()
        self.reversible = reversible
        self.chunk_length = chunk_length

    def run(
        self,
        x: Tensor,
        seed: int | None,
        key_padding_mask: Tensor | None = None,
        *,
        output_hidden_states: bool = False,
        attention_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Pass `[B, T, d]` through the layers.

        Args:
            x: floating.
            seed: all that is random in the layers derives from it; None in evaluation.
            key_padding_mask: bool `[B, T]`, True where a real token is; real tokens come first.
            output_hidden_states: also give the second stream before each layer and at the end; the
                activations are then stored.
            attention_weights: a list to which each layer's `[B, H, T, T]` are appended; likewise.

        Returns:
            The two streams side by side `[B, T, 2d]`, and the hidden states `[B, T, d]`.

        Raises:
            FloatingPointError: a stream left its range; the message names the layer.
        """
        if self.reversible and not output_hidden_states and attention_weights is None:
            parameters = [p for branches in _layers(self) for branch in branches for p in branch.parameters()]
            y1, y2 = _Reversible.apply(self, seed, key_padding_mask, x, *parameters)
            return _SideBySide.apply(y1, y2), []
        y1, y2, states = _run_stored(self, seed, key_padding_mask, x, attention_weights)
        return torch.cat([y1, y2], dim=-1).to(x.dtype), states


class _Reversible(torch.autograd.Function):
    """The whole stack as one function of its input and its parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        stack: ReversibleStack,
        seed: int | None,
        mask: Tensor | None,
        x: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        residual = stack.residual
        ctx.stack, ctx.seed, ctx.mask, ctx.dtype = stack, seed, mask, x.dtype
        ctx.autocast = autocast_like_now(x.device.type)
        stream1, stream2 = residual.encode(x), residual.encode(x)
        _run_forward(ctx, stream1, stream2)
        ctx.save_for_backward(stream1, stream2, *parameters)
        ctx.streams_are_outputs = True
        return residual.decode(stream1, x.dtype), residual.decode(stream2, x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad1: Tensor, grad2: Tensor) -> tuple[Any, ...]:
        stack, (saved1, saved2, *tensors) = ctx.stack, ctx.saved_tensors
        # The streams are changed in place, back to the inputs. `data` does so behind autograd's back, which
        # would refuse the second backward pass through a graph that was retained.
        stream1, stream2 = saved1.data, saved2.data
        if not ctx.streams_are_outputs:
            _run_forward(ctx, stream1, stream2)
        ctx.streams_are_outputs = False
        gradient_dtype = torch.promote_types(ctx.dtype, torch.float32)
        grad1, grad2 = grad1.to(gradient_dtype), grad2.to(gradient_dtype)
        # Gradients are made before the work begins: made in between, they would keep the memory that is
        # freed around them from being used again, and it would grow with depth after all.
        parameters = _parameters_of_branches(stack, tensors)
        for index in reversed(range(len(stack.layers))):
            attention, feed_forward = parameters[2 * index : 2 * index + 2]
            attention_seed, feed_forward_seed = _branch_seeds(ctx.seed, index)
            _undo_feed_forward(ctx, feed_forward, stream1, stream2, grad1, grad2, feed_forward_seed)
            _undo_attention(ctx, attention, stream1, stream2, grad1, grad2, attention_seed)
        # Both streams begin as the input: exact ones that differ show that they were not rebuilt.
        if isinstance(stack.residual, FixedPoint) and not torch.equal(stream1, stream2):
            raise RuntimeError(
                "the inputs of the layers could not be rebuilt: a branch gave another result when it was "
                "called again, or an earlier backward pass through the same graph was interrupted"
            )
        grads = [grad for branch in parameters for grad in branch.grads]
        return None, None, None, (grad1 + grad2).to(ctx.dtype), *grads


def _run_forward(ctx: Any, stream1: Tensor, stream2: Tensor) -> None:
    """Take the streams through all layers, in place."""
    stack: ReversibleStack = ctx.stack
    overflows = []
    global_state = torch.get_rng_state()
    with torch.no_grad(), ctx.autocast():
        for index, (attention, feed_forward) in enumerate(_layers(stack)):
            attention_seed, feed_forward_seed = _branch_seeds(ctx.seed, index)
            q, k, v = _project_in(ctx, attention.project_in, stream2)
            mixed = attention.attend(q, k, v, attention_seed, ctx.mask)
            del q, k, v
            overflow = torch.zeros((), dtype=torch.bool, device=stream1.device)
            for rows1, rows, seed in _chunks(stack, _out_seed(attention_seed), stream1, mixed):
                overflow |= stack.residual.add_(rows1, attention.project_out(rows, seed))
            overflows.append(overflow)
            del mixed, rows
            overflow = torch.zeros_like(overflow)
            for rows1, rows2, seed in _chunks(stack, feed_forward_seed, stream1, stream2):
                update = feed_forward(stack.residual.decode(rows1, ctx.dtype), seed)
                overflow |= stack.residual.add_(rows2, update)
            overflows.append(overflow)
    if not torch.equal(torch.get_rng_state(), global_state):
        raise RuntimeError(
            "a module inside a reversible layer draws from torch's global generator, so the backward "
            "pass could not call it again with the same numbers; use reversible=False with it"
        )
    _raise_overflow(overflows)


def _undo_feed_forward(
    ctx: Any,
    parameters: Parameters,
    stream1: Tensor,
    stream2: Tensor,
    grad1: Tensor,
    grad2: Tensor,
    seed: int | None,
) -> None:
    """Take the branch off the second stream, and add the gradient of its input to that of the first."""
    residual = ctx.stack.residual
    for y1, x2, g1, g2, chunk_seed in _chunks(ctx.stack, seed, stream1, stream2, grad1, grad2):
        with torch.enable_grad(), ctx.autocast():
            x = residual.decode(y1, ctx.dtype).requires_grad_()
            update = parameters.call("__call__", x, chunk_seed)
        residual.subtract_(x2, update.detach())
        g1 += parameters.backward([update], [x], [g2.to(update.dtype)])[0]


def _undo_attention(
    ctx: Any,
    parameters: Parameters,
    stream1: Tensor,
    stream2: Tensor,
    grad1: Tensor,
    grad2: Tensor,
    seed: int | None,
) -> None:
    """Take the branch off the first stream, and add the gradient of its input to that of the second."""
    stack, residual = ctx.stack, ctx.stack.residual

    def project_in(x: Tensor, seed: None) -> Any:
        return parameters.call("project_in", x, seed)

    with torch.no_grad(), ctx.autocast():
        projections = _project_in(ctx, project_in, stream2)
    with torch.enable_grad(), ctx.autocast():
        projections = [p.requires_grad_() for p in projections]
        mixed = parameters.call("attend", *projections, seed, ctx.mask)
    grad_mixed = torch.empty_like(mixed)
    for rows1, rows, g1, g, chunk_seed in _chunks(stack, _out_seed(seed), stream1, mixed, grad1, grad_mixed):
        with torch.enable_grad(), ctx.autocast():
            leaf = rows.detach().requires_grad_()
            update = parameters.call("project_out", leaf, chunk_seed)
        residual.subtract_(rows1, update.detach())
        g.copy_(parameters.backward([update], [leaf], [g1.to(update.dtype)])[0])
    grads = [grad.contiguous() for grad in parameters.backward([mixed], projections, [grad_mixed])]
    del mixed, rows, projections, grad_mixed, g
    for rows2, g2, *g, _ in _chunks(stack, None, stream2, grad2, *grads):
        with torch.enable_grad(), ctx.autocast():
            x = residual.decode(rows2, ctx.dtype).requires_grad_()
            outputs = parameters.call("project_in", x, None)
        g2 += parameters.backward(outputs, [x], g)[0]


def _project_in(ctx: Any, project_in: Callable[..., tuple[Tensor, ...]], stream2: Tensor) -> list[Tensor]:
    """Queries, keys and values `[B, T, H * D]` of a stream."""
    rows = stream2.view(-1, stream2.shape[-1])
    projections = fill_by_chunks(
        len(rows),
        ctx.stack.chunk_length,
        lambda _, chunk: project_in(ctx.stack.residual.decode(rows[chunk], ctx.dtype), None),
    )
    return [p.view(*stream2.shape[:-1], -1) for p in projections]


def _chunks(stack: ReversibleStack, seed: int | None, *tensors: Tensor) -> Iterator[Any]:
    """Views `[rows, features]` of all tensors, chunk by chunk, each time with a seed."""
    flat = [tensor.view(-1, tensor.shape[-1]) for tensor in tensors]
    for number, chunk in row_chunks(len(flat[0]), stack.chunk_length):
        yield *(rows[chunk] for rows in flat), None if seed is None else derive(seed, number)


class _SideBySide(torch.autograd.Function):
    """`cat` along features whose gradients are copies, which `_Reversible.backward` may change in place."""

    @staticmethod
    def forward(ctx: Any, y1: Tensor, y2: Tensor) -> Tensor:
        return torch.cat([y1, y2], dim=-1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad1, grad2 = grad.chunk(2, dim=-1)
        return grad1.clone(memory_format=torch.contiguous_format), grad2.clone(
            memory_format=torch.contiguous_format
        )


def _run_stored(
    stack: ReversibleStack,
    seed: int | None,
    mask: Tensor | None,
    x: Tensor,
    attention_weights: list[Tensor] | None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The same layers with ordinary autograd, which stores what every layer needs."""
    residual = stack.residual
    value1 = value2 = x.to(torch.promote_types(x.dtype, torch.float32))
    stream1, stream2 = residual.encode(x), residual.encode(x)
    value1, value2 = (_Value.apply(residual, stream, value1) for stream in (stream1, stream2))
    overflows, states = [], []
    for index, (attention, feed_forward) in enumerate(_layers(stack)):
        attention_seed, feed_forward_seed = _branch_seeds(seed, index)
        states.append(value2.to(x.dtype))
        if attention_weights is not None:
            attention_weights.append(attention.weights(value2.to(x.dtype), attention_seed, mask))
        q, k, v = chunked(
            attention.project_in, value2.to(x.dtype), chunk_length=stack.chunk_length, seed=None
        )
        mixed = attention.attend(q, k, v, attention_seed, mask)
        (update,) = chunked(
            attention.project_out, mixed, chunk_length=stack.chunk_length, seed=_out_seed(attention_seed)
        )
        stream1, value1, overflow = _Add.apply(residual, stream1, value1, update)
        overflows.append(overflow)
        (update,) = chunked(
            feed_forward.forward, value1.to(x.dtype), chunk_length=stack.chunk_length, seed=feed_forward_seed
        )
        stream2, value2, overflow = _Add.apply(residual, stream2, value2, update)
        overflows.append(overflow)
    _raise_overflow(overflows)
    return value1, value2, [*states, value2.to(x.dtype)]


class _Value(torch.autograd.Function):
    """The value of a new stream, with the gradient of what it was made from."""

    @staticmethod
    def forward(ctx: Any, residual: Residual, stream: Tensor, x: Tensor) -> Tensor:
        return residual.decode(stream, x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, grad


class _Add(torch.autograd.Function):
    """Add to a copy of a stream; its value carries the gradient, as if nothing had been rounded."""

    @staticmethod
    def forward(
        ctx: Any, residual: Residual, stream: Tensor, value: Tensor, update: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.dtype = update.dtype
        stream = stream.clone()
        overflow = residual.add_(stream, update)
        ctx.mark_non_differentiable(stream, overflow)
        return stream, residual.decode(stream, value.dtype), overflow

    @staticmethod
    def backward(ctx: Any, _stream: None, grad: Tensor, _overflow: None) -> tuple[Any, ...]:
        return None, None, grad, grad.to(ctx.dtype)


def _layers(stack: ReversibleStack) -> Iterator[tuple[Attention, FeedForward]]:
    for layer in stack.layers:
        yield layer.attention, layer.feed_forward  # type: ignore[misc]


def _branch_seeds(seed: int | None, index: int) -> tuple[int | None, int | None]:
    return (None, None) if seed is None else (derive(seed, index, 0), derive(seed, index, 1))


def _out_seed(attention_seed: int | None) -> int | None:
    return None if attention_seed is None else derive(attention_seed, 3)


def _parameters_of_branches(stack: ReversibleStack, tensors: list[Tensor]) -> list[Parameters]:
    """The parameters of each branch, in order, with gradients of zero."""
    found, position = [], 0
    for branches in _layers(stack):
        for branch in branches:
            count = sum(1 for _ in branch.parameters())
            found.append(Parameters(branch, tensors[position : position + count], begin_with_zeros=True))
            position += count
    return found


def _raise_overflow(overflows: list[Tensor]) -> None:
    if not overflows:
        return
    happened = torch.stack(overflows)
    if happened.any():
        first = int(happened.int().argmax())
        branch = "feed-forward" if first % 2 else "attention"
        raise FloatingPointError(
            f"layer {first // 2}: adding the {branch} branch took the residual stream out of "
            f"[-{LIMIT:g}, {LIMIT:g}), or the branch gave NaN"
        )


def _row_blocks(stream: Tensor, update: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of a contiguous stream, and of what is added to it, that fit in a cache."""
    features = stream.shape[-1]
    rows = update.reshape(-1, features)
    step = len(rows) if stream.is_cuda else _ROWS_AT_ONCE
    yield from zip(stream.view(-1, features).split(step), rows.split(step), strict=True)
