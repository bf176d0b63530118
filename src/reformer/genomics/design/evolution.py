"""Directed evolution of a sequence: every substitution is tried, the best is kept, and so on.

The search is that of gReLU's `design.evolve`, greedy with a beam of one. It draws nothing: of sequences that
are equally good the first is kept, in the order of positions and then of bases.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

BASES = "ACGT"
"""What is substituted, and by what."""

_BASES_PER_BATCH = 1 << 15


@dataclass(frozen=True, slots=True)
class Substitution:
    """One step: the base at `position`, counted from 0, becomes another, after which the goal has a value."""

    position: int
    old: str
    new: str
    value: float


@dataclass(frozen=True, slots=True)
class Design:
    """A sequence, and how it came to be.

    Attributes:
        letters: its bases.
        value: that the goal has for it.
        before: that the goal has for the sequence at the start.
        steps: what made the one of the other.
    """

    letters: str
    value: float
    before: float
    steps: tuple[Substitution, ...] = ()


def evolve(
    goal: Callable[[Sequence[str]], Values],
    start: str,
    *,
    steps: int = 10,
    beam: int = 1,
    minimize: bool = False,
    allowed: npt.NDArray[np.bool_] | None = None,
    on_scored: Callable[[int], None] = lambda number: None,
) -> list[Design]:
    """Looks for the sequence with the best value, by substitutions of one base after the other.

    In each step, every substitution of every sequence in the beam is scored, and the best of these and of the
    beam so far are the next beam. The search ends early where that changes nothing. With a beam of 1 each
    step improves the value; with more, a sequence may come by way of one that is worse than those before.

    Args:
        goal: gives the values, float64 ``[sequences]``, of sequences of one length.
        start: letters; what is substituted is A, C, G and T, in either case, which stays.
        steps: how many there are at most.
        beam: sequences that are kept after each, at least 1.
        minimize: whether a lower value is better.
        allowed: bool ``[bases]``, which may be substituted; by default all.
        on_scored: called with the number of substitutions scored since the last call.

    Returns:
        The last beam, the best sequence first.
    """
    positions = [
        position
        for position, letter in enumerate(start.upper())
        if letter in BASES and (allowed is None or allowed[position])
    ]
    before = float(goal([start])[0])
    designs = new = [Design(start, before, before)]
    for _ in range(steps):
        best = designs.copy()
        candidates = ((parent, *one) for parent in new for one in _substitutions(parent.letters, positions))
        while batch := list(islice(candidates, max(1, _BASES_PER_BATCH // len(start)))):
            letters = [parent.letters[:at] + base + parent.letters[at + 1 :] for parent, at, base in batch]
            for text, (parent, at, base), value in zip(letters, batch, goal(letters).tolist(), strict=True):
                if all(text != other.letters for other in best):
                    step = Substitution(at, parent.letters[at], base, value)
                    child = Design(text, value, before, (*parent.steps, step))
                    insort(best, child, key=lambda one: one.value if minimize else -one.value)
                    del best[beam:]
            on_scored(len(batch))
        new = [one for one in best if one not in designs]
        designs = best
        if not new:
            break
    return designs


def most_substitutions(num_bases: int, steps: int, beam: int) -> int:
    """The most that `evolve` scores of a sequence of which so many bases may be substituted."""
    return num_bases * (len(BASES) - 1) * (1 + (steps - 1) * beam)


def _substitutions(letters: str, positions: Sequence[int]) -> Iterator[tuple[int, str]]:
    for position in positions:
        old = letters[position]
        for base in BASES:
            if base != old.upper():
                yield position, base.lower() if old.islower() else base
