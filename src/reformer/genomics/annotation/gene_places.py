"""Where a path through the gene grammar may change its state, and by how much the score then changes.

The states: 0 no gene; 1 + 3 s + a coding on strand s (0 "+", 1 "-") in codons that begin, from left to right,
at positions p with p % 3 = a; 7 + s intron on strand s. `sums[i]` are the sums of each state's scores over
the bases before the i-th that is kept; the search keeps scores less their own state's sum, so that they
change only at places.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.signals import Site
from reformer.genomics.coordinates import Strand, reverse_complement

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
ScoreSites = Callable[[Site, Ints], npt.NDArray[np.floating]]

NO_GENE, CODING, INTRON, NUM_STATES = 0, 1, 7, 9
STRANDS: tuple[Strand, Strand] = ("+", "-")
UNKNOWN = 4
"""The code of N; those of A, C, G, T are 0 to 3."""

_CODE_OF = np.full(256, UNKNOWN, dtype=np.int64)
for _code, _pair in enumerate((b"Aa", b"Cc", b"Gg", b"Tt")):
    _CODE_OF[list(_pair)] = _code
_SMALLEST_PROBABILITY = 1e-6


class Change(IntEnum):
    """What can happen at a place, in the order in which it does where places coincide.

    END closes a gene before the place; STOP does so too and ends the state, in which no codon can follow.
    RESTART begins a gene on "-" three bases earlier, with its stop codon, and ends the gene that would run
    over that; SAVE keeps for it what the score of no gene was there. EXON and INTRON begin one; BEGIN, a gene
    on "+".
    """

    END = 0
    STOP = 1
    RESTART = 2
    SAVE = 3
    EXON = 4
    INTRON = 5
    BEGIN = 6


class Places(NamedTuple):
    """Places in the order in which they are visited.

    Attributes:
        position: int64 ``[places]``.
        change: int64 ``[places]``, a `Change`.
        state: int64 ``[places]``, the coding state, 0 to 5: 3 s + a.
        key: int64 ``[places]``; for INTRON the group of what is left of a codon, for EXON the way it goes on.
        delta: float64 ``[places]``, what is added to the score.
    """

    position: Ints
    change: Ints
    state: Ints
    key: Ints
    delta: Floats


def base_codes(letters: bytes) -> Ints:
    """0 to 3 for A, C, G and T in either case, `UNKNOWN` for all else."""
    return _CODE_OF[np.frombuffer(letters, dtype=np.uint8)]


def state_scores(scheme: ClassScheme, probabilities: npt.NDArray[np.floating], first: int) -> Floats:
    """Nats of each base in each state, ``[bases, NUM_STATES]``.

    Introns lie in untranslated regions too, outside of all that is called, and so they speak for no gene as
    much as for a gene's intron. Where they have no class, they are labelled as what lies between genes, and
    scored like it.

    Args:
        scheme: the classes.
        probabilities: ``[bases, classes]``.
        first: position of the first base.
    """
    frame_of = np.arange(first, first + len(probabilities))
    scores = np.empty((len(probabilities), NUM_STATES))
    coding = [number for number, kind in enumerate(scheme.kind_of) if kind == "CDS"]
    scores[:, NO_GENE] = 1 - probabilities[:, coding].sum(axis=1, dtype=np.float64)
    has_introns = "intron" in scheme.kinds
    for s, strand in enumerate(STRANDS):
        by_place = [scheme.names.index(_class(scheme, strand, place)) for place in range(3)]
        for a in range(3):
            column = np.array(by_place)[(frame_of - a) % 3]
            scores[:, CODING + 3 * s + a] = np.take_along_axis(probabilities, column[:, None], axis=1)[:, 0]
        intron = probabilities[:, scheme.number("intron", strand)] if has_introns else scores[:, NO_GENE]
        scores[:, INTRON + s] = intron
    return np.log(np.maximum(scores, _SMALLEST_PROBABILITY))


def add_coding_scores(scores: Floats, nats: npt.NDArray[np.floating], first: int) -> None:
    """Adds what codon statistics say to scores ``[bases, NUM_STATES]``.

    Args:
        scores: changed in place.
        nats: ``[bases, 6]``, by place in the codon on either strand, see `CodingModel.by_place`.
        first: position of the first base.
    """
    positions = np.arange(first, first + len(scores))
    for s in range(len(STRANDS)):
        for a in range(3):
            left = (positions - a) % 3  # bases of the codon to the left
            place = (left if s == 0 else 2 - left) + 3 * s
            scores[:, CODING + 3 * s + a] += np.take_along_axis(nats, place[:, None], axis=1)[:, 0]


def _class(scheme: ClassScheme, strand: str, place: int) -> str:
    """The class of a coding base whose codon began `place` bases to the left."""
    return f"CDS{strand}{(place if strand == '+' else 2 - place) if scheme.by_frame else ''}"


class StrandRules:
    """What a strand's grammar looks like when it is read from left to right.

    Attributes:
        num_groups: of what a codon that an intron breaks has before it: pieces of one length that the same
            bases would make a stop codon of are one group, for each acceptor.
        goes_on: for each way in which a codon can go on (see `_way`), the groups that it makes no stop of.
    """

    def __init__(self, grammar: Grammar, strand: int) -> None:
        self._strand = strand
        self._grammar = grammar
        self._starts, self._stops = self._codons(grammar.starts), self._codons(grammar.stops)
        self._group_of: list[Ints] = []
        self.goes_on: list[tuple[int, ...]] = []
        self.num_groups = 0
        for length in range(3):
            self._add_groups(length)
        # The pairs of ends that go with each other, by acceptor: words on the left, words on the right.
        donors: dict[str, list[str]] = {}
        for donor, acceptor in grammar.splices:
            donors.setdefault(acceptor, []).append(donor)
        self._ends = [
            tuple([self._letters(text) for text in side] for side in sides[:: -1 if strand else 1])
            for sides in ((texts, [acceptor]) for acceptor, texts in donors.items())
        ]
        self._groups_of_ends, self._ways_of_ends = self.num_groups, len(self.goes_on)
        self.num_groups *= len(self._ends)
        self.goes_on = [
            tuple(end * self._groups_of_ends + group for group in groups)
            for end in range(len(self._ends))
            for groups in self.goes_on
        ]

    def places(self, codes: Ints, sums: Floats, first: int, score_sites: ScoreSites) -> list[Places]:
        """All places among bases of which the first is at position `first`.

        Args:
            codes: base codes ``[bases]``.
            sums: ``[bases + 1, NUM_STATES]``.
            first: position of the first base.
            score_sites: nats of the strand's sites of a kind, at places as `SignalModel.scores` takes them.
        """
        found = self._codon_places(codes, sums, first, score_sites)
        for ends, (left, right) in enumerate(self._ends):
            for word in left:
                found += self._intron_places(codes, sums, first, word, ends, score_sites)
            for word in right:
                found += self._exon_places(codes, sums, first, word, ends, score_sites)
        return found

    def _letters(self, text: str) -> Ints:
        return base_codes((reverse_complement(text) if self._strand else text).encode())

    def _codons(self, texts: tuple[str, ...]) -> Ints:
        return np.array([_number(self._letters(text)) for text in texts], dtype=np.int64)

    def _add_groups(self, length: int) -> None:
        """Groups the pieces of `length` bases, and appends to `goes_on` for all that can follow them."""
        pieces, ways = 4**length, 4 ** (3 - length) if length else 1
        stops = self._stops[:, None] if length else np.zeros((0, 1), dtype=np.int64)
        makes_stop = (np.arange(64) == stops).any(axis=0)[: pieces * ways].reshape(pieces, ways)
        kinds, group = np.unique(makes_stop, axis=0, return_inverse=True)
        self._group_of.append(self.num_groups + group.reshape(-1))
        self.goes_on += [tuple(int(g) for g in self.num_groups + np.flatnonzero(~kind)) for kind in kinds.T]
        self.num_groups += len(kinds)

    def _codon_places(self, codes: Ints, sums: Floats, first: int, score_sites: ScoreSites) -> list[Places]:
        if len(codes) < 3:
            return []
        triples = np.stack([codes[:-2], codes[1:-1], codes[2:]])
        number = np.where((triples == UNKNOWN).any(axis=0), -1, _number(triples))
        starts, stops = (np.flatnonzero(np.isin(number, codons)) for codons in (self._starts, self._stops))
        if self._strand == 0:
            return [
                self._begin(Change.BEGIN, starts, sums, first, score_sites("start", starts)),
                self._end(Change.STOP, stops, sums, first, score_sites("stop", stops + 3)),
            ]
        state = 3 * self._strand + (stops + first) % 3
        return [
            self._begin(Change.SAVE, stops, sums, first, score_sites("stop", stops)),
            _places(stops + 3 + first, Change.RESTART, state, 0, np.zeros(len(stops))),
            self._end(Change.END, starts, sums, first, score_sites("start", starts + 3)),
        ]

    def _begin(
        self, change: Change, at: Ints, sums: Floats, first: int, nats: npt.NDArray[np.floating]
    ) -> Places:
        state = 3 * self._strand + (at + first) % 3
        delta = sums[at, NO_GENE] - sums[at, CODING + state] - self._grammar.gene_cost
        return _places(at + first, change, state, 0, delta + nats)

    def _end(
        self, change: Change, at: Ints, sums: Floats, first: int, nats: npt.NDArray[np.floating]
    ) -> Places:
        state = 3 * self._strand + (at + first) % 3
        delta = sums[at + 3, CODING + state] - sums[at + 3, NO_GENE]
        return _places(at + 3 + first, change, state, 0, delta + nats)

    def _intron_places(
        self, codes: Ints, sums: Floats, first: int, word: Ints, ends: int, score_sites: ScoreSites
    ) -> list[Places]:
        at = occurrences(codes, word)
        at = at[at >= 2]
        site = score_sites("acceptor" if self._strand else "donor", at) - self._grammar.intron_cost
        found = []
        for length in range(3):
            piece = (
                _number(codes[at[:, None] - length + np.arange(length)].T) if length else np.zeros_like(at)
            )
            known = (codes[at[:, None] - length + np.arange(length)] != UNKNOWN).all(axis=1)
            i, piece = at[known], piece[known]
            state = 3 * self._strand + (i + first - length) % 3
            delta = sums[i, CODING + state] - sums[i, INTRON + self._strand] + site[known]
            group = ends * self._groups_of_ends + self._group_of[length][piece]
            found.append(_places(i + first, Change.INTRON, state, group, delta))
        return found

    def _exon_places(
        self, codes: Ints, sums: Floats, first: int, word: Ints, ends: int, score_sites: ScoreSites
    ) -> list[Places]:
        at = occurrences(codes, word) + len(word)
        at = at[at + 2 <= len(codes)]
        at = at[(codes[at] != UNKNOWN) & (codes[np.minimum(at + 1, len(codes) - 1)] != UNKNOWN)]
        site = score_sites("donor" if self._strand else "acceptor", at)
        found = []
        for length in range(3):
            way = (
                ends * self._ways_of_ends
                + (np.zeros_like(at), 1 + 4 * codes[at] + codes[at + 1], 17 + codes[at])[length]
            )
            state = 3 * self._strand + (at + first - length) % 3
            delta = sums[at, INTRON + self._strand] - sums[at, CODING + state] + site
            found.append(_places(at + first, Change.EXON, state, way, delta))
        return found


def in_order(places: list[Places], start: int, end: int) -> Places:
    """Joins places and sorts those at positions in [start, end)."""
    position, change, state, key, delta = (np.concatenate(column) for column in zip(*places, strict=True))
    inside = np.flatnonzero((start <= position) & (position < end))
    order = inside[np.lexsort((change[inside], position[inside]))]
    return Places(position[order], change[order], state[order], key[order], delta[order])


def _places(position: Ints, change: Change, state: Ints, key: Ints | int, delta: Floats) -> Places:
    every = np.ones_like(position)
    return Places(position, int(change) * every, state, key * every, delta)


def _number(digits: Ints) -> Ints:
    """Reads base codes ``[digits, ...]`` as numbers to the base 4."""
    number = np.zeros_like(digits[0])
    for digit in digits:
        number = 4 * number + digit
    return number


def occurrences(codes: Ints, word: Ints) -> Ints:
    """Where a word stands, overlaps included."""
    last = len(codes) - len(word) + 1
    if last <= 0:
        return np.zeros(0, dtype=np.int64)
    matches = [codes[i : last + i] == letter for i, letter in enumerate(word)]
    return np.flatnonzero(np.logical_and.reduce(matches))
