"""`reformer dna embed` from the outside."""

import json
from pathlib import Path

import h5py
import pyarrow.parquet as parquet
import pytest

from reformer.genomics import embedding
from reformer.genomics.windows import Windows
from reformer.training.model_folder import resolve_device
from tests.cli.conftest import RunCommand
from tests.training.conftest import write_fasta


def test_a_row_for_each_window(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "g.fa", 300, 50)
    outcome = run_command("dna", "embed", finished_run, genome, "e.parquet", "--window", "100")
    assert (outcome.code, outcome.err, outcome.out) == (0, "", "e.parquet: 350 bases read\n")
    table = parquet.read_table(tmp_path / "e.parquet")
    assert table["end"].to_pylist() == [100, 200, 300, 50]
    assert len(table["embedding"][0]) == 32
    again = run_command("dna", "embed", finished_run, genome, "f.parquet", "--window", "100")
    assert again.code == 0
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "f.parquet").read_bytes()
    options = {"regions": None, "window": 100, "step": None, "pooling": "mean", "both_strands": False}
    made = json.loads(table.schema.metadata[b"reformer"])
    assert made["options"] == {"genome": str(genome), **options, "device": resolve_device("auto")}
    assert made["model"]["folder"] == str(finished_run / "model")
    for name in ("e.h5", "f.h5"):
        assert run_command("dna", "embed", finished_run, genome, name, "--window", "100").code == 0
    with h5py.File(tmp_path / "e.h5") as file:
        assert json.loads(file.attrs["reformer"]) == made
    assert (tmp_path / "e.h5").read_bytes() == (tmp_path / "f.h5").read_bytes()


def test_a_sequence_that_is_too_long_for_one_pass_is_a_row(
    run_command: RunCommand, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "WINDOWS", Windows(128, 16))
    monkeypatch.setattr(embedding, "_TOKENS_PER_BATCH", 128)
    genome = write_fasta(tmp_path / "g.fa", 300, 50)
    outcome = run_command("dna", "embed", finished_run, genome, "e.parquet")
    said = "e.parquet: 350 bases read, 1 of the sequences in windows of 128\n"
    assert (outcome.code, outcome.err, outcome.out) == (0, "", said)
    assert parquet.read_table(tmp_path / "e.parquet")["end"].to_pylist() == [300, 50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("e.csv",), "e.csv: expected a name that ends with .parquet, .h5, .hdf5"),
        (("no/e.h5",), "expected a file to write, in a folder that exists"),
        (("e.h5", "--regions", "empty.bed"), "e.h5: nothing to embed: expected at least one region"),
        (("e.h5", "--pooling", "first"), "'mean', 'last', 'per-base'"),
    ],
)
def test_what_cannot_be(
    run_command: RunCommand, finished_run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty.bed").write_text("# nothing\n")
    genome = write_fasta(tmp_path / "g.fa", 30)
    outcome = run_command("dna", "embed", finished_run, genome, *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert not list(tmp_path.glob("*e.*"))
