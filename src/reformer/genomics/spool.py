"""Values on their way from a model, base by base, to files that have them row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

_BLOCK = 1 << 20


class Spool:
    """A file of rows, one value a base in each.

    Args:
        path: the file, made at the first `write`.
        num_bases: of a row.
        dtype: of the values.
    """

    def __init__(self, path: Path, num_bases: int, dtype: npt.DTypeLike) -> None:
        self._path, self._num_bases, self._dtype = path, num_bases, np.dtype(dtype)

    def write(self, start: int, values: npt.NDArray[Any]) -> None:
        """Takes values ``[bases, rows]`` of the bases from `start` on."""
        with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
            for number, row in enumerate(values.T.astype(self._dtype)):
                file.seek((number * self._num_bases + start) * self._dtype.itemsize)
                file.write(row.tobytes())

    def blocks(self, row: int, array: TokenArray) -> Iterator[tuple[str, int, npt.NDArray[Any]]]:
        """Yields a row in pieces: the record's name, the first base in it, and values ``[bases]``."""
        with open(self._path, "rb") as file:
            for record in array.records:
                for start in range(0, record.length, _BLOCK):
                    length = min(_BLOCK, record.length - start)
                    file.seek((row * self._num_bases + record.start + start) * self._dtype.itemsize)
                    values = np.frombuffer(file.read(length * self._dtype.itemsize), dtype=self._dtype)
                    yield record.name, start, values

    def remove(self) -> None:
        """Removes the file, if it is there."""
        self._path.unlink(missing_ok=True)
