from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import splice


@pytest.fixture
def data(tmp_path: Path) -> splice.Data:
    generator = np.random.default_rng(0)
    rows = [[*generator.choice(list("ACGT"), 60), ("EI", "IE", "N")[number % 3]] for number in range(60)]
    rows += [rows[0], [*rows[1][:-1], "N"]]
    (tmp_path / "splice.dat").write_text("@relation x\n" + "".join(", ".join(row) + "\n" for row in rows))
    return splice.open_data(tmp_path / "splice.dat", tmp_path)


def test_duplicates_are_counted_and_in_one_fold(data: splice.Data) -> None:
    assert data.facts() == {
        "sequences": 62,
        "classes": {"EI": 21, "IE": 20, "N": 21},
        "different_sequences": 60,
        "sequences_that_occur_more_than_once": 4,
        "of_these_with_several_labels": 1,
    }
    assert data.folds[60] == data.folds[0]
    assert data.folds[61] == data.folds[1]
    assert sorted(np.bincount(data.folds))[0] >= 6


@pytest.mark.parametrize("name", list(splice.CONTENDERS))
def test_a_fold_is_scored_on_what_was_not_trained_on(data: splice.Data, name: str) -> None:
    row = splice.measure(name, data, fold=3, seed=0, epochs=1, choose=None)
    assert np.sum(row["confusion"]) == (data.folds == 3).sum()
    assert row["accuracy"] == np.trace(row["confusion"]) / np.sum(row["confusion"])
    assert 60_000 < row["parameters"] < 600_000
    summary = splice.summary([row, {**row, "accuracy": 0.0, "fold": 5}])[name]
    assert summary["accuracy"] == row["accuracy"] / 2
    assert summary["accuracy_of_the_first_five_folds"] == row["accuracy"]


def test_choices_are_made_without_the_first_five_folds(
    data: splice.Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[int] = []

    def seen(recipe: Any) -> Any:
        assert recipe.model["hidden_dropout_prob"] == 0.5
        trained.append(Path(recipe.classification.train[0]).read_text().count("\n"))
        return splice.cnn(recipe)

    monkeypatch.setitem(splice.CONTENDERS, "cnn", seen)
    splice.measure("cnn", data, 7, 0, 1, ["model.hidden_dropout_prob=0.5"])
    assert trained == [np.isin(data.folds, [5, 6, 8, 9]).sum()]
