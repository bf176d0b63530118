"""Where something is on a sequence: the one place that converts between the formats' ways of counting.

Inside, positions count from 0 and an interval is half-open: [start, end). BED counts the same way. GFF3, GTF,
VCF and GenBank count from 1 and name the last base ("closed"): bases 1 to 3 there are [0, 3) here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Strand = Literal["+", "-", "."]
""""+" as the sequence is written, "-" its reverse complement, "." neither or unknown."""

STRANDS: dict[str, Strand] = {"+": "+", "-": "-", ".": "."}
OPPOSITE: dict[Strand, Strand] = {"+": "-", "-": "+", ".": "."}

_COMPLEMENT = str.maketrans("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", "TGCAANYRSWMKVHDBtgcaanyrswmkvhdb")


@dataclass(frozen=True, slots=True)
class Interval:
    """The bases [start, end) of a sequence, counted from 0 on its "+" strand whatever `strand` is.

    Raises:
        ValueError: a negative start, an end before the start, or a strand that is not "+", "-" or ".".
    """

    sequence: str
    start: int
    end: int
    strand: Strand = "."

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"interval [{self.start}, {self.end}): expected 0 <= start <= end")
        if self.strand not in STRANDS:
            raise ValueError(f'strand {self.strand!r}: expected "+", "-" or "."')

    @classmethod
    def from_closed(cls, sequence: str, first: int, last: int, strand: Strand = ".") -> Interval:
        """Reads coordinates of GFF3, GTF, VCF and GenBank: from 1, both ends named.

        Raises:
            ValueError: unless 1 <= first <= last.
        """
        if not 1 <= first <= last:
            raise ValueError(f"bases {first} to {last}: expected 1 <= first <= last")
        return cls(sequence, first - 1, last, strand)

    @property
    def closed(self) -> tuple[int, int]:
        """First and last base, counted from 1; ValueError for an empty interval, which has neither."""
        if self.start == self.end:
            raise ValueError(f"an empty interval at {self.start} has no first and last base")
        return self.start + 1, self.end

    def __len__(self) -> int:
        return self.end - self.start

    def overlaps(self, other: Interval) -> bool:
        """Whether both are on one sequence and share a base, on whichever strand."""
        return self.sequence == other.sequence and max(self.start, other.start) < min(self.end, other.end)

    def contains(self, other: Interval) -> bool:
        """Whether `other` lies on the same sequence inside this one, on whichever strand."""
        return self.sequence == other.sequence and self.start <= other.start and other.end <= self.end

    def on_other_strand(self, length: int) -> Interval:
        """The same bases counted on the reverse complement of a sequence of `length` bases.

        Raises:
            ValueError: the interval ends behind the sequence.
        """
        if self.end > length:
            raise ValueError(f"interval [{self.start}, {self.end}) on a sequence of {length} bases")
        return Interval(self.sequence, length - self.end, length - self.start, OPPOSITE[self.strand])


def reverse_complement(letters: str) -> str:
    """Returns the other strand of IUPAC nucleotide letters, case kept; the complement of U is A.

    Raises:
        ValueError: a letter that is not an IUPAC nucleotide.
    """
    if wrong := set(letters) - _LETTERS:
        raise ValueError(f"{min(wrong)!r} is not a nucleotide letter")
    return letters.translate(_COMPLEMENT)[::-1]


_LETTERS = frozenset(map(chr, _COMPLEMENT))
