"""Correlation of two series that come piece by piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Correlation:
    """Pearson's correlation.

    Args:
        sums: float64 ``[6]``: of ones, x, y, x x, y y and x y; those of several series add up.
    """

    def __init__(self, sums: npt.NDArray[np.float64] | None = None) -> None:
        self.sums = np.zeros(6) if sums is None else sums

    def add(self, x: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> None:
        """Takes pairs of which both are known."""
        known = ~(np.isnan(x) | np.isnan(y))
        a, b = x[known].astype(np.float64), y[known].astype(np.float64)
        self.sums = self.sums + np.array([len(a), a.sum(), b.sum(), a @ a, b @ b, a @ b])

    @property
    def r(self) -> float | None:
        """None where either series has no variance."""
        n, x, y, xx, yy, xy = self.sums
        if n < 2:
            return None
        variances = (xx - x * x / n) * (yy - y * y / n)
        tiny = 1e-12 * max(xx * yy, 1e-300)
        return None if variances <= tiny else float(np.clip((xy - x * y / n) / np.sqrt(variances), -1, 1))
