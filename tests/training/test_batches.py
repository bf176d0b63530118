from pathlib import Path

import numpy as np
import pytest
import torch

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.data.tokens import TokenArray
from reformer.errors import UserError
from reformer.training.batches import TrainingBatches, by_length, unwrap_batch
from reformer.training.recipe import Stage
from tests.training.conftest import write_fasta

STAGES = [Stage(length=32, steps=3, batch_size=4), Stage(length=100, steps=2), Stage(length="full", steps=5)]


@pytest.fixture
def array(tmp_path: Path) -> TokenArray:
    return build_token_array(write_fasta(tmp_path / "x.fa", 400, 1, 200), tmp_path)


def test_stages_follow_each_other(array: TokenArray) -> None:
    batches = TrainingBatches(array, STAGES, seed=1, items_per_step=2)
    assert len(batches) == 20
    shapes = [tuple(batches[i]["input_ids"].shape) for i in range(len(batches))]
    assert shapes[:10] == [(4, 32)] * 6 + [(1, 100)] * 4
    assert set(shapes[10:]) == {(1, 400), (1, 200)}  # whole records, never the one of a single token
    assert [batches.length(step) for step in range(1, 6)] == [32, 32, 32, 100, 100]


def test_tokens_are_those_of_the_items(array: TokenArray) -> None:
    batches = TrainingBatches(array, STAGES, seed=1, items_per_step=2)
    counts = [batches[i]["input_ids"].numel() for i in range(len(batches))]
    assert [batches.num_tokens(step) for step in range(11)] == [sum(counts[: 2 * step]) for step in range(11)]


def test_items_are_windows_of_the_data(array: TokenArray) -> None:
    batches = TrainingBatches(array, STAGES, seed=1, items_per_step=1)
    text = array.tokens.tobytes()
    for i in range(len(batches)):
        item = batches[i]
        assert item["input_ids"].dtype == torch.int64
        assert torch.equal(item["input_ids"], item["labels"])
        for row in item["input_ids"]:
            assert row.numpy().astype(np.uint8).tobytes() in text


def test_seed_and_number_determine_an_item(array: TokenArray) -> None:
    batches = [TrainingBatches(array, STAGES, seed=seed, items_per_step=1) for seed in (1, 1, 2)]
    items = [[batch[i]["input_ids"] for i in (4, 2, 0)] for batch in batches]
    assert all(map(torch.equal, items[0], items[1]))
    assert not any(map(torch.equal, items[0], items[2]))
    rows = torch.cat([batches[0][i]["input_ids"] for i in range(3)])
    assert len(torch.unique(rows, dim=0)) == 12  # no window is drawn twice


def test_about_half_of_the_windows_are_of_the_other_strand(array: TokenArray) -> None:
    plain, both = (
        TrainingBatches(array, [Stage(length=32, steps=50, batch_size=4)], 1, 1, other_strand=other)
        for other in (False, True)
    )
    num_turned = 0
    for i in range(len(plain)):
        for window, row in zip(plain[i]["input_ids"], both[i]["input_ids"], strict=True):
            turned = not torch.equal(row, window)
            assert torch.equal(row, reverse_complement(window) if turned else window)
            num_turned += turned
    assert 80 < num_turned < 120


def test_longer_than_every_record(array: TokenArray) -> None:
    with pytest.raises(UserError, match="no record has 401 tokens"):
        TrainingBatches(array, [Stage(length=401, steps=1)], seed=0, items_per_step=1)


def test_unwrap() -> None:
    batch = {"input_ids": torch.zeros(1)}
    assert unwrap_batch([batch]) is batch


def test_batches_by_length_hold_no_more_than_they_may() -> None:
    assert by_length([5, 2, 9, 2, 3, 20], 9) == [[1, 3, 4], [0], [2], [5]]
    assert by_length([3, 3], 6) == [[0, 1]]
    assert by_length([], 6) == []
