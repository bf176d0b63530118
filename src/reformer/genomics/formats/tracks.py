"""bigWig, one value for each base, written through pybigtools."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.genomics.extras import require
from reformer.training.atomic import atomic_file

Values = tuple[str, int, npt.NDArray[np.floating]]
"""Name of a sequence, first base (from 0) and values ``[bases]`` of one block."""


def write_bigwig(path: str | os.PathLike[str], lengths: Mapping[str, int], blocks: Iterable[Values]) -> None:
    """Writes values as they come; the file is either whole or not there.

    Neighbouring bases of one value become one interval, so a track of classes is small. NaN is left out.

    Args:
        path: the file, replaced if there is one.
        lengths: name -> bases of every sequence.
        blocks: a sequence's blocks together, from left to right, not overlapping; sequences in any order.

    Raises:
        ValueError: blocks are not in that order or go beyond their sequence, a value is infinite, or there
            is no value.
    """
    pybigtools = require("pybigtools", "to write bigWig")
    intervals = _Intervals(lengths, blocks)
    with atomic_file(Path(path)) as partial:
        named = Path(f"{partial}.bw")  # pybigtools tells the format by the ending
        try:
            pybigtools.open(str(named), "w").write(dict(lengths), intervals)
            os.replace(named, partial)
        except Exception:
            if intervals.error is not None:
                raise intervals.error from None
            raise
        finally:
            named.unlink(missing_ok=True)
        if intervals.error is not None:
            raise intervals.error
        if not intervals.num_written:
            raise ValueError(f"{path}: no value to write: a bigWig file holds at least one")


class _Intervals:
    """The intervals of the blocks; remembers our error, which may not survive the way through Rust."""

    def __init__(self, lengths: Mapping[str, int], blocks: Iterable[Values]) -> None:
        self.error: Exception | None = None
        self.num_written = 0
        self._intervals = _runs(lengths, blocks)

    def __iter__(self) -> _Intervals:
        return self

    def __next__(self) -> tuple[str, int, int, float]:
        try:
            interval = next(self._intervals)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise
        self.num_written += 1
        return interval


def _runs(lengths: Mapping[str, int], blocks: Iterable[Values]) -> Iterator[tuple[str, int, int, float]]:
    done: set[str] = set()
    current, end = None, 0
    for name, start, values in blocks:
        if name != current:
            if name in done or name not in lengths:
                raise ValueError(f"block of {name!r}: expected a known sequence, its blocks together")
            done.add(name)
            current, end = name, 0
        if not end <= start <= start + len(values) <= lengths[name]:
            raise ValueError(
                f"block [{start}, {start + len(values)}) of {name!r}: expected in [{end}, {lengths[name]})"
            )
        end = start + len(values)
        if np.isinf(values).any():
            raise ValueError(f"an infinite value in block [{start}, {end}) of {name!r}")
        yield from _runs_of_block(name, start, np.asarray(values, dtype=np.float32))


def _runs_of_block(
    name: str, start: int, values: npt.NDArray[np.float32]
) -> Iterator[tuple[str, int, int, float]]:
    if not len(values):
        return
    firsts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    ends = np.append(firsts[1:], len(values))
    known = ~np.isnan(values[firsts])
    columns = (start + firsts[known], start + ends[known], values[firsts[known]])
    # As lists: taking numbers from an array one by one is several times slower.
    yield from zip(repeat(name), *(column.tolist() for column in columns), strict=False)
