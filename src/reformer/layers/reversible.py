"""Reversible residual layers whose inputs are rebuilt from their outputs, bit for bit.

Two streams x1, x2 pass through layers `y1 = x1 + attention(x2)`, `y2 = x2 + feed_forward(y1)` (Gomez et
al. 2017; Kitaev et al. 2020, section 3). With any number of branches in a layer, each is added to the
stream that was not the last to change: such half-steps alternate all the way up. The backward pass goes
from the last half-step to the first: it calls a branch again, subtracts its result from the stream to
rebuild what the stream was before it, and takes the gradient of that one call. Nothing is kept for each
layer.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reformer.layers.attention import Attention
from reformer.layers.chunking import Autocast, Parameters, fill_by_chunks, product_dtype
from reformer.layers.cross_attention import CrossAttention
from reformer.layers.feed_forward import FeedForward
from reformer.layers.half_steps import HalfStep, Pass, Source, half_step
from reformer.layers.randomness import derive
from reformer.layers.residuals import LIMIT, RESIDUALS, FixedPoint, Residual
from reformer.ops.large_tensors import new_empty
from reformer.ops.transforms import inside_transform

_POSITION_WISE = ("project_in", "project_memory", "project_out")


class ReversibleLayer(nn.Module):
    """The branches of a layer, in order: its submodules.

    Args:
        attention: position-wise before and after it mixes tokens.
        feed_forward: position-wise.
        cross_attention: between the two, over a memory.
    """

    def __init__(
        self, attention: Attention, feed_forward: FeedForward, cross_attention: CrossAttention | None = None
    ):
        super().__init__()
        self.attention = attention
        if cross_attention is not None:
            self.cross_attention = cross_attention
        self.feed_forward = feed_forward


class ReversibleStack(nn.Module):
    """Layers on two streams, both of which begin as the input.

    Args:
        layers: from first to last.
        residual: "int32" (exact) or "float32".
        reversible: rebuild activations in the backward pass; if False, and inside torch.func's transforms,
            every layer's are stored.
        chunk_length: tokens that go through what is position-wise at once; twice as many in 16 bits.
    """

    def __init__(
        self, layers: Iterable[ReversibleLayer], *, residual: str, reversible: bool, chunk_length: int
    ):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.residual: Residual = RESIDUALS[residual]()
        self.reversible = reversible
        self.gradient_checkpointing = False  # set by transformers: rebuild, even if not reversible
        self.chunk_length = chunk_length
        self.compiled = False

    def compile_branches(self, **options: Any) -> None:
        """Compile what is position-wise in the branches; attention itself has kernels.

        Layers of the same kind share the compiled code, whose results differ by rounding.

        Args:
            options: of `torch.compile`.

        Raises:
            ValueError: a branch has dropout, whose numbers compiled code cannot draw again.
        """
        for branch in _branches(self):
            if branch.dropout:
                raise ValueError(
                    f"branches with dropout cannot be compiled: hidden_dropout_prob must be 0, "
                    f"got {branch.dropout}"
                )
            for name in _POSITION_WISE if hasattr(branch, "attend") else ("forward",):
                if hasattr(branch, name):
                    setattr(
                        branch,
                        name,
                        torch.compile(getattr(branch, name), fullgraph=True, dynamic=True, **options),
                    )
        self.compiled = True

    def run(
        self,
        x: Tensor,
        seed: int | None,
        key_padding_mask: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        output_hidden_states: bool = False,
        attention_weights: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Pass `[B, T, d]` through the layers.

        Args:
            x: floating.
            seed: all that is random in the layers derives from it; None in evaluation.
            key_padding_mask: bool `[B, T]`, True where a real token is; real tokens come first.
            memory: `[B, S, m]`, floating: what cross-attention is over; has a gradient.
            memory_mask: bool `[B, S]`, True where a real token is.
            output_hidden_states: also give what each layer's first branch reads and the stream that the
                last changed; the activations are then stored.
            attention_weights: a list to which each attention's `[B, H, T, T or S]` are appended; likewise.

        Returns:
            The two streams side by side `[B, T, 2d]`, and the hidden states `[B, T, d]`.

        Raises:
            FloatingPointError: a stream left its range; the message names the layer.
        """
        shared = Pass(
            self.residual,
            self.chunk_length * _numbers_a_word(x),
            x.dtype,
            Autocast(x.device.type),
            key_padding_mask,
            memory_mask,
            self.compiled,
        )
        rebuilt = (self.reversible or self.gradient_checkpointing) and not inside_transform()
        if rebuilt and not output_hidden_states and attention_weights is None:
            parameters = [p for branch in _branches(self) for p in branch.parameters()]
            memory = None if memory is None else memory.contiguous()
            streams = _Reversible.apply(self, seed, shared, x, memory, *parameters)
            return _OwnGradient.apply(streams), []
        y1, y2, states = _run_stored(self, seed, shared, x, memory, attention_weights)
        return torch.cat([y1, y2], dim=-1).to(x.dtype), states


