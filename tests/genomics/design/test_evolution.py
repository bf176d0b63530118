"""The search: against every sequence that there is, and by the rules for ties, kept bases and case."""

from itertools import pairwise, product

import numpy as np
import pytest

from reformer.genomics.design.evolution import BASES, evolve, most_substitutions

LENGTH = 6


def pairs_goal(sequences):
    """Each pair of neighbours has a weight of its own, so that substitutions depend on each other."""
    weights = np.random.default_rng(0).normal(size=(LENGTH, 4, 4))
    numbers = np.array([[BASES.index(base) for base in one.upper()] for one in sequences])
    return sum(weights[i, numbers[:, i], numbers[:, i + 1]] for i in range(numbers.shape[1] - 1))


def substituted(text):
    return [text[:i] + base + text[i + 1 :] for i in range(len(text)) for base in BASES if base != text[i]]


@pytest.mark.parametrize("minimize", [False, True])
def test_greedy_search_takes_the_best_of_all_substitutions(minimize):
    sign = -1 if minimize else 1
    text, values = "ACGTAC", []
    for _ in range(20):
        best = max(substituted(text), key=lambda one: sign * pairs_goal([one])[0])
        if sign * pairs_goal([best])[0] <= sign * pairs_goal([text])[0]:
            break
        text = best
        values.append(pairs_goal([text])[0])
    assert 2 <= len(values) < 20
    (found,) = evolve(pairs_goal, "ACGTAC", steps=20, minimize=minimize)
    assert found.letters == text
    assert [step.value for step in found.steps] == pytest.approx(values)
    assert all(sign * (b - a) > 0 for a, b in pairwise([found.before, *(s.value for s in found.steps)]))
    assert found.before == pytest.approx(pairs_goal(["ACGTAC"])[0])
    # As many steps as asked for, the first of those of a longer search.
    (short,) = evolve(pairs_goal, "ACGTAC", steps=1, minimize=minimize)
    assert short.steps == found.steps[:1]


def test_the_steps_make_the_one_of_the_other():
    for found in evolve(pairs_goal, "ACGTAC", steps=5, beam=8):
        text = "ACGTAC"
        for step in found.steps:
            assert text[step.position] == step.old != step.new
            text = text[: step.position] + step.new + text[step.position + 1 :]
            assert step.value == pytest.approx(pairs_goal([text])[0])
        assert text == found.letters
        assert found.value == (found.steps[-1].value if found.steps else found.before)


def test_a_beam_that_holds_all_finds_the_best_of_all():
    every = ["".join(one) for one in product(BASES, repeat=4)]
    values = pairs_goal(every)
    found = evolve(pairs_goal, "ACGT", steps=4, beam=len(every))
    assert sorted(one.letters for one in found) == every
    assert found[0].letters == every[int(values.argmax())]
    assert [one.value for one in found] == pytest.approx(sorted(values, reverse=True))


def test_a_wider_beam_comes_by_a_worse_sequence():
    """Two substitutions that only help together."""

    def both(sequences):
        table = {(False, False): 1.0, (True, True): 3.0}
        return np.array([table.get((one[0] == "C", one[3] == "G"), 0.5) for one in sequences])

    (greedy,) = evolve(both, "AAAA", steps=4)
    assert (greedy.letters, greedy.steps) == ("AAAA", ())
    best, *_ = evolve(both, "AAAA", steps=4, beam=20)
    assert (best.letters, best.value, len(best.steps)) == ("CAAG", 3.0, 2)


def test_ties_go_to_the_first_position_and_then_the_first_base():
    def not_t(sequences):
        return np.array([-one.count("T") for one in sequences], dtype=float)

    (found,) = evolve(not_t, "CTGTT", steps=2)
    assert [(s.position, s.new) for s in found.steps] == [(1, "A"), (3, "A")]
    found = evolve(not_t, "CTGTT", steps=1, beam=3)
    assert [one.letters for one in found] == ["CAGTT", "CCGTT", "CGGTT"]


def test_what_is_kept_or_unknown_stays_and_so_does_case():
    def number_of_g(sequences):
        return np.array([one.upper().count("G") for one in sequences], dtype=float)

    allowed = np.array([True, False, True, True, True])
    (found,) = evolve(number_of_g, "aCNtG", steps=9, allowed=allowed)
    assert found.letters == "gCNgG"
    assert [(s.old, s.new) for s in found.steps] == [("a", "g"), ("t", "g")]


def test_every_substitution_is_counted_once_a_batch_is_scored():
    sizes, counts = [], []

    def goal(sequences):
        sizes.append(len(sequences))
        return np.array([one.count("G") for one in sequences], dtype=float)

    evolve(goal, "A" * 3000, steps=1, on_scored=counts.append)
    assert counts == sizes[1:]
    assert sum(counts) == most_substitutions(3000, 1, 1) == 9000
    assert max(sizes) * 3000 <= 1 << 15
    counts.clear()
    evolve(goal, "AAAA", steps=3, beam=2, on_scored=counts.append)
    assert sum(counts) == most_substitutions(4, 3, 2) == 12 + 24 + 24
