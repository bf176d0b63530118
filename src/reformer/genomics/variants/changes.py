"""What an alternative allele changes, told apart from how a VCF file writes it, on either strand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from reformer.genomics.coordinates import reverse_complement

_BASES = re.compile("[ACGTacgt]+")


@dataclass(frozen=True, slots=True)
class Change:
    """The bases [start, end) of a sequence, counted from 0, become `inserted`; either may be empty."""

    start: int
    end: int
    inserted: str

    @classmethod
    def of(cls, start: int, reference: str, alternative: str) -> Change | None:
        """The change that an allele of VCF makes: what both alleles begin and end with is left out.

        The common end goes first, so that an insertion or deletion in a repeat lies where the repeat begins,
        as in normalised VCF (Tan, Abecasis and Kang, Unified representation of genetic variants,
        Bioinformatics 31(13), 2015), but that an allele may become empty.

        Args:
            start: of REF, counted from 0.
            reference: REF.
            alternative: one of ALT.

        Returns:
            None for an allele that is not made of A, C, G and T: symbolic, "*", a breakend, or unknown bases.
        """
        if not _BASES.fullmatch(alternative):
            return None
        end = start + len(reference)
        old, new = reference.upper(), alternative.upper()
        while old and new and old[-1] == new[-1]:
            old, new, end = old[:-1], new[:-1], end - 1
        while old and new and old[0] == new[0]:
            old, new, start = old[1:], new[1:], start + 1
        return cls(start, end, new)

    def on_other_strand(self, length: int) -> Change:
        """The same change counted on the reverse complement of a sequence of `length` bases."""
        return Change(length - self.end, length - self.start, reverse_complement(self.inserted))


def windows_around(
    changes: Sequence[Change], window: int, length: int
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Windows of a sequence to compare with what each change makes of them.

    A change lies in the middle third of its window, but for the ends of the sequence, and windows begin at
    multiples of a third, so that nearby changes share what a model says of the sequence as it is. The window
    with the change and that without begin at the same base and are equally long. An insertion behind the last
    base of the sequence has none.

    Args:
        changes: in any order.
        window: bases, at least 2.
        length: of the sequence.

    Yields:
        The first base of windows, from left to right, and of each change in them its number and their end.
    """
    step = max(1, window // 3)

    def first_of(number: int) -> int:
        return max(0, (changes[number].start // step - 1) * step)

    order = sorted(range(len(changes)), key=lambda number: changes[number].start)
    for first, group in groupby(order, key=first_of):
        found = []
        for number in group:
            change = changes[number]
            growth = len(change.inserted) - (change.end - change.start)
            end = min(first + window, length, length + growth)
            if change.start < end:
                found.append((number, end))
        yield first, found
