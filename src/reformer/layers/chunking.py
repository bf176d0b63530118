"""Position-wise functions applied chunk by chunk, in the backward pass as well."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from reformer.layers.randomness import derive


def row_chunks(num_rows: int, chunk_length: int) -> Iterator[tuple[int, slice]]:
    """Number and rows of each chunk."""
    for index, start in enumerate(range(0, num_rows, chunk_length)):
        yield index, slice(start, min(start + chunk_length, num_rows))


def autocast_like_now(device_type: str) -> Callable[[], AbstractContextManager[None]]:
    """Remember the state of autocast: the result makes a context that restores it.

    Casts are not cached: a cast made without a graph must not serve where one is built.
    """
    enabled = torch.is_autocast_enabled(device_type)
    dtype = torch.get_autocast_dtype(device_type)
    return lambda: torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=False)


class Parameters:
    """The parameters of a module as plain tensors, apart from any graph.

    Args:
        module: whose parameters they are.
        tensors: their values, in the order of `module.named_parameters()`.
        begin_with_zeros: let `grads` begin as zeros; otherwise they are None until one comes.
    """

    def __init__(self, module: nn.Module, tensors: Sequence[Tensor], *, begin_with_zeros: bool = False):
        self.module = module
        names = [name for name, _ in module.named_parameters()]
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
        self.by_name = dict(zip(names, leaves, strict=True))
        self.trained = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]
        self.leaves = [leaves[i] for i in self.trained]
        self.grads: list[Tensor | None] = [
            torch.zeros_like(leaf) if begin_with_zeros and leaf.requires_grad else None for leaf in leaves
        ]

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with these parameters."""
        return torch.func.functional_call(self.module, self.by_name, args, kwargs)

    def backward(self, outputs: Sequence[Tensor], x: Tensor, grad_outputs: Sequence[Tensor]) -> Tensor:
        """Add to the gradients of the parameters; return that of the input."""
        grads = torch.autograd.grad(outputs, (x, *self.leaves), grad_outputs, allow_unused=True)
        for i, grad in zip(self.trained, grads[1:], strict=True):
            total = self.grads[i]
            if grad is not None:
                self.grads[i] = grad if total is None else total.add_(grad)
        return torch.zeros_like(x) if grads[0] is None else grads[0]


def chunked(
    method: Callable[..., Tensor | tuple[Tensor, ...]],
    x: Tensor,
    *aligned: Tensor,
    chunk_length: int,
    seed: int | None,
) -> tuple[Tensor, ...]:
    """Apply a position-wise method of a module to chunks of positions.

    Nothing but the input is kept for the backward pass, which calls the method again, chunk by chunk.
    An input of one chunk takes the ordinary path.

    Args:
        method: bound method of an nn.Module, called with `[rows, features]`, a seed (one for each
            chunk, or None) and the rows of `aligned`; returns one or several `[rows, features]`.
        x: `[..., features]`, floating.
        aligned: `[...]` each, any dtype, without gradient.
        chunk_length: rows in a chunk.
        seed: of what is random in the method, or None.

    Returns:
        What the method returns, for all positions: `[..., out_features]` each.
    """
    rows = x.reshape(-1, x.shape[-1])
    flat = tuple(tensor.reshape(-1) for tensor in aligned)
    if len(rows) <= chunk_length:
        outputs = _as_tuple(method(rows, None if seed is None else derive(seed, 0), *flat))
    else:
        call = _Method(method)
        outputs = _Chunked.apply(call, chunk_length, seed, flat, rows, *call.parameters())
    return tuple(output.view(*x.shape[:-1], -1) for output in outputs)


class _Method(nn.Module):
    """A method of a module as a module, so that it can be called with other parameters."""

    def __init__(self, method: Callable[..., Any]):
        super().__init__()
        self.owner: nn.Module = method.__self__  # type: ignore[attr-defined]
        self.name: str = method.__name__

    def forward(self, rows: Tensor, seed: int | None, *aligned: Tensor) -> tuple[Tensor, ...]:
        return _as_tuple(getattr(self.owner, self.name)(rows, seed, *aligned))


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        call: _Method,
        chunk_length: int,
        seed: int | None,
        aligned: tuple[Tensor, ...],
        rows: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.call, ctx.chunk_length, ctx.seed, ctx.aligned = call, chunk_length, seed, aligned
        ctx.autocast = autocast_like_now(rows.device.type)
        ctx.save_for_backward(rows, *parameters)
        outputs: tuple[Tensor, ...] = ()
        for index, chunk in row_chunks(len(rows), chunk_length):
            with ctx.autocast():
                parts = call(rows[chunk], *_Chunked._rest(ctx, index, chunk))
            if not outputs:
                outputs = tuple(part.new_empty(len(rows), *part.shape[1:]) for part in parts)
            for output, part in zip(outputs, parts, strict=True):
                output[chunk] = part
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        rows, *tensors = ctx.saved_tensors
        parameters = Parameters(ctx.call, tensors)
        grad_rows = torch.empty_like(rows)
        for index, chunk in row_chunks(len(rows), ctx.chunk_length):
            with torch.enable_grad(), ctx.autocast():
                x = rows[chunk].detach().requires_grad_()
                parts = parameters.call(x, *_Chunked._rest(ctx, index, chunk))
            grad_rows[chunk] = parameters.backward(parts, x, [grad[chunk] for grad in grad_outputs])
        return None, None, None, None, grad_rows, *parameters.grads

    @staticmethod
    def _rest(ctx: Any, index: int, chunk: slice) -> tuple[Any, ...]:
        seed = None if ctx.seed is None else derive(ctx.seed, index)
        return seed, *(tensor[chunk] for tensor in ctx.aligned)


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
