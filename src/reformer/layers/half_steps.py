"""Half-steps of reversible layers: a branch of one stream is added to the other, and taken off again.

What is position-wise in a branch goes chunk by chunk, forwards and backwards, so that little of
`[T, features]` is ever there in floating point.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reformer.layers.attention import Attention
from reformer.layers.chunking import Autocast, Parameters, chunked, fill_by_chunks, row_chunks
from reformer.layers.cross_attention import CrossAttention
from reformer.layers.randomness import derive
from reformer.layers.residuals import Residual
from reformer.ops.large_tensors import new_empty


@dataclass(frozen=True)
class Pass:
    """What all half-steps of a pass share.

    `dtype` is that of the values that branches read. The masks are bool, True where a real token is:
    of the streams `[B, T]` and of the memory `[B, S]`. `compiled` says that branches are compiled, to code of
    its own where gradients are wanted.
    """

    residual: Residual
    chunk_length: int
    dtype: torch.dtype
    autocast: Autocast
    mask: Tensor | None
    memory_mask: Tensor | None
    compiled: bool = False


@dataclass
class Source:
    """What a branch can read: a stream or the memory, `[B, T, features]`.

    `decode` gives the value of some of its rows; `grad` is the gradient of that value, in a backward pass.
    """

    data: Tensor
    decode: Callable[[Tensor], Tensor]
    grad: Tensor | None = None


class HalfStep:
    """A position-wise branch.

    Args:
        branch: module called with `[rows, features]` and a seed.
        seed: all that is random in the branch derives from it; None in evaluation.
        shared: by the half-steps of the pass.
        parameters: of the branch, in a backward pass.
    """

    def __init__(
        self, branch: nn.Module, seed: int | None, shared: Pass, parameters: Parameters | None = None
    ):
        self.branch, self.seed, self.shared, self.parameters = branch, seed, shared, parameters

    def update(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """What is to be added `[B, T, d]`, by ordinary autograd."""
        return self._chunked("forward", x, self.seed)[0]

    def weights(self, x: Tensor, memory: Tensor | None) -> list[Tensor]:
        """The attention weights `[B, H, T, T or S]`, if there are any."""
        return []

    def add(self, source: Source, target: Source, memory: Source | None) -> Tensor:
        """Add to the target stream in place; tells as a bool scalar whether its range was left."""
        return self._add_rows("__call__", source.decode, source.data, target, self.seed)

    def undo(self, source: Source, target: Source, memory: Source | None) -> None:
        """Take off again what was added, and add to the gradients of what the branch read."""
        assert self.parameters is not None
        with self.shared.autocast.casting_once():
            self.parameters.call(self._undo, source, target, memory)

    def _undo(self, source: Source, target: Source, memory: Source | None) -> None:
        for rows, of_target, grad, of_grad, seed in self._chunks(
            self.seed, source.data, target.data, source.grad, target.grad
        ):
            grad += self._undo_rows("__call__", source.decode(rows), of_target, of_grad, seed)

    def _add_rows(
        self,
        method: str,
        decode: Callable[[Tensor], Tensor],
        data: Tensor,
        target: Source,
        seed: int | None,
    ) -> Tensor:
        overflow = torch.zeros((), dtype=torch.bool, device=data.device)
        for rows, of_target, chunk_seed in self._chunks(seed, data, target.data):
            # What the backward pass will subtract must have the same bits, so the same code gives it here.
            leaf = decode(rows).requires_grad_(self.shared.compiled)
            with torch.set_grad_enabled(self.shared.compiled):
                update = getattr(self.branch, method)(leaf, chunk_seed)
            overflow |= self.shared.residual.add_(of_target, update.detach())
        return overflow

    def _undo_rows(
        self, method: str, value: Tensor, of_target: Tensor, of_grad: Tensor, seed: int | None
    ) -> Tensor:
        """Subtract what a position-wise method gives for rows; the gradient of those rows."""
        leaf = value.requires_grad_()
        update = self._call(method, leaf, seed)
        self.shared.residual.subtract_(of_target, update.detach())
        return self._backward([update], [leaf], [of_grad.to(update.dtype)])[0]

    def _call(self, method: str, *args: Any) -> Any:
        """Call a method of the branch so that gradients can be taken."""
        with torch.enable_grad(), self.shared.autocast():
            return getattr(self.branch, method)(*args)

    def _backward(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor], grads: Sequence[Tensor]) -> Any:
        assert self.parameters is not None
        return self.parameters.backward(outputs, inputs, grads)

    def _chunked(self, method: str, x: Tensor, seed: int | None) -> tuple[Tensor, ...]:
        return chunked(getattr(self.branch, method), x, chunk_length=self.shared.chunk_length, seed=seed)

    def _chunks(self, seed: int | None, *tensors: Tensor | None) -> Iterator[Any]:
        """Views `[rows, features]` of all tensors, chunk by chunk, each time with a seed."""
        flat = [tensor.view(-1, tensor.shape[-1]) for tensor in tensors if tensor is not None]
        if self.shared.compiled:
            seed = None  # of dropout that there is not; compiled code would be made anew for each
        for number, chunk in row_chunks(len(flat[0]), self.shared.chunk_length):
            yield *(rows[chunk] for rows in flat), None if seed is None else derive(seed, number)


class AttentionHalfStep(HalfStep):
    """A branch that mixes tokens between two parts that are position-wise.

    It may read a second source, the memory, which is the same for all layers.
    """

    @property
    def _out_seed(self) -> int | None:
        return None if self.seed is None else derive(self.seed, 3)

    @property
    def _mask(self) -> Tensor | None:
        return self.shared.memory_mask if isinstance(self.branch, CrossAttention) else self.shared.mask

    def update(self, x: Tensor, memory: Tensor | None) -> Tensor:
        """See `HalfStep`."""
        projections = [
            p for method, read in self._reads(x, memory) for p in self._chunked(method, read, None)
        ]
        mixed = self.branch.attend(projections, self.seed, self._mask)  # type: ignore[operator]
        return self._chunked("project_out", mixed, self._out_seed)[0]

    def weights(self, x: Tensor, memory: Tensor | None) -> list[Tensor]:
        """See `HalfStep`."""
        reads = [read for _, read in self._reads(x, memory)]
        return [self.branch.weights(*reads, self.seed, self._mask)]  # type: ignore[operator]

    def add(self, source: Source, target: Source, memory: Source | None) -> Tensor:
        """See `HalfStep`."""
        projections = [p for read in self._reads(source, memory) for p in self._project(*read)]
        mixed = self.branch.attend(projections, self.seed, self._mask)  # type: ignore[operator]
        del projections
        return self._add_rows("project_out", lambda rows: rows, mixed, target, self._out_seed)

    def _undo(self, source: Source, target: Source, memory: Source | None) -> None:
        reads = self._reads(source, memory)
        projections = [self._project(*read) for read in reads]
        inputs = [p.requires_grad_() for of_read in projections for p in of_read]
        mixed = self._call("attend", inputs, self.seed, self._mask)
        grad_mixed = new_empty(mixed.detach(), mixed.shape)
        for rows, of_target, grad, of_grad, seed in self._chunks(
            self._out_seed, mixed, target.data, grad_mixed, target.grad
        ):
            grad.copy_(self._undo_rows("project_out", rows.detach(), of_target, of_grad, seed))
        grads = [grad.contiguous() for grad in self._backward([mixed], inputs, [grad_mixed])]
        del mixed, rows, inputs, grad_mixed, grad
        for (method, read), known in zip(reads, projections, strict=True):
            count = len(known)
            of_read, grads = grads[:count], grads[count:]
            for rows, grad, *both, _ in self._chunks(None, read.data, read.grad, *of_read, *known):
                # Compiled code is the forward pass's, which knows no results.
                of_outputs, outputs = both[:count], [] if self.shared.compiled else both[count:]
                leaf = read.decode(rows).requires_grad_()
                placed = self._call(method, leaf, None, *(one.detach() for one in outputs))
                grad += self._backward(placed, [leaf], of_outputs)[0]

    def _reads(self, x: Any, memory: Any) -> list[tuple[str, Any]]:
        """The methods that project, each with what it reads."""
        in_memory = [("project_memory", memory)] if isinstance(self.branch, CrossAttention) else []
        return [("project_in", x), *in_memory]

    def _project(self, method: str, read: Source) -> list[Tensor]:
        """What attention works on, `[B, T, H * D]` each."""
        rows = read.data.view(-1, read.data.shape[-1])
        project = getattr(self.branch, method)
        with torch.no_grad(), self.shared.autocast.casting_once(), self.shared.autocast():
            projections = fill_by_chunks(
                len(rows), self.shared.chunk_length, lambda _, chunk: project(read.decode(rows[chunk]), None)
            )
        return [p.view(*read.data.shape[:-1], -1) for p in projections]


def half_step(
    branch: nn.Module, seed: int | None, shared: Pass, parameters: Parameters | None = None
) -> HalfStep:
    """The half-step of a branch."""
    kind = AttentionHalfStep if isinstance(branch, Attention | CrossAttention) else HalfStep
    return kind(branch, seed, shared, parameters)
