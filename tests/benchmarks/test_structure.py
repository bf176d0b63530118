import json
import sys
from collections import Counter

import numpy as np
import pytest

from benchmarks import structure
from reformer.genomics.formats.structures import read_structure
from tests.genomics.made_structures import made_chain, write_chains
from tests.genomics.structure.test_protein_clusters import random_protein


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the benchmark on six made chains; returns what it leaves."""
    folder = tmp_path / "structures"
    folder.mkdir()
    for number in range(6):
        chain = made_chain(random_protein(number, 40 + 5 * number), 20 + 2 * number)
        write_chains(folder / f"c{number}.pdb", {"A": chain})

    def run(*words):
        command = ["structure", str(folder), "--out", str(tmp_path / "out"), "--folds", "3", "--seeds", "0"]
        monkeypatch.setattr(sys, "argv", [*command, *words])
        structure.main()
        return json.loads((tmp_path / "out" / "structure.json").read_text())["rows"]

    return run


def test_clusters_are_whole_in_folds_of_about_one_size():
    cluster_of = [0, 0, 2, 3, 4, 4, 4, 7, 8]
    for seed in range(3):
        folds = structure.folds_of(cluster_of, 3, seed)
        assert sorted(number for fold in folds for number in fold) == list(range(9))
        assert all(len({n in fold for n in (4, 5, 6)}) == 1 for fold in folds)
        assert max(map(len, folds)) - min(map(len, folds)) <= 3  # the largest cluster


def test_the_majority_is_that_of_the_training_chains(run, tmp_path):
    rows = run("--contenders", "majority")
    assert [(row["seed"], row["fold"], row["chains"]) for row in rows] == [(0, fold, 2) for fold in range(3)]
    chains = [read_structure(path, "coordinates")[0] for path in sorted((tmp_path / "structures").iterdir())]
    for figure, labels in (
        ("q3_by_chain", [chain.three_classes for chain in chains]),
        ("q8_by_chain", [chain.labels for chain in chains]),
    ):
        most = Counter("".join(labels)).most_common(1)[0][0]
        share = np.mean([np.mean([letter == most for letter in one if letter != "?"]) for one in labels])
        assert np.mean([row[figure] for row in rows]) == pytest.approx(share)


def test_only_what_is_missing_is_measured(run, tmp_path, monkeypatch):
    before = run("--contenders", "majority")
    file = tmp_path / "out" / "structure.json"
    content = json.loads(file.read_text())
    del content["rows"][1]["q8_by_chain"]
    content["rows"][1]["train_cpu_seconds"] = 7.0
    file.write_text(json.dumps(content))
    measured = []
    measure = structure.measure

    def counted(name, data, recipe, seed):
        measured.append(recipe.structure.classes)
        return measure(name, data, recipe, seed)

    monkeypatch.setattr(structure, "measure", counted)
    after = run("--contenders", "majority")
    assert measured == [8]
    assert after[1].pop("train_cpu_seconds") == 7.0
    assert after == before
