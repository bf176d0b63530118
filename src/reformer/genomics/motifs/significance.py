"""How well a sequence fits a motif, and how probable it is that a random one fits as well.

A sequence's score is its log-odds under the motif and the genome's composition, in bits, rounded to `STEP`
for each base. All is counted from the best score that a motif allows: a sequence falls short of it by a
whole number of steps, 0 or more, a sum over its bases. So the probability of every shortfall comes from one
convolution for each base, exactly for the rounded scores, and only as far as the threshold reaches. FIMO
(Grant, Bailey, Noble 2011) has its p-values in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reformer.genomics.formats.motifs import Motif

STEP = 0.001
"""Bits: to what the log-odds of a base are rounded."""

_PSEUDOCOUNT = 0.1  # sites, shared out as the composition has it; as in FIMO
_FIRST_STEPS = 1 << 14


@dataclass(frozen=True, eq=False)
class WeightedMotif:
    """A motif's scores in a genome.

    Attributes:
        name: of the motif.
        best: the highest score, in steps.
        shortfalls: int64 ``[bases, 4]``, by how many steps a base lowers it.
        p_values: float64 ``[limit + 1]``, probability of a shortfall up to each at a random place; those that
            are up to the threshold. Empty where not even that of the best score is.
    """

    name: str
    best: int
    shortfalls: npt.NDArray[np.int64]
    p_values: npt.NDArray[np.float64]

    @property
    def limit(self) -> int:
        """The largest shortfall of a match, -1 where there can be none."""
        return len(self.p_values) - 1


def weigh(motif: Motif, composition: npt.NDArray[np.float64], threshold: float) -> WeightedMotif:
    """Finds what each base adds to a motif's score, and the p-values up to a threshold.

    Args:
        motif: the counts.
        composition: ``[4]``, probabilities of A, C, G, T, all above 0.
        threshold: the largest p-value of a match.
    """
    padded = motif.counts + _PSEUDOCOUNT * composition
    bits = np.log2(padded / padded.sum(axis=1, keepdims=True) / composition)
    steps = np.rint(bits / STEP).astype(np.int64)
    best = steps.max(axis=1, keepdims=True)
    shortfalls = best - steps
    return WeightedMotif(
        motif.name, int(best.sum()), shortfalls, _p_values(shortfalls, composition, threshold)
    )


def _p_values(
    shortfalls: npt.NDArray[np.int64], composition: npt.NDArray[np.float64], threshold: float
) -> npt.NDArray[np.float64]:
    threshold *= 1 + 1e-9  # a probability that equals the threshold is a sum of rounded ones
    largest = int(shortfalls.max(axis=1).sum())
    num_steps = min(_FIRST_STEPS, largest + 1)
    while True:
        tail = np.cumsum(_probabilities(shortfalls, composition, num_steps))
        if tail[-1] > threshold or num_steps > largest:
            return np.minimum(tail[: np.searchsorted(tail, threshold, side="right")], 1.0)
        num_steps = min(2 * num_steps, largest + 1)


def _probabilities(
    shortfalls: npt.NDArray[np.int64], composition: npt.NDArray[np.float64], num_steps: int
) -> npt.NDArray[np.float64]:
    """The probability of each shortfall below `num_steps`; larger ones never lead back to these."""
    found = np.zeros(num_steps)
    found[0] = 1.0
    for column in shortfalls.tolist():
        before, found = found, np.zeros(num_steps)
        for steps, probability in zip(column, composition, strict=True):
            if steps < num_steps:
                found[steps:] += probability * before[: num_steps - steps]
    return found


def both_strands_composition(num_bases: Sequence[int]) -> npt.NDArray[np.float64]:
    """The composition of a genome and its reverse complement, float64 ``[4]``.

    One base of each kind is added, so that none is impossible.

    Args:
        num_bases: of A, C, G, T on "+".
    """
    counts = np.asarray(num_bases, dtype=np.float64) + 1
    counts += counts[::-1]
    return np.asarray(counts / counts.sum())
