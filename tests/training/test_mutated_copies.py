from bisect import bisect_left
from pathlib import Path

import numpy as np
import pytest
import torch

from reformer.data.build import build_token_array
from reformer.data.tokens import TokenArray
from reformer.errors import UserError
from reformer.training.batches import TrainingBatches
from reformer.training.mutated_copies import MutatedCopies
from reformer.training.recipe import Stage
from reformer.training.run import LanguageModelling
from reformer.training.run_data import RunData
from tests.training.conftest import MakeRecipe, write_fasta

LENGTH = 2001
WINDOW = np.arange(LENGTH)  # every token another, so that it can be told where one comes from
FIRST = WINDOW[:1001]


@pytest.fixture
def array(tmp_path: Path) -> TokenArray:
    return build_token_array(write_fasta(tmp_path / "x.fa", 5000, 300), tmp_path)


def longest_rise(values: np.ndarray) -> int:
    """The length of the longest rising subsequence: what a copy has of its original, in order."""
    ends: list[int] = []
    for value in values.tolist():
        place = bisect_left(ends, value)
        ends[place : place + 1] = [value]
    return len(ends)


def test_copies_are_changed_as_they_should_be() -> None:
    copies = MutatedCopies(1.0, seed=3)
    windows = [copies.for_training(WINDOW, number) for number in range(400)]
    changed, num_filled = [], 0
    for window in windows:
        assert len(window) == LENGTH
        assert np.array_equal(window[:1001], FIRST)
        copy = window[1001:]
        changed.append(1 - longest_rise(copy) / len(copy))
        if copy[-1] > 1000 and len(copy) > 2 and copy[-2] == copy[-1] - 1:
            num_filled += 1
            own = copy[-1] - 1000  # tokens that follow the first half in the window
            assert np.array_equal(copy[-own:], WINDOW[1001 : 1001 + own])
    # Mean and median rate are 0.4 / 3 and 0.1; for each of the others 5 / 20 new ones come in.
    assert np.mean(changed) == pytest.approx(0.4 / 3 * 1.25, abs=0.02)
    assert np.median(changed) == pytest.approx(0.125, abs=0.02)
    assert min(changed) < 0.02
    assert 0.42 < max(changed) < 0.56
    assert 0.2 < num_filled / len(windows) < 0.55  # those from which more was left out than put in


def test_stretches_are_left_out_and_put_in() -> None:
    copies = MutatedCopies(1.0, seed=0)
    lengths = []
    for number in range(400):
        copy = copies.for_training(WINDOW, number)[1001:]
        jumps = np.diff(copy)
        around = np.flatnonzero((jumps[1:-1] > 1) & (jumps[:-2] == 1) & (jumps[2:] == 1)) + 1
        lengths += (jumps[around] - 1).tolist()  # tokens that are missing between two that follow each other
    assert len(lengths) > 400
    assert np.median(lengths) == pytest.approx(4, abs=1)  # of a geometric distribution with mean 5
    assert np.mean(np.array(lengths) == 1) == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("length", range(2, 12))
def test_short_windows(length: int) -> None:
    ids = np.arange(length, dtype=np.uint8)
    ids.flags.writeable = False  # as those of a mapped file are
    copies = MutatedCopies(1.0, seed=0)
    for number in range(200):
        window = copies.for_training(ids, number)
        assert (len(window), window.dtype) == (length, np.uint8)
        assert np.array_equal(window[: length - length // 2], ids[: length - length // 2])
        assert set(window) <= set(ids)


def test_seed_and_number_determine_a_copy() -> None:
    one, again, other = (MutatedCopies(1.0, seed) for seed in (1, 1, 2))
    window = one.for_training(WINDOW, 7)
    one.for_training(WINDOW, 8)
    assert np.array_equal(again.for_training(WINDOW, 7), window)
    assert np.array_equal(one.for_training(WINDOW, 7), window)
    assert not np.array_equal(one.for_training(WINDOW, 8), window)
    assert not np.array_equal(other.for_training(WINDOW, 7), window)


def test_so_many_windows_of_a_batch_have_copies(array: TokenArray) -> None:
    stages = [Stage(length=200, steps=50, batch_size=4), Stage(length="full", steps=20)]
    plain, some, both_strands, copied_strands = (
        TrainingBatches(array, stages, 1, 1, other_strand=other, mutated_copies=copies)
        for other in (False, True)
        for copies in (None, MutatedCopies(0.4, 1))
    )
    num_copied = 0
    for i in range(50):
        for row, window in zip(some[i]["input_ids"], plain[i]["input_ids"], strict=True):
            assert torch.equal(row[:100], window[:100])
            num_copied += not torch.equal(row, window)
        for row, window in zip(copied_strands[i]["input_ids"], both_strands[i]["input_ids"], strict=True):
            assert torch.equal(row[:100], window[:100])  # the half that is read first, on either strand
        assert torch.equal(some[i]["labels"], some[i]["input_ids"])
    assert num_copied / 200 == pytest.approx(0.4, abs=0.1)
    for i in range(50, 70):
        assert torch.equal(some[i]["input_ids"], plain[i]["input_ids"])
    assert [some.num_tokens(step) for step in range(71)] == [plain.num_tokens(step) for step in range(71)]


def test_a_recipe_says_how_many(make_recipe: MakeRecipe) -> None:
    def batches(*overrides: str) -> TrainingBatches:
        recipe = make_recipe(*overrides)
        return LanguageModelling().batches(recipe, RunData.open(recipe), 1)

    all_rows, none = batches("data.mutated_copies=1"), batches("data.mutated_copies=0")
    assert all(torch.equal(none[i]["input_ids"], batches()[i]["input_ids"]) for i in range(3))
    rows, windows = all_rows[0]["input_ids"], none[0]["input_ids"]
    assert torch.equal(rows[:, :16], windows[:, :16])
    assert (rows != windows).any(dim=1).all()
    copied = MutatedCopies(1.0, seed=0).for_training(windows[1].numpy(), 1)
    assert np.array_equal(rows[1], copied)


def test_a_masked_model_has_none(make_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError) as caught:
        make_recipe("training.objective=masked", "data.mutated_copies=0.5")
    assert str(caught.value) == (
        "override 'data.mutated_copies=0.5': data.mutated_copies: 0.5: "
        "expected 0 for a model that is not a causal language model"
    )
    assert make_recipe("training.objective=masked", "data.mutated_copies=0").data.mutated_copies == 0
