"""The broken files of `tests.genomics.formats.test_broken_files`, given to the commands that read them."""

from pathlib import Path

import pytest

from tests.cli.conftest import RunCommand
from tests.genomics.formats.test_broken_files import BROKEN

TRANSLATE = ("translate", "genome.fa", "FILE", "out.faa")
# The model is looked at last, so that there need be none.
COMMANDS: dict[str, tuple[str, ...]] = {
    ".gff": TRANSLATE,
    ".gtf": TRANSLATE,
    ".txt": TRANSLATE,
    ".gb": ("translate", "FILE", "FILE", "out.faa"),
    ".fa": ("translate", "FILE", "genes.gff3", "out.faa"),
    ".bed": ("embed", "model", "genome.fa", "out.parquet", "--regions", "FILE"),
    ".vcf": ("score", "model", "FILE", "genome.fa", "out.vcf.gz"),
}
CASES = [
    (case, COMMANDS[suffix])
    for case in BROKEN
    if (suffix := Path(case[0].removesuffix(".gz")).suffix) in COMMANDS
]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "genome.fa").write_text(">c\n" + "A" * 99 + "\n")
    (tmp_path / "genes.gff3").write_text("##gff-version 3\nx\t.\tCDS\t1\t4\t.\t-\t0\tID=g\n")
    return tmp_path


@pytest.mark.parametrize(("case", "command"), CASES, ids=[f"{n}-{c[0]}" for n, (c, _) in enumerate(CASES)])
def test_one_line_and_nothing_left(
    run_command: RunCommand, work: Path, case: tuple[str, bytes, str], command: tuple[str, ...]
) -> None:
    name, content, message = case
    (work / name).write_bytes(content)
    before = sorted(work.rglob("*"))
    outcome = run_command("dna", *(name if word == "FILE" else word for word in command))
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert line.startswith("reformer: error: ")
    assert name in line
    assert message in line
    assert sorted(work.rglob("*")) == before


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 60
    assert {command[0] for _, command in CASES} == {"translate", "embed", "score"}
