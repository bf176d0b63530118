"""Where motifs match a genome, on both strands.

A genome is read in blocks, each with the bases behind it that a match may reach into, so that memory does
not grow with it. In a block every run of 8 bases is one number, and for each motif and strand a table says
for which of these the whole could still match: one look-up a base. Only where the table says yes is the
whole motif compared. A run with an unknown base has a number of its own, for which all tables say no.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.data.vocabularies import vocabulary
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.formats.motifs import Motif
from reformer.genomics.genome import Genome
from reformer.genomics.motifs.significance import STEP, WeightedMotif, both_strands_composition, weigh
from reformer.genomics.strands import StrandedSequence
from reformer.training.atomic import atomic_file

_BLOCK = 1 << 17  # bases: their numbers stay in a core's cache
_RUN = 8  # bases
_FIRST_ID = vocabulary("nucleotide", "fold")["A"]
_UNKNOWN = 4

Ints = npt.NDArray[np.int64]
OnBases = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Match:
    """A place that fits a motif.

    Attributes:
        interval: with its strand.
        motif: its name.
        score: bits of log-odds, a multiple of 0.001.
        p_value: probability that a random place of the genome, on one strand, has this score or a higher one.
    """

    interval: Interval
    motif: str
    score: float
    p_value: float


def composition(genome: Genome, on_bases: OnBases = lambda number: None) -> npt.NDArray[np.float64]:
    """The probabilities of A, C, G and T over both strands of a genome, float64 ``[4]``.

    Raises:
        UserError: a letter that is no nucleotide, or not one that is A, C, G or T.
    """
    counts = np.zeros(_UNKNOWN + 1, dtype=np.int64)
    for name, length in genome.lengths.items():
        for start in range(0, length, _BLOCK):
            bases = _bases(genome, Interval(name, start, min(start + _BLOCK, length)))
            counts += np.bincount(bases, minlength=len(counts))
            on_bases(len(bases))
    if not counts[:_UNKNOWN].any():
        raise UserError(f"{genome.path}: no A, C, G or T")
    return both_strands_composition(counts[:_UNKNOWN].tolist())


def scan(
    genome: Genome,
    regions: Iterable[Interval],
    motifs: Sequence[Motif],
    threshold: float,
    on_bases: OnBases = lambda number: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Match]:
    """Yields the matches inside each region, sorted by start, end, motif (as given) and strand.

    Args:
        genome: where to look; its composition, all regions or not, is what p-values are under.
        regions: in order and not overlapping (`regions_of`); their strands do not matter.
        motifs: what to look for.
        threshold: the largest p-value of a match.
        on_bases: called with the number of bases that were read since the last call: of the genome, for its
            composition, then of the regions.
        warn: takes a line about a motif that can have no match.

    Raises:
        UserError: the threshold is not above 0 and up to 1, or a letter is no nucleotide.
    """
    if not 0 < threshold <= 1:
        raise UserError(f"--threshold {threshold:g}: expected a p-value above 0 and up to 1")
    probabilities = composition(genome, on_bases)
    weighted = [weigh(motif, probabilities, threshold) for motif in motifs]
    for motif in weighted:
        if motif.limit < 0:
            warn(f"motif {motif.name!r} is so short that chance fits it best more often than {threshold:g}")
    strands: tuple[Strand, ...] = ("+", "-")
    patterns = [
        _Pattern(motif, strand, probabilities) for motif in weighted if motif.limit >= 0 for strand in strands
    ]
    longest = max((len(pattern) for pattern in patterns), default=1)
    for region in regions:
        for start in range(region.start, region.end, _BLOCK):
            num_starts = min(_BLOCK, region.end - start)
            end = min(start + num_starts + longest - 1, region.end)
            block = _Block(_bases(genome, Interval(region.sequence, start, end)), num_starts)
            yield from _matches(block, patterns, region.sequence, start)
            on_bases(num_starts)


def write_matches(path: Path, matches: Iterable[Match]) -> int:
    """Writes matches as they come, whole or not at all; returns their number.

    The columns are BED's six, of which the fifth is the score in bits, and the p-value.
    """
    num_matches = 0
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for one in matches:
            at = one.interval
            place = f"{at.sequence}\t{at.start}\t{at.end}\t{one.motif}"
            file.write(f"{place}\t{one.score:.3f}\t{at.strand}\t{one.p_value:.3g}\n")
            num_matches += 1
    return num_matches


def _bases(genome: Genome, interval: Interval) -> npt.NDArray[np.uint8]:
    """The bases of an interval, 0 to 3 for A, C, G, T and 4 for all others."""
    sequence = StrandedSequence(genome, interval.sequence, "+", "fold")
    return sequence.ids(interval.start, interval.end) - np.uint8(_FIRST_ID)


class _Block:
    """Bases of a genome and the numbers of their runs.

    Args:
        bases: uint8 ``[bases]``.
        num_starts: where matches begin that are this block's; the other bases are for their ends.
    """

    def __init__(self, bases: npt.NDArray[np.uint8], num_starts: int) -> None:
        self.bases, self.num_starts = bases, num_starts
        self.unknown = np.flatnonzero(bases == _UNKNOWN)
        self._joined: dict[int, Ints] = {1: np.minimum(bases, 3).astype(np.int64)}
        self._runs: dict[int, Ints] = {}

    def runs(self, length: int) -> Ints:
        """The number of the run of `length` bases at each place, 4 ** length where one is unknown."""
        if length not in self._runs:
            numbers = self._join(length)
            if len(self.unknown):
                numbers = numbers.copy()
                for before in range(length):
                    at = self.unknown - before
                    numbers[at[(at >= 0) & (at < len(numbers))]] = 4**length
            self._runs[length] = numbers
        return self._runs[length]

    def _join(self, length: int) -> Ints:
        """Of two halves, which are numbers already."""
        if length not in self._joined:
            left, right = length // 2, length - length // 2
            first, second = self._join(left), self._join(right)
            size = max(len(self.bases) - length + 1, 0)
            self._joined[length] = first[:size] * 4**right + second[left : left + size]
        return self._joined[length]


class _Pattern:
    """A motif on one strand, from left to right on "+".

    Attributes:
        motif: see `WeightedMotif`.
        strand: "+" or "-".
    """

    def __init__(self, motif: WeightedMotif, strand: Strand, probabilities: npt.NDArray[np.float64]) -> None:
        self.motif, self.strand = motif, strand
        # Backwards both ways is the reverse complement: the bases are in the order A, C, G, T.
        known = motif.shortfalls if strand == "+" else motif.shortfalls[::-1, ::-1]
        self._shortfalls = np.pad(known, ((0, 0), (0, 1)), constant_values=motif.limit + 1)
        self._run = min(_RUN, len(known))
        # The run that says most, by the shortfall to be expected in it.
        expected = np.convolve(known @ probabilities, np.ones(self._run), mode="valid")
        self._offset = int(expected.argmax())
        totals = np.zeros(1, dtype=np.int64)
        for column in known[self._offset : self._offset + self._run]:
            totals = (totals[:, None] + column).reshape(-1)
        self._may_match = np.append(totals <= motif.limit, False)

    def __len__(self) -> int:
        return len(self._shortfalls)

    def places(self, block: _Block) -> tuple[Ints, Ints]:
        """Where it matches: starts in the block, and shortfalls, both ``[matches]``."""
        starts = np.flatnonzero(self._may_match.take(block.runs(self._run))) - self._offset
        end = min(block.num_starts, len(block.bases) - len(self) + 1)
        starts = starts[(starts >= 0) & (starts < end)]
        totals = np.zeros(len(starts), dtype=np.int64)
        for column, shortfalls in enumerate(self._shortfalls):
            totals += shortfalls.take(block.bases.take(starts + column))
        fits = totals <= self.motif.limit
        return starts[fits], totals[fits]


def _matches(block: _Block, patterns: Sequence[_Pattern], sequence: str, first: int) -> Iterator[Match]:
    """The matches of all patterns, in the order of `scan`."""
    if len(block.unknown) == len(block.bases) or not patterns:
        return
    found = [pattern.places(block) for pattern in patterns]
    which = np.repeat(np.arange(len(patterns)), [len(starts) for starts, _ in found])
    starts, totals = (np.concatenate(columns) for columns in zip(*found, strict=True))
    lengths = np.array([len(pattern) for pattern in patterns])
    for one in np.lexsort((which, lengths[which], starts)).tolist():
        pattern, start, total = patterns[which[one]], first + int(starts[one]), int(totals[one])
        interval = Interval(sequence, start, start + len(pattern), pattern.strand)
        motif = pattern.motif
        yield Match(interval, motif.name, (motif.best - total) * STEP, float(motif.p_values[total]))
