"""bigWig, one value for each base, read and written through pybigtools."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.extras import require
from reformer.training.atomic import atomic_file

_MAGIC, _FIELDS = (0x888FFC26).to_bytes(4, "little"), "4s2H3Q"
"""How a file begins, and the fields that follow: version, zoom levels, where names, data and index are."""
_HEADER = struct.Struct("<" + _FIELDS)

Values = tuple[str, int, npt.NDArray[np.floating]]
"""Name of a sequence, first base (from 0) and values ``[bases]`` of one block."""


class BigWig:
    """A bigWig file to read from.

    Args:
        path: the file; its name ends with .bw or .bigWig.
        lengths: name -> bases of the sequences that it is to be read for.
        genome: what these are of, named in errors.

    Raises:
        UserError: it is missing, damaged, no bigWig, has values of none of the sequences, or has one of
            another length.
    """

    def __init__(self, path: str | os.PathLike[str], lengths: Mapping[str, int], genome: object) -> None:
        pybigtools = require("pybigtools", "to read bigWig")
        self._path, self._errors = Path(path), (pybigtools.BBIReadError, KeyError)
        _check_header(self._path)
        try:
            self._file: Any = pybigtools.open(str(path))
        except (pybigtools.BBIReadError, ValueError) as error:
            raise UserError(f"{path}: expected bigWig (.bw, .bigWig): {_in_a_line(error)}") from error
        self._has = {name: int(bases) for name, bases in self._file.chroms().items()}
        if not self._has.keys() & lengths.keys():
            check_names(self._has, path, lengths, str(genome))
        for name, bases in self._has.items():
            if lengths.get(name, bases) != bases:
                raise UserError(
                    f"{path}: {name!r} has {bases:,} bases, in {genome} {lengths[name]:,}: expected the same"
                )

    def values(self, name: str, start: int, end: int) -> npt.NDArray[np.float32]:
        """The values of bases [start, end) of a sequence, float32, NaN where the file has none.

        Raises:
            UserError: the file is damaged there.
        """
        if name not in self._has:
            return np.full(end - start, np.nan, dtype=np.float32)
        try:
            found = self._file.values(name, start, end, fillna=np.nan)
        except BaseException as error:
            # On damaged data pybigtools panics, having printed what a programmer of it would want to know.
            if not isinstance(error, self._errors) and type(error).__name__ != "PanicException":
                raise
            raise UserError(f"{self._path}: damaged in {name!r}: {_in_a_line(error)}") from None
        return np.asarray(found, dtype=np.float32)


def _check_header(path: Path) -> None:
    """Refuses what is no bigWig, or not whole, of which pybigtools would print lines of its own."""
    try:
        with open(path, "rb") as file:
            header = file.read(_HEADER.size)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if not size:
        raise UserError(f"{path}: empty: expected bigWig")
    order = {_MAGIC: "<", _MAGIC[::-1]: ">"}.get(header[:4])
    if order is None:
        raise UserError(f"{path}: expected bigWig, found something else")
    if len(header) < _HEADER.size or max(struct.unpack(order + _FIELDS, header)[-3:]) >= size:
        raise UserError(f"{path}: truncated: expected more than its {size:,} bytes")


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())


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
