"""Residual streams that are added to and subtracted from in place.

Floating-point addition cannot be undone exactly, so the streams are fixed-point integers: int32 in
units of 2^-20. Adding and subtracting are then exact, and the rebuilt inputs are the originals.
"""

import math
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from reformer.ops import position_wise
from reformer.ops.large_tensors import new_empty

FRACTION_BITS = 20
LIMIT = 2.0 ** (31 - FRACTION_BITS)
"""A stream of int32 holds values in [-2048, 2048)."""

_NUMBERS_AT_ONCE = 1 << 17  # several such tensors stay in a cache


class Residual(Protocol):
    """How the streams are kept."""

    def encode(self, x: Tensor) -> Tensor:
        """A new stream with the value of a floating tensor."""

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """The value of a stream, or of some of its rows, up to the next change of the stream."""

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
        stream = new_empty(x, x.shape, torch.int32)
        for part, rows in _row_blocks(stream, x):
            fixed = self._fixed(rows)
            if not _are_within(fixed, 2.0**31):
                raise FloatingPointError(f"the input of the layers is NaN or not in [-{LIMIT:g}, {LIMIT:g})")
            part.copy_(fixed)
        return stream

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """Scale back; float32 has 24 bits for the 31 of the stream, the same ones at every call."""
        return stream.to(torch.promote_types(dtype, torch.float32)).mul_(2.0**-FRACTION_BITS).to(dtype)

    def add_(self, stream: Tensor, update: Tensor) -> Tensor:
        """Add in place; True if the sum left [-2048, 2048) or the update is not finite."""
        if position_wise.can_add(stream, update):
            return ~position_wise.add_(stream, update, unit=2.0**FRACTION_BITS)
        overflow = torch.zeros((), dtype=torch.bool, device=stream.device)
        for part, rows in _row_blocks(stream, update):
            fixed = self._fixed(rows)
            in_range = _are_within(fixed, 2.0**31)
            delta = fixed.to(torch.int32)
            total = part + delta
            wrapped = ((part ^ total) & (delta ^ total)).amin() < 0
            overflow |= ~in_range | wrapped
            part.copy_(total)
        return overflow

    def subtract_(self, stream: Tensor, update: Tensor) -> None:
        """Subtract in place what `add_` added."""
        if position_wise.can_add(stream, update):
            position_wise.add_(stream, update, unit=2.0**FRACTION_BITS, subtract=True)
            return
        for part, rows in _row_blocks(stream, update):
            part.sub_(self._fixed(rows).to(torch.int32))

    def _fixed(self, x: Tensor) -> Tensor:
        return x.to(torch.promote_types(x.dtype, torch.float32)).mul(2.0**FRACTION_BITS).round_()


class FloatingPoint:
    """Streams of float32 (float64 for a float64 model): rebuilt inputs drift with depth."""

    def encode(self, x: Tensor) -> Tensor:
        """A copy."""
        return new_empty(x, x.shape, torch.promote_types(x.dtype, torch.float32)).copy_(x)

    def decode(self, stream: Tensor, dtype: torch.dtype) -> Tensor:
        """The stream itself where it has the dtype."""
        return stream.to(dtype)

    def add_(self, stream: Tensor, update: Tensor) -> Tensor:
        """Add in place; True if the sum is not finite."""
        if position_wise.can_add(stream, update):
            return ~position_wise.add_(stream, update)
        return ~_are_within(stream.add_(update), math.inf)

    def subtract_(self, stream: Tensor, update: Tensor) -> None:
        """Subtract in place, up to rounding what `add_` added."""
        if position_wise.can_add(stream, update):
            position_wise.add_(stream, update, subtract=True)
            return
        stream.sub_(update)


RESIDUALS: dict[str, type[Residual]] = {"int32": FixedPoint, "float32": FloatingPoint}


def _are_within(x: Tensor, limit: float) -> Tensor:
    """Whether all elements are in (-limit, limit), a bool scalar; NaN is not."""
    lowest, highest = x.aminmax()
    return (lowest > -limit) & (highest < limit)


def _row_blocks(stream: Tensor, update: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of a contiguous stream, and of what is added to it, that fit in a cache."""
    features = stream.shape[-1]
    rows = update.reshape(-1, features)
    step = len(rows) if stream.is_cuda else max(1, _NUMBERS_AT_ONCE // features)
    yield from zip(stream.view(-1, features).split(step), rows.split(step), strict=True)
