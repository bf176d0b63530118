"""What values of a track a model tells apart.

The signal of an experiment has a long tail. Its values are cut into levels that are evenly spaced in
asinh(value / mean), linear near 0 and logarithmic far from it, and a model gives a probability to each: a
distribution instead of one number (Imani and White, Improving regression performance with distributional
losses, ICML 2018). The value that it expects is the mean over the levels, each standing for the mean of the
values that it had in training.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING = 255
"""The level of a base without a value."""

_HIGHEST_QUANTILE = 0.999


@dataclass(frozen=True)
class Levels:
    """The levels of one track.

    Attributes:
        scale: the mean of the absolute values.
        low: asinh(value / scale) where the lowest level begins.
        high: where the highest one ends; what lies beyond belongs to it.
        values: what each level stands for.
    """

    scale: float
    low: float
    high: float
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))

    @classmethod
    def of(cls, sample: npt.NDArray[np.floating], num_levels: int) -> Levels:
        """Spaces levels by some of the values; each stands for its middle until `with_means_of`.

        Raises:
            ValueError: all values are alike, or there is none.
        """
        known = sample[~np.isnan(sample)].astype(np.float64)
        if known.size == 0 or known.min() == known.max():
            raise ValueError("all its values are alike" if known.size else "it has no value")
        scale = float(np.abs(known).mean())
        spread = np.arcsinh(known / scale)
        low, high = float(spread.min()), float(np.quantile(spread, _HIGHEST_QUANTILE))
        if high <= low:  # nearly all are alike
            high = float(spread.max())
        middles = low + (high - low) * (np.arange(num_levels) + 0.5) / num_levels
        return cls(scale, low, high, tuple((scale * np.sinh(middles)).tolist()))

    def with_means_of(self, blocks: Iterable[npt.NDArray[np.floating]]) -> Levels:
        """The same, each level standing for the mean of the values in it; one without any, for its middle."""
        sums, counts = np.zeros((2, len(self.values)))
        for block in blocks:
            levels = self.numbers(block)
            known = levels != MISSING
            sums += np.bincount(levels[known], block[known].astype(np.float64), len(self.values))
            counts += np.bincount(levels[known], minlength=len(self.values))
        means = np.where(counts > 0, sums / np.maximum(counts, 1), self.values)
        return Levels(self.scale, self.low, self.high, tuple(means.tolist()))

    def numbers(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """The level of each value, uint8, `MISSING` for NaN."""
        place = (self.spread(values) - self.low) / (self.high - self.low) * len(self.values)
        is_missing = np.isnan(place)
        place[is_missing] = 0
        numbers = np.clip(place, 0, len(self.values) - 1).astype(np.uint8)
        numbers[is_missing] = MISSING
        return numbers

    def spread(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """asinh(value / scale)."""
        spread: npt.NDArray[np.float64] = np.arcsinh(np.asarray(values, dtype=np.float64) / self.scale)
        return spread

    def expected(self, probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """The mean value under probabilities ``[bases, levels]``, float32 ``[bases]``."""
        return (probabilities @ np.array(self.values, dtype=probabilities.dtype)).astype(np.float32)

    def to_json(self) -> dict[str, Any]:
        """JSON values, from which ``Levels(**values)`` makes them again."""
        return {"scale": self.scale, "low": self.low, "high": self.high, "values": list(self.values)}
