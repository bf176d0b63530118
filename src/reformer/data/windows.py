"""Windows over a token array: random ones to train on, a covering set to evaluate on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reformer.data.tokens import TokenArray
from reformer.errors import UserError

_MIN_EVALUATION_TOKENS = 2


class WindowSampler:
    """Random windows of one length, each inside one record, drawn by index.

    Window i starts at a position drawn uniformly from all those where a window fits into a record. The draw
    is the first output of NumPy's Philox generator with the key (seed, i), so it depends on the array, the
    length, the seed and i alone: not on earlier draws, on workers or on any global random state.

    Attributes:
        array: the token array.
        length: tokens per window.
        seed: 0 to 2**64 - 1.
        num_starts: positions that a window can start at.
    """

    def __init__(self, array: TokenArray, length: int, seed: int) -> None:
        """Counts the possible starts.

        Raises:
            UserError: no record has `length` tokens, or `length` or `seed` is out of range.
        """
        if length < 1:
            raise UserError(f"window length is {length}: expected 1 or more tokens")
        if not 0 <= seed < 2**64:
            raise UserError(f"seed is {seed}: expected 0 to 2**64 - 1")
        self.array = array
        self.length = length
        self.seed = seed
        self._starts_up_to = np.cumsum(np.maximum(array.records.lengths - (length - 1), 0))
        self.num_starts = int(self._starts_up_to[-1])
        if self.num_starts == 0:
            longest = array.records[int(np.argmax(array.records.lengths))]
            raise UserError(
                f"{array.folder}: no record has {length} tokens, the window's length: the longest, "
                f"{longest.name!r}, has {longest.length}"
            )

    def start(self, index: int) -> int:
        """Returns where window `index` (0 to 2**64 - 1) starts, in tokens from the array's first."""
        if not 0 <= index < 2**64:
            raise IndexError(f"window index is {index}: expected 0 to 2**64 - 1")
        generator = np.random.Philox(key=np.array([self.seed, index], dtype=np.uint64))
        # 64 random bits scaled to num_starts: no start's probability is off by more than 2**-64.
        draw = int(generator.random_raw()) * self.num_starts >> 64
        record = int(np.searchsorted(self._starts_up_to, draw, side="right"))
        draws_before = int(self._starts_up_to[record - 1]) if record > 0 else 0
        return int(self.array.records.starts[record]) + draw - draws_before

    def window(self, index: int) -> npt.NDArray[np.uint8]:
        """Returns window `index`, a read-only uint8 view ``[length]`` of the mapped file."""
        return self.array.window(self.start(index), self.length)


class EvaluationWindow(NamedTuple):
    """A window of a record; `start` counts tokens from the array's first, as `TokenArray.window` does."""

    record: str
    start: int
    length: int


def evaluation_windows(array: TokenArray, length: int) -> Iterator[EvaluationWindow]:
    """Yields windows that follow each other without overlap and cover every record from its first token.

    Windows have `length` tokens except the last of each record, which has what remains. Where a single
    token would remain, which predicts nothing, the window before it gives up one of its own, so the last two
    have `length - 1` and 2. A record of a single token gets no window.

    Args:
        array: the token array.
        length: tokens per window, at least 3.

    Raises:
        UserError: `length` is less than 3.
    """
    if length <= _MIN_EVALUATION_TOKENS:
        raise UserError(f"evaluation window length is {length}: expected 3 or more tokens")
    return _evaluation_windows(array, length)


def _evaluation_windows(array: TokenArray, length: int) -> Iterator[EvaluationWindow]:
    for name, start, remaining in array.records:
        while remaining >= _MIN_EVALUATION_TOKENS:
            size = min(length, remaining)
            if remaining - size == 1:
                size -= 1
            yield EvaluationWindow(name, start, size)
            start += size
            remaining -= size
