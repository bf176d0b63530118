"""Figures over seeds, and in the summaries of benchmarks."""

import pytest
from benchmarks.seeds import over_seeds

from benchmarks import bacteria, bits_per_base


def test_of_one_seed_there_is_no_deviation():
    assert over_seeds([2.0]) == {"seeds": 1, "mean": 2.0, "min": 2.0, "max": 2.0}
    found = over_seeds([1.0, 2.0, 6.0])
    assert found["sd"] == pytest.approx(7**0.5)
    assert found == {"seeds": 3, "mean": 3.0, "min": 1.0, "max": 6.0, "sd": found["sd"]}


def test_bits_are_told_apart_by_data_and_contender():
    rows = [
        {"data": data, "contender": name, "seed": seed, "bits_per_base": bits}
        for data, name, seed, bits in [("yeast", "a", 0, 1.0), ("fly", "a", 0, 1.5), ("yeast", "a", 1, 2.0)]
    ]
    found = bits_per_base.summary(rows)
    assert found["yeast"]["a"]["mean"] == 1.5
    assert found["fly"] == {"a": over_seeds([1.5])}


def test_genes_are_told_apart_by_contender_and_measure():
    rows = [
        {"contender": name, "seed": seed, "genes": {"exact stop": {"f1": f1}, "both": {"f1": f1 / 2}}}
        for name, seed, f1 in [("x", 0, 0.8), ("x", 1, 0.6), ("y", 0, 0.9)]
    ]
    found = bacteria.summary(rows)
    assert found["x"]["exact stop"]["mean"] == pytest.approx(0.7)
    assert found["x"]["both"]["max"] == 0.4
    assert found["y"]["exact stop"] == over_seeds([0.9])
