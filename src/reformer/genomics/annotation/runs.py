"""RNA genes, UTR and the user's features from runs of bases whose likeliest class they are.

The rules: up to ten bases of other classes do not end a run. A run counts if it is half as long as 99 % of
the training annotation's are, and ten bases at least. What called exons code is taken out of it where CDS
comes first among the kinds. A run of UTR belongs to a called gene of its strand that it reaches, ten bases
more or less, as far as the next gene; one between two genes that reaches both is shared in the middle.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme, labelled_transcripts, without
from reformer.genomics.annotation.gene_calls import CalledGene
from reformer.genomics.coordinates import STRANDS, Interval, Strand
from reformer.genomics.formats.features import Feature
from reformer.genomics.genes import Gene, Transcript, utrs

_LONGEST_GAP = 10
_RARE = 0.01


@dataclass(frozen=True, slots=True)
class Run:
    """A run of bases of one class.

    Attributes:
        kind: of the class.
        strand: of the class, "." where it has none.
        start: its first base.
        end: the base after its last one.
        probability: the mean of its class over the bases whose likeliest one it is.
    """

    kind: str
    strand: Strand
    start: int
    end: int
    probability: float

    def rna_gene(self, sequence: str, name: str, scheme: ClassScheme) -> Gene:
        """The gene: `ncRNA_gene`, of the only type of RNA that the scheme knows, else of their common one."""
        whole = Interval(sequence, self.start, self.end, self.strand)
        kind = scheme.rna_types[0] if len(scheme.rna_types) == 1 else "ncRNA"
        return Gene(name, "ncRNA_gene", whole, (Transcript(f"{name}.t1", kind, whole, (whole,)),))

    def feature(self, sequence: str, name: str, scheme: ClassScheme) -> Feature:
        """The feature, of the first type of its class."""
        interval = Interval(sequence, self.start, self.end, self.strand)
        kind = scheme.features[self.kind][0]
        return Feature(interval, kind, "reformer", round(self.probability, 4), None, {"ID": (name,)})


def shortest_runs(scheme: ClassScheme, genes: Iterable[Gene], features: Sequence[Feature]) -> dict[str, int]:
    """The fewest bases of a run by kind, of those kinds that runs are called of and the annotation has."""
    lengths: dict[str, list[int]] = {kind: [] for kind in scheme.kinds}
    for transcript in labelled_transcripts(genes):
        if "RNA" in lengths and transcript.type in scheme.rna_types:
            lengths["RNA"] += map(len, transcript.exons)
        if "UTR" in lengths:
            lengths["UTR"] += (len(piece) for _, piece in utrs(transcript))
    for kind, types in scheme.features.items():
        lengths[kind] += (len(one.interval) for one in features if one.type in types)
    return {
        kind: max(sorted(found)[int(_RARE * len(found))] // 2, _LONGEST_GAP)
        for kind, found in lengths.items()
        if found
    }


class RunFinder:
    """Finds the runs of one sequence, which it is fed from left to right.

    Args:
        scheme: the classes of the probabilities.
        fewest: bases of a run, by kind; other kinds have no runs.
    """

    def __init__(self, scheme: ClassScheme, fewest: Mapping[str, int]) -> None:
        self._fewest = fewest
        self._classes = {
            number: (kind, STRANDS[name[len(kind) :] or "."])
            for number, (name, kind) in enumerate(zip(scheme.names, scheme.kind_of, strict=True))
            if kind in fewest
        }
        # Per class: start and end of its last run, bases of the class in it, and their probabilities' sum.
        self._open: dict[int, tuple[int, int, int, float]] = {}
        self._found: list[Run] = []
        self._next = 0

    def feed(self, probabilities: npt.NDArray[np.floating]) -> None:
        """Takes the probabilities ``[bases, classes]`` of the next bases."""
        if self._classes and len(probabilities):
            likeliest = probabilities.argmax(axis=1)
            starts = np.flatnonzero(np.append(True, likeliest[1:] != likeliest[:-1]))
            ends = np.append(starts[1:], len(likeliest))
            chosen = np.isin(likeliest[starts], list(self._classes))
            for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True):
                number = int(likeliest[start])
                total = float(probabilities[start:end, number].sum(dtype=np.float64))
                self._add(number, self._next + start, self._next + end, total)
        self._next += len(probabilities)

    def finish(self) -> list[Run]:
        """Ends the sequence; its runs from left to right."""
        for number in list(self._open):
            self._close(number)
        return sorted(self._found, key=lambda run: (run.start, run.end))

    def _add(self, number: int, start: int, end: int, total: float) -> None:
        first, size = start, end - start
        if number in self._open:
            first, last, bases, sum_before = self._open[number]
            if start - last > _LONGEST_GAP:
                self._close(number)
                first = start
            else:
                size, total = size + bases, total + sum_before
        self._open[number] = first, end, size, total

    def _close(self, number: int) -> None:
        start, end, bases, total = self._open.pop(number)
        kind, strand = self._classes[number]
        if end - start >= self._fewest[kind]:
            self._found.append(Run(kind, strand, start, end, total / bases))


def beside_exons(
    runs: Sequence[Run], genes: Sequence[CalledGene], scheme: ClassScheme, fewest: Mapping[str, int]
) -> Iterator[Run]:
    """Yields what called exons leave of runs of RNA genes and features, where it is long enough."""
    exons = sorted(exon for gene in genes for exon in gene.exons)
    ends = np.maximum.accumulate([end for _, end in exons]).tolist() if exons else []
    rank = {kind: number for number, kind in enumerate(scheme.kinds)}
    for run in runs:
        if run.kind == "UTR":
            continue
        coding = []
        if "CDS" in rank and rank["CDS"] < rank[run.kind]:
            coding = exons[bisect_left(ends, run.start + 1) : bisect_left(exons, (run.end, 0))]
        for start, end in without([(run.start, run.end)], coding):
            if end - start >= fewest[run.kind]:
                yield replace(run, start=start, end=end)


def with_utrs(genes: Sequence[CalledGene], runs: Sequence[Run]) -> list[CalledGene]:
    """Called genes, from left to right, with their UTR."""
    utr: dict[Strand, list[Run]] = {"+": [], "-": []}
    for run in runs:
        if run.kind == "UTR":
            utr[run.strand].append(run)
    starts = {strand: [run.start for run in found] for strand, found in utr.items()}
    ends = {strand: [run.end for run in found] for strand, found in utr.items()}
    # Left and right end of each gene with UTR, as far as the neighbours' exons allow.
    reach = [[gene.exons[0][0], gene.exons[-1][1]] for gene in genes]
    for i, gene in enumerate(genes):
        found, (left, right) = utr[gene.strand], (gene.exons[0][0], gene.exons[-1][1])
        at = bisect_left(ends[gene.strand], left - _LONGEST_GAP)
        if at < len(found) and found[at].start < left and not gene.partial[0]:
            before = genes[i - 1].exons[-1][1] if i else 0
            reach[i][0] = min(max(found[at].start, before), left)
        at = bisect_left(starts[gene.strand], right + _LONGEST_GAP + 1) - 1
        if at >= 0 and found[at].end > right and not gene.partial[1]:
            after = genes[i + 1].exons[0][0] if i + 1 < len(genes) else found[at].end
            reach[i][1] = max(min(found[at].end, after), right)
    for one, other, gene, follower in zip(reach, reach[1:], genes, genes[1:], strict=False):
        if one[1] > other[0] and gene.exons[-1][1] <= follower.exons[0][0]:
            one[1] = other[0] = (one[1] + other[0]) // 2
    return [
        replace(gene, utr=(gene.exons[0][0] - left, right - gene.exons[-1][1]))
        for gene, (left, right) in zip(genes, reach, strict=True)
    ]
