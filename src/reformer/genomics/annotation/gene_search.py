"""The best path through the gene grammar, from place to place (Viterbi)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from operator import attrgetter
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

Exons: TypeAlias = tuple[int, int, Any] | None
"""Start and end of an exon, and the exons to the left of it."""


class Found(NamedTuple):
    """A path up to the end of a gene: its score, the gene, and the path before the gene."""

    score: float
    strand: int
    exons: Exons
    before: Found | None


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
        open_start: whether the first base may lie inside a gene, which then costs nothing.
    """

    def __init__(self, rules: list[StrandRules], grammar: Grammar, *, open_start: bool = False) -> None:
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
        at_start = 0.0 if open_start else _NEVER
        # Per coding state: its best path, whose exon is long enough, and paths with younger exons.
        self._coding = [_NOWHERE._replace(score=at_start, start=-self._fewest)] * 6
        self._begun: list[deque[Coding]] = [deque() for _ in range(6)]
        self._saved: list[tuple[float, Found, int]] = [(_NEVER, self._best, 0)] * 6
        # Per strand: introns whose length counts as yet; per group the best of the longer ones, and of all
        # that may end at the position.
        self._young: list[deque[tuple[int, int, Intron]]] = [deque(), deque()]
        self._ready: list[tuple[int, list[Intron]]] = [(-1, []), (-1, [])]
        self._introns = [[Intron(at_start, None, self._best)] * strand.num_groups for strand in rules]

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
                    intron = Intron(score + delta, (start, position, exons), before)
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
                    found = Found(score, state // 3, (start, position, exons), before)
                    if self._max_overlap:
                        self._overlap(found, start, position)
                    if score > best.score:
                        self._best = best = found

    def genes(self) -> Iterator[tuple[float, int, list[tuple[int, int]]]]:
        """Yields the genes of the best path from right to left: gain in nats, strand, exons."""
        found = self._best
        while found.before is not None:
            exons, rest = [], found.exons
            while rest is not None:
                start, end, rest = rest
                exons.append((start, end))
            yield found.score - found.before.score, found.strand, exons[::-1]
            found = found.before

    def open_score(self, sums: Sequence[float]) -> float:
        """The score of the best path over no gene, where the path may end inside a gene.

        Args:
            sums: of each state's scores over all bases, `NUM_STATES` nats.
        """
        scores = [self._best.score + sums[NO_GENE]]
        for state, (path, begun) in enumerate(zip(self._coding, self._begun, strict=True)):
            scores.append(max(map(_score, (path, *begun))) + sums[CODING + state])
        for strand, (young, introns) in enumerate(zip(self._young, self._introns, strict=True)):
            score = max(map(_score, (*introns, *(path for *_, path in young))))
            scores.append(score + sums[INTRON + strand])
        return max(scores) - sums[NO_GENE]

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
