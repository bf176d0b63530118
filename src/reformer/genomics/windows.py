"""Windows over a sequence that is too long for one pass of a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Windows:
    """How a record is cut: `length` bases at a time, of which `overlap` on each inner side are dropped.

    Raises:
        ValueError: no base would be left.
    """

    length: int = 3 << 19  # the longest chromosome of S. cerevisiae has 1,531,933 bases
    overlap: int = 1 << 14

    def __post_init__(self) -> None:
        if not 0 <= 2 * self.overlap < self.length:
            raise ValueError(
                f"window {self.length:,} with overlap {self.overlap:,}: expected more than twice the overlap"
            )

    def of(self, length: int) -> Iterator[tuple[int, int, slice]]:
        """Yields start and end of each window of a record, and the part of it that counts."""
        start = 0
        while True:
            end = min(start + self.length, length)
            left = self.overlap if start else 0
            right = self.overlap if end < length else 0
            yield start, end, slice(left, end - start - right)
            if end == length:
                return
            start = end - 2 * self.overlap