def _numbers_a_word(x: Tensor) -> int:
    """How many numbers that branches compute with from x fit in 32 bits, 1 at least."""
    return max(1, 4 // product_dtype(x).itemsize)


class _Reversible(torch.autograd.Function):
    """The whole stack as one function of its input, the memory and its parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        stack: ReversibleStack,
        seed: int | None,
        shared: Pass,
        x: Tensor,
        memory: Tensor | None,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.stack, ctx.seed, ctx.shared = stack, seed, shared
        streams = stack.residual.encode(x), stack.residual.encode(x)
        _run_forward(ctx, streams, memory)
        ctx.save_for_backward(*streams, memory, *parameters)
        ctx.streams_are_outputs = True
        return _side_by_side(shared, streams)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return _run_backward(ctx, grad)


class _OwnGradient(torch.autograd.Function):
    """The same tensor, with a copy of its gradient, which `_Reversible.backward` may change in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return new_empty(grad, grad.shape).copy_(grad)


def _run_forward(ctx: Any, streams: tuple[Tensor, Tensor], memory: Tensor | None) -> None:
    """Take the streams through all layers, in place."""
    sources, of_memory = _sources(ctx.shared, streams, memory)
    overflows = []
    global_state = torch.get_rng_state()
    for number, step in enumerate(_half_steps(ctx.stack, ctx.seed, ctx.shared)):
        with torch.no_grad(), ctx.shared.autocast.casting_once(), ctx.shared.autocast():
            overflows.append(step.add(sources[1 - number % 2], sources[number % 2], of_memory))
    if not torch.equal(torch.get_rng_state(), global_state):
        raise RuntimeError(
            "a module inside a reversible layer draws from torch's global generator, so the backward "
            "pass could not call it again with the same numbers; use reversible=False with it"
        )
    _raise_overflow(ctx.stack, overflows)


def _run_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """Take the streams back to their beginnings, in place; the gradients of all that went in."""
    stack, (saved1, saved2, memory, *tensors) = ctx.stack, ctx.saved_tensors
    # The streams are changed in place, back to the inputs. `data` does so behind autograd's back, which
    # would refuse the second backward pass through a graph that was retained.
    streams = saved1.data, saved2.data
    if not ctx.streams_are_outputs:
        _run_forward(ctx, streams, memory)
    ctx.streams_are_outputs = False
    # Gradients are made before the work begins: made in between, they would keep the memory that is
    # freed around them from being used again, and it would grow with depth after all.
    gradient_dtype = torch.promote_types(ctx.shared.dtype, torch.float32)
    grad1, grad2 = grad.to(gradient_dtype).chunk(2, dim=-1)
    grad_memory = None if memory is None else torch.zeros_like(memory, dtype=gradient_dtype)
    sources, of_memory = _sources(ctx.shared, streams, memory, grad1, grad2, grad_memory)
    parameters = _parameters_of_branches(stack, tensors)
    steps = list(_half_steps(stack, ctx.seed, ctx.shared, parameters))
    for number in reversed(range(len(steps))):
        steps[number].undo(sources[1 - number % 2], sources[number % 2], of_memory)
    # Both streams begin as the input: exact ones that differ show that they were not rebuilt.
    if isinstance(stack.residual, FixedPoint) and not torch.equal(*streams):
        raise RuntimeError(
            "the inputs of the layers could not be rebuilt: a branch gave another result when it was "
            "called again, or an earlier backward pass through the same graph was interrupted"
        )
    grad_memory = None if grad_memory is None else grad_memory.to(memory.dtype)
    grads_of_branches = [grad for branch in parameters for grad in branch.grads]
    grad_x = torch.add(grad1, grad2, out=new_empty(grad, grad1.shape, gradient_dtype))
    return None, None, None, grad_x.to(ctx.shared.dtype), grad_memory, *grads_of_branches


def _sources(
    shared: Pass, streams: tuple[Tensor, Tensor], memory: Tensor | None, *grads: Tensor | None
) -> tuple[list[Source], Source | None]:
    """What branches can read: the streams and the memory, in a backward pass with gradients."""
    grad1, grad2, grad_memory = grads or (None, None, None)
    of_streams = [
        Source(stream, lambda rows: shared.residual.decode(rows, shared.dtype), grad)
        for stream, grad in zip(streams, (grad1, grad2), strict=True)
    ]
    if memory is None:
        return of_streams, None
    return of_streams, Source(memory, lambda rows: rows.detach().to(shared.dtype), grad_memory)


def _side_by_side(shared: Pass, streams: tuple[Tensor, Tensor]) -> Tensor:
    """The values of both streams, `[B, T, 2d]`."""
    B, T, d = streams[0].shape
    rows = [stream.view(B * T, d) for stream in streams]

    def part(_: int, chunk: slice) -> Tensor:
        return torch.cat(
            [shared.residual.decode(of_stream[chunk], shared.dtype) for of_stream in rows], dim=-1
        )

    (values,) = fill_by_chunks(B * T, shared.chunk_length, part)
    return values.view(B, T, 2 * d)


def _run_stored(
    stack: ReversibleStack,
    seed: int | None,
    shared: Pass,
    x: Tensor,
    memory: Tensor | None,
    attention_weights: list[Tensor] | None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The same layers with ordinary autograd, which stores what every layer needs."""
    residual = stack.residual
    wide = torch.promote_types(x.dtype, torch.float32)
    streams, begun = [residual.encode(x), residual.encode(x)], x.to(wide)
    values = [_Value.apply(residual, stream, begun) for stream in streams]
    memory = None if memory is None else memory.to(wide)  # where the gradients of all layers add up
    overflows, states = [], []
    for number, step in enumerate(_half_steps(stack, seed, shared)):
        source, target = values[1 - number % 2].to(x.dtype), number % 2
        read = None if memory is None else memory.view_as(memory).to(x.dtype)  # view: adds up by layer
        if isinstance(step.branch, Attention):
            states.append(source)
        if attention_weights is not None:
            attention_weights.extend(step.weights(source, read))
        update = step.update(source, read)
        streams[target], values[target], overflow = _Add.apply(
            residual, streams[target], values[target], update
        )
        overflows.append(overflow)
    _raise_overflow(stack, overflows)
    last = values[1 - len(overflows) % 2]
    return values[0], values[1], [*states, last.to(x.dtype)]


class _Value(torch.autograd.Function):
    """The value of a new stream, with the gradient of what it was made from."""

    @staticmethod
    def forward(residual: Residual, stream: Tensor, x: Tensor) -> Tensor:
        return _copy_of_value(residual, stream, x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, grad


def _copy_of_value(residual: Residual, stream: Tensor, dtype: torch.dtype) -> Tensor:
    value = residual.decode(stream, dtype)
    return value.clone() if value is stream else value


class _Add(torch.autograd.Function):
    """Add to a copy of a stream; its value carries the gradient, as if nothing had been rounded."""

    @staticmethod
    def forward(
        residual: Residual, stream: Tensor, value: Tensor, update: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        stream = stream.clone()
        overflow = residual.add_(stream, update)
        return stream, _copy_of_value(residual, stream, value.dtype), overflow

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.dtype = inputs[3].dtype
        stream, _, overflow = output
        ctx.mark_non_differentiable(stream, overflow)

    @staticmethod
    def backward(ctx: Any, _stream: None, grad: Tensor, _overflow: None) -> tuple[Any, ...]:
        return None, None, grad, grad.to(ctx.dtype)


def _branches(stack: ReversibleStack) -> Iterator[nn.Module]:
    for layer in stack.layers:
        yield from layer.children()


def _half_steps(
    stack: ReversibleStack, seed: int | None, shared: Pass, parameters: Sequence[Parameters] | None = None
) -> Iterator[HalfStep]:
    """All half-steps, of which number n is added to the stream n % 2 and reads the other."""
    of_branches = iter(parameters or [])
    for index, layer in enumerate(stack.layers):
        for position, branch in enumerate(layer.children()):
            branch_seed = None if seed is None else derive(seed, index, position)
            yield half_step(branch, branch_seed, shared, next(of_branches, None))


def _parameters_of_branches(stack: ReversibleStack, tensors: list[Tensor]) -> list[Parameters]:
    """The parameters of each branch, in order, with gradients of zero."""
    found, position = [], 0
    for branch in _branches(stack):
        count = sum(1 for _ in branch.parameters())
        found.append(Parameters(branch, tensors[position : position + count], begin_with_zeros=True))
        position += count
    return found


def _raise_overflow(stack: ReversibleStack, overflows: list[Tensor]) -> None:
    if not overflows:
        return
    happened = torch.stack(overflows)
    if happened.any():
        names = [(i, name) for i, layer in enumerate(stack.layers) for name, _ in layer.named_children()]
        index, name = names[int(happened.int().argmax())]
        raise FloatingPointError(
            f"layer {index}: adding the {name.replace('_', '-')} branch took the residual stream out of "
            f"[-{LIMIT:g}, {LIMIT:g}), or the branch gave NaN"
        )
