"""How long introns are: of up to a few hundred bases as the annotation's, beyond that as chance has it.

Many species have introns of nearly one length, and others that are ten times as long (fly: 55 to 65 bases,
and any number). Short lengths have the annotation's frequencies, smoothed; the longer share falls off
geometrically.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LONGEST = 256
"""Introns shorter than this have frequencies of their own."""

_WIDTH, _FEWEST_BASES = 0.05, 2.0  # standard deviation of the smoothing: a share of the length, and a minimum
_PRIOR_COUNTS = 10.0  # of the geometric distribution, so that a few introns do not forbid all other lengths


class IntronLengths(NamedTuple):
    """A distribution of lengths, in nats.

    Attributes:
        mean: bases; each base costs 1 / mean.
        cost: what every intron costs besides, were it in the tail.
        gains: what introns of 0, 1, ... `LONGEST` - 1 bases bring in beyond that.
    """

    mean: float
    cost: float
    gains: tuple[float, ...]


def intron_lengths(lengths: Sequence[int]) -> IntronLengths:
    """The distribution of one length at least."""
    mean = sum(lengths) / len(lengths)
    seen = np.array(lengths, dtype=np.float64)
    grid = np.arange(LONGEST)
    width = np.maximum(_FEWEST_BASES, _WIDTH * seen)
    kernels = np.exp(-0.5 * ((grid[:, None] - seen) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    geometric = np.exp(-grid / mean) / mean
    short = (kernels.sum(axis=1) + _PRIOR_COUNTS * geometric) / (len(seen) + _PRIOR_COUNTS)
    # The tail, scaled so that both parts add up to 1.
    share = max(1 - short.sum(), 1 / (len(seen) + _PRIOR_COUNTS))
    scale = share / math.exp(-LONGEST / mean)
    gains = np.log(short / (scale * geometric))
    return IntronLengths(mean, math.log(mean / scale), tuple(round(float(gain), 4) for gain in gains))
