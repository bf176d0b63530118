"""Genes from the probabilities of classes: the best path through a legal gene grammar.

The path goes from left to right through the states "no gene", coding in each of 2 strands x 3 frames, and
intron in each strand by what of a codon the exon before it left over (Viterbi's algorithm). Within a state
the score is a sum, which cumulative sums give at once; a path can change its state only where the letters
allow it: at start and stop codons and splice sites. So the search visits these places alone, about one a
base. What has been read is forgotten but for the states: memory grows with the genes only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.coding_model import CodingModel
from reformer.genomics.annotation.gene_places import (
    CODING,
    INTRON,
    NO_GENE,
    NUM_STATES,
    STRANDS,
    Ints,
    StrandRules,
    add_coding_scores,
    base_codes,
    in_order,
    state_scores,
)
from reformer.genomics.annotation.gene_search import GeneSearch
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.hints import HintModel
from reformer.genomics.annotation.relatives import READINGS, BroughtOver
from reformer.genomics.annotation.signals import SignalModel, Site
from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.formats.features import Phase
from reformer.genomics.genes import Gene, Segment, Transcript, phases

_AROUND = 3  # bases before and after a place that say what it is
_BASES_PER_BLOCK = 1 << 18  # their places take about 50 MiB


@dataclass(frozen=True, slots=True)
class CalledGene:
    """A called gene.

    Attributes:
        strand: "+" or "-".
        exons: coding exons [start, end) from left to right, the stop codon among them.
        score: nats that the gene brings in over no gene there, its costs paid (see `Grammar`).
        phase: of the first exon from the 5' end, not 0 where the start of the gene is missing.
        partial: whether the gene goes on to the left of its exons, and to their right.
        utr: bases of UTR to the left of its exons, and to their right.
    """

    strand: Strand
    exons: tuple[tuple[int, int], ...]
    score: float
    phase: Phase = 0
    partial: tuple[bool, bool] = (False, False)
    utr: tuple[int, int] = (0, 0)

    def gene(self, sequence: str, name: str) -> Gene:
        """The gene as the readers of annotations give it."""
        order = -1 if self.strand == "-" else 1
        coding = self.exons[::order]
        starts = phases([end - start for start, end in coding], self.phase)
        cds = tuple(Segment(*exon, phase) for exon, phase in zip(coding, starts, strict=True))
        whole = Interval(
            sequence, self.exons[0][0] - self.utr[0], self.exons[-1][1] + self.utr[1], self.strand
        )
        edges = [whole.start, *[edge for exon in self.exons for edge in exon][1:-1], whole.end]
        exons = [Interval(sequence, *edge, self.strand) for edge in zip(edges[::2], edges[1::2], strict=True)]
        transcript = Transcript(f"{name}.t1", "mRNA", whole, tuple(exons[::order]), cds)
        return Gene(name, "gene", whole, (transcript,), partial=self.partial)


class GeneDecoder:
    """Finds the genes of one sequence, which it is fed from left to right.

    Every called gene is legal: it begins with a start codon, ends with the only stop codon in its frame, its
    introns go from donor to acceptor and are not too short, and neighbours overlap by no more bases than the
    grammar allows. With `open_ends` genes that the ends of the sequence cut off, in an exon or an intron, are
    called too: they lack the codon that is cut off.

    Args:
        scheme: the classes of the probabilities.
        grammar: the rules.
        coding: codon statistics, whose nats count beside those of the probabilities; None for none.
        signals: of start codons and splice sites, whose nats count too; None for none.
        hints: what relatives say of these and of stop codons; None where there are no relatives.
        open_ends: whether genes may go on beyond the ends of the sequence.
        free_start: whether a gene that goes on beyond the left end costs nothing, for `score`: what its
            start costs lies elsewhere. If not, it costs what one beyond the right end does, as any gene.

    Raises:
        ValueError: coding is not among the classes.
    """

    def __init__(
        self,
        scheme: ClassScheme,
        grammar: Grammar,
        coding: CodingModel | None = None,
        signals: SignalModel | None = None,
        hints: HintModel | None = None,
        *,
        open_ends: bool = False,
        free_start: bool = True,
    ) -> None:
        if "CDS" not in scheme.kinds:
            raise ValueError("genes can be called only where CDS is among the kinds of classes")
        self._scheme, self._coding = scheme, coding
        self._signals, self._hints = signals, hints
        self._evidence, self._intron_evidence = grammar.evidence, grammar.intron_evidence
        self._context = 0 if coding is None else coding.order
        self._ahead = _AROUND + max(0 if sites is None else sites.reach for sites in (signals, hints))
        self._rules = [StrandRules(grammar, strand) for strand in range(len(STRANDS))]
        self._search = GeneSearch(self._rules, grammar, open_start=open_ends, free_start=free_start)
        self._open_ends = open_ends
        shares = np.array(grammar.class_shares)[None]
        self._prior = state_scores(scheme, shares, 0)[0] if grammar.class_shares else np.zeros(NUM_STATES)
        self._costs = grammar.coding_base_cost, grammar.intron_base_cost
        self._codes = base_codes(b"")  # of the bases that are kept; `_sums` has one row more
        self._sums = np.zeros((1, NUM_STATES))
        nothing = np.zeros((0, len(READINGS)), dtype=np.uint8)
        self._brought_over = BroughtOver(nothing, nothing)  # of these bases and of those that wait
        self._first = 0  # position of the first base that is kept
        self._next = 0  # the first place that has not been visited
        # What waits for the bases to its right, the context of genes on "-".
        self._waiting = b"", np.zeros((0, len(scheme.names)), dtype=np.float32)

    def feed(
        self,
        letters: bytes,
        probabilities: npt.NDArray[np.floating],
        brought_over: BroughtOver | None = None,
    ) -> None:
        """Takes the next bases.

        Args:
            letters: ASCII.
            probabilities: ``[bases, classes]``.
            brought_over: what relatives say of the bases, for hints.
        """
        if len(letters) != len(probabilities):
            raise ValueError(f"{len(letters)} letters with probabilities of {len(probabilities)} bases")
        if self._hints is not None:
            if brought_over is None or len(brought_over.classes) != len(letters):
                raise ValueError(f"{len(letters)} letters without what relatives say of each: hints need it")
            self._brought_over = BroughtOver.joined([self._brought_over, brought_over])
        waiting, rows = self._waiting
        letters, probabilities = waiting + letters, np.concatenate([rows, probabilities])
        ready = max(len(letters) - self._context, 0)
        for start in range(0, ready, _BASES_PER_BLOCK):
            self._take(letters, probabilities, start, min(start + _BASES_PER_BLOCK, ready))
        self._waiting = letters[ready:], probabilities[ready:].copy()

    def finish(self) -> list[CalledGene]:
        """Ends the sequence; its genes from left to right."""
        self._end()
        genes = [
            CalledGene(STRANDS[gene.strand], gene.exons, gene.gain, cast(Phase, gene.phase), gene.partial)
            for gene in self._search.genes()
        ]
        return genes[::-1]

    def score(self) -> float:
        """Ends the sequence; nats by which its best path is likelier than no gene."""
        return self._end()

    def _end(self) -> float:
        self._take(*self._waiting, 0, len(self._waiting[0]))
        end = self._first + len(self._codes)
        self._visit(end + 1)
        return self._search.end_open(end, self._sums[-1].tolist()) if self._open_ends else self._search.score

    def _take(self, letters: bytes, probabilities: npt.NDArray[np.floating], start: int, end: int) -> None:
        """Adds up the scores of the bases [start, end), of which those around are known."""
        codes, first = base_codes(letters[start:end]), self._first + len(self._codes)
        scores = state_scores(self._scheme, probabilities[start:end], first) - self._prior
        beyond = np.maximum(scores[:, INTRON:] - scores[:, [NO_GENE]], 0)
        scores[:, INTRON:] -= (1 - self._intron_evidence) * beyond
        scores *= self._evidence
        scores[:, CODING:INTRON] -= self._costs[0]
        scores[:, INTRON:] -= self._costs[1]
        if self._coding is not None:
            left = self._codes[len(self._codes) - min(self._context, len(self._codes)) :]
            right = base_codes(letters[end : end + self._context])
            nats = self._coding.by_place(np.concatenate([left, codes, right]))
            add_coding_scores(scores, nats[len(left) : len(left) + len(codes)], first)
        self._codes = np.concatenate([self._codes, codes])
        self._sums = np.concatenate([self._sums, self._sums[-1] + np.cumsum(scores, axis=0)])
        self._visit(self._first + len(self._codes) - self._ahead)

    def _visit(self, end: int) -> None:
        """Visits the places before `end` and forgets what later ones do not need."""
        if end <= self._next:
            return
        kept = self._codes, self._sums, self._first
        places = [
            place
            for strand, rules in enumerate(self._rules)
            for place in rules.places(*kept, partial(self._score_sites, strand))
        ]
        if places:
            self._search.visit(in_order(places, self._next, end))
        self._next = end
        forgotten = max(end - max(self._ahead, self._context) - self._first, 0)
        self._codes, self._sums = self._codes[forgotten:], self._sums[forgotten:]
        self._brought_over = self._brought_over[forgotten:]
        self._first += forgotten

    def _score_sites(self, strand: int, site: Site, at: Ints) -> npt.NDArray[np.floating]:
        """Nats of places among the bases that are kept."""
        nats: npt.NDArray[np.floating] = np.zeros(len(at))
        if self._signals is not None:
            nats = nats + self._signals.scores(site, self._codes, at, strand)
        if self._hints is not None:
            nats = nats + self._hints.scores(site, self._brought_over[: len(self._codes)], at, strand)
        return nats
