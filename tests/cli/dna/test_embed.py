"""`reformer dna embed` from the outside."""

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

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
