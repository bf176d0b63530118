import math

import numpy as np
import pytest

from reformer.genomics.annotation.lengths import LONGEST, intron_lengths


def probabilities(found, most=100_000):
    nats = -found.cost - np.arange(most) / found.mean
    nats[:LONGEST] += found.gains
    return np.exp(nats)


def test_all_lengths_add_up_to_one():
    generator = np.random.default_rng(0)
    lengths = [*generator.integers(55, 66, 300), *generator.geometric(1 / 1500, 300) + LONGEST]
    found = intron_lengths(lengths)
    assert probabilities(found).sum() == pytest.approx(
        1, abs=0.02
    )  # the tail goes on by the base, not in one piece
    assert probabilities(found)[50:71].sum() == pytest.approx(0.5, abs=0.03)


def test_lengths_of_the_annotation_are_likelier_than_their_neighbours():
    found = intron_lengths([60] * 50)
    likely = probabilities(found)
    assert likely[60] == likely.max()
    assert likely[60] > 20 * likely[80]
    assert likely[80] > 0


def test_a_few_introns_forbid_nothing():
    found = intron_lengths([100])
    assert math.isfinite(found.cost)
    assert len(found.gains) == LONGEST
    assert min(found.gains) > -3
