"""Position-wise functions applied chunk by chunk, in the backward pass as well."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from reformer.layers.randomness import derive
from reformer.ops.large_tensors import new_empty
from reformer.ops.transforms import inside_transform


def row_chunks(num_rows: int, chunk_length: int) -> Iterator[tuple[int, slice]]:
    """Number and rows of each chunk."""
    for index, start in enumerate(range(0, num_rows, chunk_length)):
        yield index, slice(start, min(start + chunk_length, num_rows))


def product_dtype(x: Tensor) -> torch.dtype:
    """What matrix products with x are computed in: autocast's dtype, where that is enabled for x."""
    device_type = x.device.type
    if x.dtype == torch.float32 and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return x.dtype


class Autocast:
    """The state of autocast at its making, which contexts bring back."""

    def __init__(self, device_type: str):
        self._device_type = device_type
        self._dtype = torch.get_autocast_dtype(device_type)
        self._enabled = torch.is_autocast_enabled(device_type)

    def __call__(self) -> AbstractContextManager[None]:
        """The context; only within that of `casting_once`."""
        return torch.autocast(self._device_type, dtype=self._dtype, enabled=self._enabled)

    @contextmanager
    def casting_once(self) -> Iterator[None]:
        """Within it each parameter is cast once, with a graph or without: gradients are wanted or are not.

        No cast from outside is used, and none from inside afterwards. What is a leaf and no parameter must
        not be cast.
        """
        torch.clear_autocast_cache()
        try:
            # Casts last until the outermost context ends.
            with torch.autocast(self._device_type, enabled=False):
                yield
        finally:
            torch.clear_autocast_cache()


class Parameters:
    """The parameters of a module as plain tensors, apart from any graph.

    Args:
        module: whose parameters they are.
        tensors: their values, in the order of `module.named_parameters()`.
        begin_with_zeros: let `grads` begin as zeros; otherwise they are None until one comes.
    """

    def __init__(self, module: nn.Module, tensors: Sequence[Tensor], *, begin_with_zeros: bool = False):
        self.owner = _Owner(module)
        names = [name for name, _ in module.named_parameters()]
        leaves = [nn.Parameter(tensor.detach(), tensor.requires_grad) for tensor in tensors]
        self.by_name: dict[str, Tensor] = {
            f"module.{name}": leaf for name, leaf in zip(names, leaves, strict=True)
        }
        self.trained = [i for i, leaf in enumerate(leaves) if leaf.requires_grad]
        self.leaves = [leaves[i] for i in self.trained]
        self.grads: list[Tensor | None] = [
            torch.zeros_like(leaf) if begin_with_zeros and leaf.requires_grad else None for leaf in leaves
        ]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function during which these are the parameters of the module."""
        return torch.func.functional_call(self.owner, self.by_name, (function, *args))

    def backward(
        self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Sequence[Tensor]
    ) -> list[Tensor]:
        """Add to the gradients of the parameters; return those of the inputs."""
        grads = torch.autograd.grad(outputs, (*inputs, *self.leaves), grad_outputs, allow_unused=True)
        for i, grad in zip(self.trained, grads[len(inputs) :], strict=True):
            total = self.grads[i]
            if grad is not None:
                self.grads[i] = grad if total is None else total.add_(grad)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, grads, strict=False)]


class _Owner(nn.Module):
    """Owns a module, and calls functions that use it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def chunked(
    method: Callable[..., Tensor | tuple[Tensor, ...]],
    x: Tensor,
    *aligned: Tensor,
    chunk_length: int,
    seed: int | None,
) -> tuple[Tensor, ...]:
    """Apply a position-wise method of a module to chunks of positions.

    Nothing but the input is kept for the backward pass, which calls the method again, chunk by chunk.
    An input of one chunk takes the ordinary path, and so does any inside torch.func's transforms.

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
    if len(rows) <= chunk_length or inside_transform():
        outputs = _as_tuple(method(rows, None if seed is None else derive(seed, 0), *flat))
    else:
        owner: nn.Module = method.__self__  # type: ignore[attr-defined]
        outputs = _Chunked.apply(owner, method.__name__, chunk_length, seed, flat, rows, *owner.parameters())
    return tuple(output.view(*x.shape[:-1], -1) for output in outputs)


def fill_by_chunks(
    rows: int, chunk_length: int, part: Callable[[int, slice], Tensor | tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Put the results of `part(number, chunk)` below one another.

    Args:
        rows: of the results.
        chunk_length: rows in a chunk.
        part: gives one or several `[rows of the chunk, features]`.
    """
    if rows <= chunk_length:
        return _as_tuple(part(0, slice(0, rows)))
    wholes: tuple[Tensor, ...] = ()
    for number, chunk in row_chunks(rows, chunk_length):
        outputs = _as_tuple(part(number, chunk))
        if not wholes:
            wholes = tuple(new_empty(output, (rows, *output.shape[1:])) for output in outputs)
        for index in range(len(wholes)):
            wholes[index][chunk] = outputs[index]
        del outputs
    return wholes


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        owner: nn.Module,
        method: str,
        chunk_length: int,
        seed: int | None,
        aligned: tuple[Tensor, ...],
        rows: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.owner, ctx.method, ctx.chunk_length, ctx.seed, ctx.aligned = (
            owner,
            method,
            chunk_length,
            seed,
            aligned,
        )
        ctx.autocast = Autocast(rows.device.type)
        ctx.save_for_backward(rows, *parameters)

        def part(number: int, chunk: slice) -> Any:
            with ctx.autocast():
                return getattr(owner, method)(rows[chunk], *_Chunked._rest(ctx, number, chunk))

        with ctx.autocast.casting_once():
            return fill_by_chunks(len(rows), chunk_length, part)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        rows, *tensors = ctx.saved_tensors
        parameters = Parameters(ctx.owner, tensors)

        def part(number: int, chunk: slice) -> Tensor:
            with torch.enable_grad(), ctx.autocast():
                x = rows[chunk].detach().requires_grad_()
                outputs = getattr(ctx.owner, ctx.method)(x, *_Chunked._rest(ctx, number, chunk))
            return parameters.backward(_as_tuple(outputs), [x], [grad[chunk] for grad in grad_outputs])[0]

        with ctx.autocast.casting_once():
            (grad_rows,) = parameters.call(fill_by_chunks, len(rows), ctx.chunk_length, part)
        return None, None, None, None, None, grad_rows, *parameters.grads

    @staticmethod
    def _rest(ctx: Any, number: int, chunk: slice) -> tuple[Any, ...]:
        seed = None if ctx.seed is None else derive(ctx.seed, number)
        return seed, *(tensor[chunk] for tensor in ctx.aligned)


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs
