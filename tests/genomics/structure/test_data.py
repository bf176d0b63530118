"""Training data from folders: which chains are used, and that none is like one that is evaluated on."""

import json
from itertools import combinations, product

import numpy as np
import pytest

from reformer.data.proteins import protein_table
from reformer.errors import UserError
from reformer.genomics.formats.structures import read_structure
from reformer.genomics.structure.data import NO_LABEL, StructureData
from reformer.genomics.structure.protein_clusters import Aligner
from reformer.genomics.structure.recipe import load_structure_recipe
from tests.genomics.made_structures import made_chain, write_chains
from tests.genomics.structure.test_protein_clusters import random_protein


@pytest.fixture
def folder(tmp_path):
    """Five unlike chains, the first of them in three versions: a copy, a near copy, a relative."""
    folder = tmp_path / "structures"
    (folder / "more").mkdir(parents=True)
    one = random_protein(0, 60)
    near, relative = one[:58] + "WW", one[:30] + random_protein(9, 20)
    write_chains(folder / "a.pdb", {"A": made_chain(one, 30), "B": made_chain(one, 30)})
    write_chains(folder / "b.cif", {"A": made_chain(near, 30), "C": made_chain(relative, 30)}, without="O")
    for number in range(1, 5):
        letters = random_protein(number, 40 + number)
        write_chains(folder / "more" / f"c{number}.pdb", {"A": made_chain(letters, 20)})
    write_chains(folder / "more" / "short.pdb", {"A": made_chain("MKVLAEFGHW", 10)})
    (folder / "more" / "broken.cif").write_text("data_x\nloop_\n_a.b\n_a.c\n1\n")
    (folder / "notes.txt").write_text("not a structure")
    return folder


def recipe(folder, tmp_path, **values):
    values = {
        "data.train": [str(folder)],
        "output_dir": "run",
        "data.cache_dir": str(tmp_path / "c"),
    } | values
    return load_structure_recipe(None, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def names(array):
    return [record.name for record in array.records]


def test_copies_short_chains_and_broken_files_are_left_out(folder, tmp_path):
    data = StructureData.of(recipe(folder, tmp_path, **{"structure.validation": 0, "structure.test": 0}))
    assert names(data.train) == ["a.pdb:A", "b.cif:C", "c1.pdb:A", "c2.pdb:A", "c3.pdb:A", "c4.pdb:A"]
    assert data.held_out == {}
    reasons = "\n".join(data.left_out)
    assert "broken.cif: neither PDB nor mmCIF" in reasons
    assert "short.pdb, chain A: 10 residues" in reasons
    assert "b.cif:A: nearly the same as a longer chain" in reasons
    files = data.sources()["train"]["files"]
    assert [file["path"].rpartition("/")[2] for file in files] == [
        "a.pdb",
        "b.cif",
        *(f"c{n}.pdb" for n in range(1, 5)),
    ]


@pytest.mark.parametrize("classes", [3, 8])
def test_tokens_and_labels_are_those_of_the_files(folder, tmp_path, classes):
    values = {"structure.test": 0.4, "structure.classes": classes}
    loaded = recipe(folder, tmp_path, **values)
    data, letters = StructureData.of(loaded), loaded.structure.letters
    assert len(letters) == classes
    for array in (data.train, *data.held_out.values()):
        for record in array.records:
            file, _, chain_name = record.name.partition(":")
            (path,) = folder.rglob(file)
            (chain,) = (c for c in read_structure(path, "coordinates") if c.name == chain_name)
            tokens = array.window(record.start, record.length)
            assert tokens.tobytes() == chain.letters.encode().translate(protein_table())
            labels = data.labels[record.start : record.start + record.length]
            wanted = chain.three_classes if classes == 3 else chain.labels
            assert "".join("?" if n == NO_LABEL else letters[n] for n in labels) == wanted
            assert (labels == NO_LABEL).sum() == (file == "b.cif")


@pytest.mark.parametrize("seed", range(4))
def test_no_chain_to_train_on_is_like_one_that_is_held_out(folder, tmp_path, seed):
    values = {"structure.test": 0.3, "training.seed": seed, "structure.identity": 0.3}
    data = StructureData.of(recipe(folder, tmp_path, **values))
    sets, letters = {"train": data.train, **data.held_out}, {}
    assert list(sets) == ["train", "test", "validation"]
    assert list(data.validation) == ["validation"]
    for array in sets.values():
        for name in names(array):
            file, _, chain_name = name.partition(":")
            (path,) = folder.rglob(file)
            letters[name] = next(c.letters for c in read_structure(path) if c.name == chain_name)
    aligner = Aligner()
    for first, second in combinations(sets.values(), 2):
        for one, other in product(names(first), names(second)):
            assert aligner.identity(letters[one], letters[other]) < 0.3
    assert len(letters) == 6
    assert len(data.held_out["test"].records) >= 0.3 * 6
    assert len(data.held_out["validation"].records) >= 0.1 * 6


def test_chains_like_those_of_an_evaluation_set_are_not_trained_on(folder, tmp_path):
    relative = random_protein(0, 60)[5:55]
    path = write_chains(tmp_path / "test.pdb", {"A": made_chain(relative, 30)})
    data = StructureData.of(
        recipe(
            folder,
            tmp_path,
            **{"data.eval": {"test": [str(path)]}, "structure.validation": 0, "structure.test": 0},
        )
    )
    assert names(data.held_out["test"]) == ["test.pdb:A"]
    assert data.validation == {}
    assert not {"a.pdb:A", "b.cif:C"} & set(names(data.train))
    assert len(data.train.records) == 4
    assert sum("identical to a chain to evaluate on" in reason for reason in data.left_out) == 2


def test_a_broken_file_that_is_named_is_an_error(folder, tmp_path):
    with pytest.raises(UserError, match=r"broken.cif: neither PDB nor mmCIF"):
        StructureData.of(recipe(folder / "more" / "broken.cif", tmp_path))


def test_a_folder_without_chains_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"empty: no protein chain of 30 residues or more: expected PDB or mmCIF"
    ):
        StructureData.of(recipe(tmp_path / "empty", tmp_path))


def test_records_of_secondary_structure_must_be_there(folder, tmp_path):
    with pytest.raises(UserError, match="no protein chain"):
        StructureData.of(recipe(folder, tmp_path, **{"structure.assignment": "records"}))


def test_one_cluster_cannot_be_split(folder, tmp_path):
    with pytest.raises(
        UserError, match=r"data.train: no chain is left for 'train': 2 chains in 1 clusters of 25% identity"
    ):
        StructureData.of(
            recipe(
                folder / "b.cif", tmp_path, **{"data.train": [str(folder / "a.pdb"), str(folder / "b.cif")]}
            )
        )


def test_labels_know_nothing_of_the_order_of_sets(folder, tmp_path):
    one = StructureData.of(recipe(folder, tmp_path, **{"structure.test": 0.4, "training.seed": 1}))
    other = StructureData.of(recipe(folder, tmp_path, **{"structure.test": 0.4, "training.seed": 1}))
    assert np.array_equal(one.labels, other.labels)
    assert names(one.train) == names(other.train)
