"""What each base of some regions adds to a model's score, from the substitutions of `dna mutagenesis`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.formats.lines import numbered_lines
from reformer.genomics.formats.motifs import BASES
from reformer.genomics.variants.mutagenesis import SCORES_FILE
from reformer.genomics.variants.vcf import read_scores

MARGIN = 64
"""Positions without a base between two stretches, so that no window has bases of both."""

_FIELD = re.compile(r"##(\w+)_provenance=")


@dataclass(frozen=True, eq=False)
class Contributions:
    """Bases that were substituted, all stretches one behind the other with gaps of `MARGIN` around them.

    Attributes:
        effects: float32 ``[positions, 4]``, what A, C, G and T would score there, less the mean of the four;
            0 in gaps.
        bases: int64 ``[positions]``, which of the four is there, -1 in gaps.
        stretches: where each stretch begins, in positions, and what it is of the genome.
    """

    effects: npt.NDArray[np.float32]
    bases: npt.NDArray[np.int64]
    stretches: list[tuple[int, Interval]]

    @property
    def own(self) -> npt.NDArray[np.float32]:
        """What the base that is there adds, float32 ``[positions]``: above 0 where changes lower scores."""
        chosen = np.take_along_axis(self.effects, np.maximum(self.bases, 0)[:, None], axis=1)[:, 0]
        return np.asarray(chosen)

    def interval(self, position: int, length: int, strand: Strand) -> Interval:
        """What bases from a position on are of the genome; they must be of one stretch."""
        number = int(np.searchsorted([first for first, _ in self.stretches], position, side="right")) - 1
        first, stretch = self.stretches[number]
        start = stretch.start + position - first
        return Interval(stretch.sequence, start, start + length, strand)


def read_contributions(folder: Path) -> Contributions:
    """Reads the folder that `dna mutagenesis` makes.

    Raises:
        UserError: it is none, or has no scores.
    """
    file = folder / SCORES_FILE
    if not file.exists():
        raise UserError(f"{folder}: no {SCORES_FILE}: expected a folder that `dna mutagenesis` made")
    names, places, rows, bases = list[str](), list[int](), list[list[float]](), list[int]()
    for variant, values in read_scores(file, _field(file)):
        row = [0.0] * len(BASES)
        for base, value in zip(variant.alternatives, values, strict=True):
            if base not in BASES:
                raise UserError(f"{variant.where}: ALT is {base!r}: expected A, C, G or T")
            row[BASES.index(base)] = value
        if len(variant.alternatives) != 3 or variant.reference not in BASES or np.isnan(row).any():
            raise UserError(f"{variant.where}: expected a base and the scores of its three substitutions")
        names.append(variant.interval.sequence)
        places.append(variant.interval.start)
        rows.append(row)
        bases.append(BASES.index(variant.reference))
    if not rows:
        raise UserError(f"{file}: no substitutions")
    return _laid_out(names, np.array(places), np.array(rows, dtype=np.float32), np.array(bases))


def _field(file: Path) -> str:
    """The first field of the scores, whose name that of the provenance begins with."""
    for _, line in numbered_lines(file):
        if match := _FIELD.match(line):
            return match[1]
        if not line.startswith("##"):
            break
    raise UserError(f"{file}: expected a header that names the scores, as `dna mutagenesis` writes it")


def _laid_out(
    names: list[str],
    places: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    bases: npt.NDArray[np.int64],
) -> Contributions:
    is_first = np.array([True, *(a != b for a, b in pairwise(names))])
    is_first[1:] |= np.diff(places) != 1
    at = np.arange(len(rows)) + MARGIN * np.cumsum(is_first)
    effects = np.zeros((len(rows) + MARGIN * (int(is_first.sum()) + 1), len(BASES)), dtype=np.float32)
    effects[at] = rows - rows.mean(axis=1, keepdims=True)
    there = np.full(len(effects), -1)
    there[at] = bases
    firsts = np.flatnonzero(is_first)
    ends = np.append(firsts[1:], len(rows))
    stretches = [
        (int(at[first]), Interval(names[first], int(places[first]), int(places[end - 1]) + 1))
        for first, end in zip(firsts, ends, strict=True)
    ]
    return Contributions(effects, there, stretches)
