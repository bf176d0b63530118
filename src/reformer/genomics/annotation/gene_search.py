"""The best path through the gene grammar, from place to place (Viterbi)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeAlias

from reformer.genomics.annotation.gene_places import (
    CODING,
    INTRON,
    NO_GENE,
    Change,
    Places,
    StrandRules,
)
from reformer.genomics.annotation.grammar import Grammar

_EXON, _INTRON, _BEGIN = int(Change.EXON), int(Change.INTRON), int(Change.BEGIN)
_SAVE, _RESTART, _STOP = int(Change.SAVE), int(Change.RESTART), int(Change.STOP)
_NEVER = float("-inf")
_FEWEST_BASES_OF_EXON = 3
_BASES_OF_STOP = 3

Exons: TypeAlias = tuple[int, int, int, Any] | None
"""Start, end and coding state of an exon, and the exons to the left of it."""

_BEYOND: Exons = (0, 0, 0, None)
"""Stands for the exons that lie to the left of the sequence."""


class Found(NamedTuple):
    """A path up to the end of a gene: score, gene, path before it, whether the sequence cuts it off."""

    score: float
    strand: int
    exons: Exons
    before: Found | None
    is_cut: bool = False


class FoundGene(NamedTuple):
    """A gene of the best path.

    Attributes:
        gain: nats.
        strand: 0 "+", 1 "-".
        exons: from left to right, [start, end).
        phase: bases of the first exon, from its 5' end, before its first codon.
        partial: whether the gene goes on beyond the sequence's left end, and beyond its right end.
    """

    gain: float
    strand: int
    exons: tuple[tuple[int, int], ...]
    phase: int
    partial: tuple[bool, bool]


class Coding(NamedTuple):
    """A path in a coding state: score, start of its exon, the exons before, the path before the gene."""

    score: float
    start: int
    exons: Exons
    before: Found


class Intron(NamedTuple):
    """A path in an intron: score, the exons before, the path before the gene."""

    score: float
    exons: Exons
    before: Found


_START = Found(0.0, 0, None, None)
_NOWHERE = Coding(_NEVER, 0, None, _START)
_score, _start_of = attrgetter("score"), attrgetter("start")


class GeneSearch:
    """Visits places from left to right and keeps the best path into each state.

    Args:
        rules: of both strands.
        grammar: what they come from.
        open_start: whether the first base may lie inside a gene.
        free_start: whether this gene costs nothing, rather than what one beyond the last base does.
    """

    def __init__(
        self,
        rules: list[StrandRules],
        grammar: Grammar,
        *,
        open_start: bool = False,
        free_start: bool = True,
    ) -> None:
        self._min_intron, self._max_overlap = grammar.min_intron, grammar.max_overlap
        self._lengths = grammar.intron_lengths
        self._longest = max(len(self._lengths), self._min_intron)
        self._fewest = (
            _FEWEST_BASES_OF_EXON if grammar.donor else max(grammar.min_gene, _FEWEST_BASES_OF_EXON)
        )
        # Per coding state: start of genes that may still overlap one, and what is added to the score there.
        self._starts: list[deque[tuple[int, float]]] = [deque() for _ in range(6)]
        self._goes_on = [strand.goes_on for strand in rules]
        self._best = _START
        at_start = _NEVER if not open_start else 0.0 if free_start else -grammar.gene_cost
        in_intron = at_start if free_start else at_start - grammar.intron_cost
        # Per coding state: its best path, whose exon is long enough, and paths with younger exons.
        self._coding = [_NOWHERE._replace(score=at_start, start=-self._fewest)] * 6
        self._begun: list[deque[Coding]] = [deque() for _ in range(6)]
        self._saved: list[tuple[float, Found, int]] = [(_NEVER, self._best, 0)] * 6
        # Per strand: introns whose length counts as yet; per group the best of the longer ones, and of all
        # that may end at the position.
        self._young: list[deque[tuple[int, int, Intron]]] = [deque(), deque()]
        self._ready: list[tuple[int, list[Intron]]] = [(-1, []), (-1, [])]
        self._introns = [[Intron(in_intron, _BEYOND, self._best)] * strand.num_groups for strand in rules]

    def visit(self, places: Places) -> None:
        """Takes the next places."""
        begun, best = self._begun, self._best
        columns = zip(*(column.tolist() for column in places), strict=True)
        for position, change, state, key, delta in columns:
            if change == _EXON:
                self._begin_exon(position, state, key, delta)
                continue
            if begun[state]:
                self._grow_up(state, position)
            score, start, exons, before = self._coding[state]
            if change == _INTRON:
                if score > _NEVER:
                    intron = Intron(score + delta, (start, position, state, exons), before)
                    self._young[state // 3].append((position, key, intron))
            elif change == _BEGIN:
                begun[state].append(Coding(best.score + delta, position, None, best))
                if self._max_overlap:
                    self._starts[state].append((position, delta))
            elif change == _SAVE:
                self._saved[state] = (best.score + delta, best, position)
            elif change == _RESTART:
                saved, path, _ = self._saved[state]
                self._coding[state] = Coding(saved, position - _BASES_OF_STOP, None, path)
                self._drop(state, position)
                if self._max_overlap:
                    self._starts[state] = deque([(position - _BASES_OF_STOP, saved - path.score)])
            else:
                if change == _STOP:
                    self._coding[state] = _NOWHERE
                    self._starts[state].clear()
                    self._drop(state, position)
                score = score + delta if position - start >= self._fewest else _NEVER
                if score > best.score or (self._max_overlap and score > _NEVER):
                    found = Found(score, state // 3, (start, position, state, exons), before)
                    if self._max_overlap:
                        self._overlap(found, start, position)
                    if score > best.score:
                        self._best = best = found

    @property
    def score(self) -> float:
        """Nats of the best path that ends in no gene, over no gene."""
        return self._best.score

    def genes(self) -> Iterator[FoundGene]:
        """Yields the genes of the best path from right to left, those of which an exon is in the sequence."""
        found = self._best
        while found.before is not None:
            pieces, rest = [], found.exons
            while rest is not None and rest is not _BEYOND:
                start, end, state, before = rest
                pieces.append((start, end, state % 3))
                rest = before
            if pieces:
                exons = tuple((max(start, 0), end) for start, end, _ in pieces[::-1])
                _, end, anchor = pieces[0]
                phase = (end - anchor if found.strand else pieces[-1][2] - exons[0][0]) % 3
                partial = rest is _BEYOND or pieces[-1][0] < 0, found.is_cut
                yield FoundGene(found.score - found.before.score, found.strand, exons, phase, partial)
            found = found.before

    def end_open(self, end: int, sums: Sequence[float]) -> float:
        """Lets the path end inside a gene; its score over no gene.

        Args:
            end: of the sequence.
            sums: of each state's scores over all bases, `NUM_STATES` nats.
        """
        paths = [(self._best.score + sums[NO_GENE], self._best)]
        for state, (long_enough, begun) in enumerate(zip(self._coding, self._begun, strict=True)):
            for path in (long_enough, *begun):
                exons = path.start, end, state, path.exons
                score = path.score + sums[CODING + state]
                paths.append((score, Found(score - sums[NO_GENE], state // 3, exons, path.before, True)))
        for strand, (young, introns) in enumerate(zip(self._young, self._introns, strict=True)):
            for intron in (*introns, *(path for *_, path in young)):
                score = intron.score + sums[INTRON + strand]
                found = Found(score - sums[NO_GENE], strand, intron.exons, intron.before, True)
                paths.append((score, found))
        score, self._best = max(paths, key=itemgetter(0))
        return score - sums[NO_GENE]

    def _begin_exon(self, position: int, state: int, way: int, delta: float) -> None:
        strand = state // 3
        introns = self._introns_at(strand, position)
        best = max((introns[group] for group in self._goes_on[strand][way]), key=_score, default=None)
        if best is not None and best.score > _NEVER:
            self._begun[state].append(Coding(best.score + delta, position, best.exons, best.before))

    def _introns_at(self, strand: int, position: int) -> list[Intron]:
        """Per group the best intron that may end at `position`, what its length brings in among its score."""
        last, ready = self._ready[strand]
        if last == position:
            return ready
        young, long = self._young[strand], self._introns[strand]
        while young and young[0][0] <= position - self._longest:
            _, group, intron = young.popleft()
            if intron.score > long[group].score:
                long[group] = intron
        ready = long.copy()
        for start, group, intron in young:
            length = position - start
            if length < self._min_intron:
                break
            score = intron.score + (self._lengths[length] if self._lengths else 0.0)
            if score > ready[group].score:
                ready[group] = intron._replace(score=score)
        self._ready[strand] = position, ready
        return ready

    def _overlap(self, found: Found, start: int, end: int) -> None:
        """Lets genes that began inside a gene [start, end), not far from its end, follow it."""
        first = max(end - self._max_overlap, start + 1)
        for state, (score, path, position) in enumerate(self._saved):
            if first <= position < end <= position + _BASES_OF_STOP:
                with_overlap = found.score + (score - path.score)
                if with_overlap > score:
                    self._saved[state] = (with_overlap, found, position)
        for state, starts in enumerate(self._starts):
            while starts and starts[0][0] < end - self._max_overlap:
                starts.popleft()
            for position, delta in starts:
                if position < first:
                    continue  # at or before the gene's own start
                after = Coding(found.score + delta, position, None, found)
                if position > end - self._fewest:
                    self._begun[state] = deque(sorted([*self._begun[state], after], key=_start_of))
                elif after.score > self._coding[state].score:
                    self._coding[state] = after

    def _grow_up(self, state: int, position: int) -> None:
        """Lets paths whose exon is long enough at `position` compete with the best path of the state.

        Younger ones do not: what ends or leaves the state there would cut a codon of theirs.
        """
        begun = self._begun[state]
        while begun and begun[0].start <= position - self._fewest:
            path = begun.popleft()
            if path.score > self._coding[state].score:
                self._coding[state] = path

    def _drop(self, state: int, position: int) -> None:
        """Forgets paths that are too short as yet and that a stop codon ends at `position`."""
        begun = self._begun[state]
        while begun and begun[0].start <= position - _BASES_OF_STOP:
            begun.popleft()
