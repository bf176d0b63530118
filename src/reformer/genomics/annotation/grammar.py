"""What a gene must look like to be called: start and stop codons, splice sites, and how rare genes are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from reformer.genomics.annotation.classes import labelled_transcripts
from reformer.genomics.annotation.lengths import intron_lengths
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene, Transcript, spliced

_RARE = 0.01
_FEWEST_BASES_OF_INTRON = 20
_FEWEST_BASES_OF_GENE = 3
_EVIDENCE, _EVIDENCE_OF_A_GENE = 0.0125, 20.0
_CAUTION = 2.0
"""Nats of an intron beyond how rare they are: statistics of neighbouring bases are less sure than their sum.

Without it the codon statistics and signals of two yeasts call 16 introns in their own sequences, with it 12,
of 5; those of two flies 1289 and 1186, of 1099.
"""
_FEW_INTRONS = 50
_PLACES_OF_A_PAIR = 16
"""A pair of bases, as those that introns begin and end with, stands at about one of so many places."""

_OTHER_SPLICES = ("GC-AG", "AT-AC")
"""The ends of introns that are not GT-AG and yet are spliced: all else is most often a mistake."""


@dataclass(frozen=True)
class Grammar:
    """The rules that called genes obey; by default those of eukaryotes under the standard genetic code.

    Attributes:
        starts: codons that a coding sequence may begin with.
        stops: codons that end it, and stand nowhere else in frame.
        donor: what an intron begins with; None where genes have no introns.
        acceptor: what an intron ends with.
        other_splices: further ends of introns, "GC-AG" and "AT-AC"; none where genes have no introns.
        min_intron: fewest bases of an intron.
        min_gene: fewest bases of a gene; counts only where genes have no introns.
        max_overlap: bases that neighbouring genes may share, on whichever strands.
        gene_cost: nats that a gene must bring in over no gene: minus the log of how often one begins.
        intron_cost: nats of an intron.
        coding_base_cost: nats of a base of an exon, which may end there, beside one in no gene.
        intron_base_cost: likewise of an intron: long ones are rare.
        intron_lengths: nats that introns of 0, 1, 2... bases bring in beyond what these costs say.
        class_shares: how common each class is, by which its probability is divided: the costs say it already.
            Those of the scheme, in its order; none to leave probabilities as they are.
        evidence: what the log of that ratio counts beside these costs, 0 to 1. A model says the same of
            neighbouring bases for the same reasons, and their plain sum would count these many times over.
            The default was chosen with models of yeasts and is 20 bases' worth in a gene of theirs; where
            genes are longer, by their introns, `of` lets them have no more.
        intron_evidence: how far a model is believed that what does not code is an intron rather than in no
            gene, 0 to 1; that it is none is believed in any case. One that has seen few introns takes for
            them what it merely cannot place. `of` lets it grow with their number, to one half for 50.
    """

    starts: tuple[str, ...] = ("ATG",)
    stops: tuple[str, ...] = ("TAA", "TAG", "TGA")
    donor: str | None = "GT"
    acceptor: str = "AG"
    other_splices: tuple[str, ...] = ()
    min_intron: int = 40
    min_gene: int = 3
    max_overlap: int = 0
    gene_cost: float = 7.0
    intron_cost: float = 9.0
    coding_base_cost: float = 0.0
    intron_base_cost: float = 0.0
    intron_lengths: tuple[float, ...] = ()
    class_shares: tuple[float, ...] = ()
    evidence: float = _EVIDENCE
    intron_evidence: float = 1.0

    def __post_init__(self) -> None:
        for field in ("starts", "stops", "other_splices", "intron_lengths", "class_shares"):
            object.__setattr__(self, field, tuple(getattr(self, field)))

    @property
    def splices(self) -> tuple[tuple[str, str], ...]:
        """What introns begin and end with, (donor, acceptor); none where genes have no introns."""
        if self.donor is None:
            return ()
        others = (pair.split("-") for pair in self.other_splices)
        return ((self.donor, self.acceptor), *((donor, acceptor) for donor, acceptor in others))

    @classmethod
    def of(cls, genes: Iterable[Gene], letters: Callable[[Interval], str], num_bases: int) -> Grammar:
        """Finds the rules of an annotation.

        Start and stop codons are those of more than 1 % of the genes whose coding sequence is whole codons.
        Introns may be half as long as the shortest one, for the annotation may have few; gaps of a few bases
        are shifts of the frame. They go from GT to AG, and from GC to AG or AT to AC where more than 1 % of
        the annotation's do, and more than one. Where genes have no introns, they are as long as 99 % of the
        annotation's, and may overlap as far as 99 % of those do that overlap. Costs are minus the logs of
        how often genes, introns and exons end, that of an intron a little more (`_CAUTION`); introns are as
        long as the annotation's, see `.lengths`.

        Args:
            genes: the annotation's.
            letters: gives the letters of an interval, as `Genome.letters` does.
            num_bases: bases of the genome.

        Raises:
            ValueError: no gene codes for anything.
        """
        coding = [transcript for transcript in labelled_transcripts(genes) if transcript.cds]
        ends = [end for transcript in coding if (end := _first_and_last_codon(transcript, letters))]
        if not ends:
            raise ValueError("no gene with a coding sequence of whole codons")
        gaps = [gap for transcript in coding for gap in _introns(transcript)]
        introns = [len(gap) for gap in gaps]
        sizes = sorted(sum(segment.end - segment.start for segment in t.cds) for t in coding)
        num_coding = sum(sizes)
        between = max(num_bases - num_coding - sum(introns), len(coding)) / len(coding)
        found = cls(
            starts=_frequent(start for start, _ in ends),
            stops=_frequent(stop for _, stop in ends),
            donor="GT" if introns else None,
            other_splices=_other_splices(gaps, letters),
            min_intron=max(min(introns, default=0) // 2, _FEWEST_BASES_OF_INTRON),
            min_gene=_FEWEST_BASES_OF_GENE if introns else sizes[int(_RARE * len(sizes))],
            max_overlap=0 if introns else _usual_overlap(coding),
            gene_cost=math.log(max(num_bases - num_coding, len(coding)) / len(coding)),
            coding_base_cost=len(introns) / num_coding - 1 / between,
            evidence=min(
                _EVIDENCE, _EVIDENCE_OF_A_GENE * len(coding) / sum(b - a for a, b in map(_span, coding))
            ),
        )
        if not introns:
            return found
        lengths = intron_lengths(introns)
        places = [_PLACES_OF_A_PAIR / len(set(ends)) for ends in zip(*found.splices, strict=True)]
        return replace(
            found,
            intron_cost=math.log(num_coding / len(introns))
            - sum(map(math.log, places))
            + lengths.cost
            + _CAUTION,
            intron_base_cost=1 / lengths.mean - 1 / between,
            intron_lengths=lengths.gains,
            intron_evidence=len(introns) / (len(introns) + _FEW_INTRONS),
        )

    def to_json(self) -> dict[str, Any]:
        """The rules as JSON values, from which ``Grammar(**values)`` makes them again."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _first_and_last_codon(
    transcript: Transcript, letters: Callable[[Interval], str]
) -> tuple[str, str] | None:
    strand = transcript.strand
    span = transcript.interval
    whole = letters(Interval(span.sequence, span.start, span.end)).upper()
    pieces = [Interval(span.sequence, s.start - span.start, s.end - span.start) for s in transcript.cds]
    coding = spliced(whole, pieces, strand)
    return None if len(coding) % 3 or len(coding) < 6 else (coding[:3], coding[-3:])


