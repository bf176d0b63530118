import numpy as np
import pytest

from reformer.genomics.tracks.levels import MISSING, Levels


def test_levels_are_even_in_asinh_and_stand_for_their_means():
    values = np.random.default_rng(0).gamma(0.3, 20, 5000).astype(np.float32)
    levels = Levels.of(values, 16).with_means_of(np.array_split(values, 7))
    numbers = levels.numbers(values)
    assert levels.scale == pytest.approx(np.abs(values).mean(), rel=1e-5)
    spread = np.arcsinh(values.astype(np.float64) / levels.scale)
    step = (levels.high - levels.low) / 16
    expected = np.clip((spread - levels.low) // step, 0, 15)
    assert np.mean(numbers == expected) > 0.999  # but for rounding at edges
    for number in np.unique(numbers):
        assert levels.values[number] == pytest.approx(values[numbers == number].mean(), rel=1e-5)
    assert list(levels.values) == sorted(levels.values)


def test_what_is_far_out_belongs_to_the_outermost_levels():
    levels = Levels.of(np.array([-1.0, 0.0, 1.0]), 4)
    assert levels.numbers(np.array([-99.0, 99.0, np.nan])).tolist() == [0, 3, MISSING]


def test_few_values_are_told_apart():
    levels = Levels.of(np.array([0.0, 0.0, 1.0, 3.0, np.nan]), 8)
    levels = levels.with_means_of([np.array([0.0, 0.0, 1.0, 3.0, np.nan])])
    values = np.array([0.0, 1.0, 3.0])
    np.testing.assert_allclose(np.array(levels.values)[levels.numbers(values)], values)


def test_a_rare_value_is_told_apart_from_all_others():
    values = np.zeros(100_000)
    values[7] = 5.0
    levels = Levels.of(values, 4)
    assert levels.numbers(np.array([0.0, 5.0])).tolist() == [0, 3]


def test_the_expected_value_is_the_mean_over_the_levels():
    levels = Levels(1.0, 0.0, 1.0, (0.0, 2.0, 10.0))
    probabilities = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], dtype=np.float32)
    assert levels.expected(probabilities).tolist() == [1.0, 10.0]
    assert Levels(**levels.to_json()) == levels


@pytest.mark.parametrize(
    ("values", "message"), [([2.0, 2.0, np.nan], "all its values are alike"), ([np.nan], "it has no value")]
)
def test_nothing_to_tell_apart(values, message):
    with pytest.raises(ValueError, match=message):
        Levels.of(np.array(values), 4)
