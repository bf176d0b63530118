import numpy as np
import pytest

from reformer.genomics.tracks.correlation import Correlation


def test_pieces_give_what_the_whole_does():
    generator = np.random.default_rng(0)
    x = generator.normal(100, 1, 999).astype(np.float32)
    y = (0.5 * x + generator.normal(0, 1, 999)).astype(np.float32)
    x[5], y[9] = np.nan, np.nan
    parts = [Correlation(), Correlation()]
    for number, (a, b) in enumerate(zip(np.array_split(x, 5), np.array_split(y, 5), strict=True)):
        parts[number % 2].add(a, b)
    known = ~np.isnan(x + y)
    expected = np.corrcoef(x[known], y[known])[0, 1]
    assert Correlation(parts[0].sums + parts[1].sums).r == pytest.approx(expected, abs=1e-6)


def test_what_does_not_vary_has_none():
    one = Correlation()
    assert one.r is None
    one.add(np.full(1000, 0.1), np.arange(1000.0))
    assert one.r is None
