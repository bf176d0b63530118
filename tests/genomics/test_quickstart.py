"""`reformer quickstart`, with most of the training left out, and whole."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reformer.errors import UserError
from reformer.genomics import quickstart
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene, Segment, Transcript
from tests.cli.conftest import RunCommand, run_command

__all__ = ["run_command"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, yeast_folder: Path) -> None:
    monkeypatch.setenv("REFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def check(folder: Path, out: str, num_tokens: int) -> None:
    """What a quickstart leaves and prints."""
    assert (folder / "model" / "annotation.json").exists()
    found = sorted(path.name for path in (folder / "annotation").iterdir())
    assert found == [
        "genes.bed",
        "genes.gff3",
        "genes.tsv",
        "provenance.json",
        "report.html",
        "scores.json",
        "tracks",
    ]
    assert (folder / "annotation" / "report.html").read_text().count("SSA1") >= 1
    scores = json.loads((folder / "annotation" / "scores.json").read_text())
    assert scores["genes"]["exact stop"]["true"] == 88
    assert scores["genes"]["exact stop"]["f1"] > 0.2  # few steps teach little, the statistics of codons some
    for name in ("intergenic", "CDS+", "CDS-"):
        assert f"{name} {scores['decoded']['classes'][name]['f1']:.4f}" in out
    assert f"exact stop {scores['genes']['exact stop']['f1']:.4f}" in out
    assert re.search(r"^SSA1 +- 142,019-143,947 +", out, re.MULTILINE)
    assert re.search(r"^EFB1 +\+ 144,620-144,699, 145,052-145,595 +", out, re.MULTILINE)

    memory = json.loads((folder / "memory.json").read_text())
    assert memory["tokens"] == num_tokens
    used = memory["peak_memory_bytes"] - memory["baseline_memory_bytes"]
    (full,) = memory["full_attention_bytes"].values()
    assert full == 2 * 2 * num_tokens**2 * 4
    assert f"{used / 2**20:,.0f} MiB" in out
    assert "full attention" in (folder / "report.html").read_text()
    for path in ("model", "report.html", "annotation/report.html", "annotation/genes.gff3"):
        assert str(folder / path) in out
    for command in ("dna annotate predict", "dna score", "dna generate"):
        assert f"reformer {command} " in out


def test_side_by_side_shows_what_is_missed_and_what_is_not_there() -> None:
    def lines(true: list[tuple[int, int]], called: list[tuple[int, int]]) -> list[str]:
        return [line.split(maxsplit=1)[1] for line in quickstart._side_by_side(genes(true), genes(called))]

    assert lines([(140_100, 140_400)], [(140_100, 140_400)]) == [f"{'+ 140,101-140,400':36}the same"]
    assert lines([(140_100, 140_400)], [(140_130, 140_400)]) == [f"{'+ 140,101-140,400':36}+ 140,131-140,400"]
    assert lines([(140_100, 140_400)], []) == [f"{'+ 140,101-140,400':36}not called"]
    assert lines([], [(140_100, 140_400)]) == ["+ 140,101-140,400"]
    assert lines([(100, 400)], [(100, 400)]) == []


def genes(places: list[tuple[int, int]]) -> list[Gene]:
    found = []
    for number, (start, end) in enumerate(places):
        interval = Interval("NC_079272.1", start, end, "+")
        transcript = Transcript("t", "mRNA", interval, (interval,), (Segment(start, end, 0),))
        found.append(Gene(f"g{number}", "gene", interval, (transcript,)))
    return found


def test_stopped_by_ctrl_c_it_goes_on_to_the_end(
    monkeypatch: pytest.MonkeyPatch, run_command: RunCommand
) -> None:
    stages = [{"length": 512, "steps": 20}, {"length": 8192, "steps": 1}]
    program = (
        "import sys; from reformer.genomics import quickstart; from reformer.cli import main;"
        f"quickstart._STAGES = {stages}; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "quickstart"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step "))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert "  reformer quickstart --out runs/quickstart --resume\n" in out
    assert not Path("runs/quickstart/annotation").exists()

    again = run_command("quickstart", "--out", "runs/quickstart")
    assert again.code == 2
    assert "not empty" in again.err
    for library in ("Bio", "gemmi", "h5py", "mdtraj", "pyarrow", "pysam"):  # of "genomics", not "quickstart"
        monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setattr(quickstart, "_STAGES", stages)
    outcome = run_command("quickstart", "--out", "runs/quickstart", "--resume")
    assert outcome.code == 0, outcome.err
    check(Path("runs/quickstart"), outcome.out, num_tokens=8192)


def test_resume_needs_a_folder(run_command: RunCommand) -> None:
    outcome = run_command("quickstart", "--resume")
    assert outcome.code == 2
    assert "--out" in outcome.err


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"reformer-torch\[quickstart\]"):
        quickstart.yeast_file(quickstart.TRAIN_FILE)


@pytest.mark.slow
def test_the_whole_of_it(run_command: RunCommand) -> None:
    outcome = run_command("quickstart", "--out", "run")
    assert outcome.code == 0, outcome.err
    check(Path("run"), outcome.out, num_tokens=230_218)
    scores = json.loads(Path("run/annotation/scores.json").read_text())
    assert min(scores["decoded"]["classes"][name]["f1"] for name in ("intergenic", "CDS+", "CDS-")) > 0.95
    assert scores["genes"]["exact stop"]["f1"] > 0.9
