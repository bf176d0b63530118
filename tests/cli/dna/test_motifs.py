"""`reformer dna motifs` from the outside."""

import gzip
import json
from pathlib import Path

import pytest

from reformer.genomics.formats.bed import read_bed
from tests.cli.conftest import RunCommand
from tests.genomics.formats.test_motifs import JASPAR
from tests.training.conftest import write_fasta

EBOX = ">MA1 ebox\n0 9 0 0 0 0 9 9\n9 0 9 0 0 0 0 0\n0 0 0 9 0 9 0 0\n0 0 0 0 9 0 0 0\n"  # CACGTGAA


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """Two records; sites of `EBOX` on "+" at 20 of the first, on "-" at 40 of the second."""
    path = write_fasta(tmp_path / "genome.fa", 300, 120, letters="AGT", seed=3)
    header, first, other, second, _ = path.read_text().split("\n")
    first = first[:20] + "cacgtgaa" + first[28:]
    second = second[:40] + "TTCACGTG" + second[48:]
    path.write_text("\n".join([header, first, other, second, ""]))
    return path


def test_scan_writes_bed(run_command: RunCommand, genome: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jaspar").write_text(EBOX)
    outcome = run_command("dna", "motifs", "scan", genome, "m.jaspar", "out.bed", "--threshold", "2e-5")
    assert outcome.code == 0, outcome.err
    assert outcome.out == "out.bed: 2 matches of 1 motif(s) in 420 bases\n"
    rows = [line.split("\t") for line in Path("out.bed").read_text().splitlines()]
    assert [row[:4] + row[5:6] for row in rows] == [
        ["record0", "20", "28", "MA1_ebox", "+"],
        ["record1", "40", "48", "MA1_ebox", "-"],
    ]
    assert all(0 < float(row[6]) <= 2e-5 and float(row[4]) > 10 for row in rows)
    assert [len(region.interval) for region in read_bed("out.bed")] == [8, 8]
    made = json.loads(Path("out.bed.json").read_text())
    assert made["command"] == "reformer dna motifs scan"
    assert made["options"]["threshold"] == 2e-5
    assert made["options"]["motifs"] == str(tmp_path / "m.jaspar")

    before = Path("out.bed").read_bytes(), Path("out.bed.json").read_bytes()
    run_command("dna", "motifs", "scan", genome, "m.jaspar", "out.bed", "--threshold", "2e-5")
    assert (Path("out.bed").read_bytes(), Path("out.bed.json").read_bytes()) == before

    (tmp_path / "r.bed").write_text("record1\t30\t44\nrecord1\t44\t60\nrecord0\t21\t200\n")
    arguments = ("m.jaspar", "in.bed", "--regions", "r.bed", "--threshold", "2e-5")
    outcome = run_command("dna", "motifs", "scan", genome, *arguments)
    assert outcome.out == "in.bed: 1 matches of 1 motif(s) in 209 bases\n"
    assert Path("in.bed").read_text() == Path("out.bed").read_text().splitlines(keepends=True)[1]


def test_genbank_and_gzip_are_genomes_too(run_command: RunCommand, genome: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jaspar").write_text(EBOX)
    letters = genome.read_text().split("\n")[1].lower()
    lines = [f"{i + 1:>9} {letters[i : i + 60]}" for i in range(0, len(letters), 60)]
    (tmp_path / "g.gb").write_text(
        "LOCUS       record0  300 bp DNA linear BCT 01-JAN-2020\nACCESSION   record0\nVERSION     record0\n"
        "ORIGIN\n" + "\n".join(lines) + "\n//\n"
    )
    with gzip.open(tmp_path / "g.fa.gz", "wt") as file:
        file.write(f">record0\n{letters}\n")
    for name in ("g.gb", "g.fa.gz"):
        assert run_command("dna", "motifs", "scan", name, "m.jaspar", f"{name}.bed").code == 0
    assert Path("g.gb.bed").read_text() == Path("g.fa.gz.bed").read_text() != ""


def test_a_short_motif_is_warned_of(run_command: RunCommand, genome: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jaspar").write_text(JASPAR)
    outcome = run_command("dna", "motifs", "scan", genome, "m.jaspar", "out.bed")
    assert (outcome.code, outcome.err.count("\n")) == (0, 2)
    assert "warning: m.jaspar: motif 'MA0001.1_AGL3' is so short" in outcome.err
    assert Path("out.bed").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("m.jaspar", "nowhere/out.bed"), "nowhere/out.bed: expected a file to write"),
        (("missing", "out.bed"), "missing: cannot be read: No such file"),
        (("r.bed", "out.bed"), "r.bed, line 1: not motifs"),
        (("cut.jaspar", "out.bed"), "cut.jaspar, line 1: motif 'MA1_ebox' has 2 rows"),
        (("m.jaspar", "out.bed", "--threshold", "0"), "--threshold 0: expected a p-value above 0"),
        (("m.jaspar", "out.bed", "--regions", "r.bed"), "r.bed: 'chr9' not in "),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run_command: RunCommand, genome: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "m.jaspar").write_text(EBOX)
    (tmp_path / "cut.jaspar").write_text("\n".join(EBOX.split("\n")[:3]))
    (tmp_path / "r.bed").write_text("chr9\t1\t5\n")
    before = sorted(tmp_path.iterdir())
    outcome = run_command("dna", "motifs", "scan", "genome.fa", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