def _introns(transcript: Transcript) -> list[Interval]:
    """What lies between coding segments, but for shifts of the frame."""
    spans = [
        (min(a.end, b.end), max(a.start, b.start))
        for a, b in zip(transcript.cds, transcript.cds[1:], strict=False)
    ]
    sequence, strand = transcript.interval.sequence, transcript.strand
    return [Interval(sequence, a, b, strand) for a, b in spans if b - a >= _FEWEST_BASES_OF_INTRON]


def _other_splices(introns: list[Interval], letters: Callable[[Interval], str]) -> tuple[str, ...]:
    ends = Counter(f"{text[:2]}-{text[-2:]}" for text in (letters(intron).upper() for intron in introns))
    return tuple(pair for pair in _OTHER_SPLICES if ends[pair] > max(1, _RARE * len(introns)))


def _usual_overlap(coding: list[Transcript]) -> int:
    """Bases that neighbours share at most, but for 1 % of those that do; 0 where hardly any do."""
    spans = sorted((t.interval.sequence, *_span(t)) for t in coding)
    shared = [a[2] - b[1] for a, b in pairwise(spans) if a[0] == b[0] and b[1] < a[2] < b[2]]
    return int(sorted(shared)[int((1 - _RARE) * len(shared))]) if len(shared) > _RARE * len(coding) else 0


def _span(transcript: Transcript) -> tuple[int, int]:
    return min(s.start for s in transcript.cds), max(s.end for s in transcript.cds)


def _frequent(codons: Iterable[str]) -> tuple[str, ...]:
    counts = Counter(codon for codon in codons if set(codon) <= set("ACGT"))
    return tuple(sorted(codon for codon, count in counts.items() if count > _RARE * counts.total()))
