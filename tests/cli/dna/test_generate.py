"""`reformer dna generate` from the outside."""

import json
from pathlib import Path

import pytest
from Bio import SeqIO

from tests.cli.conftest import RunCommand


def records(path: Path) -> list:
    with open(path) as file:
        return list(SeqIO.parse(file, "fasta"))


def test_from_nothing(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    def draw(name: str, *options: str) -> dict[str, str]:
        outcome = run_command("dna", "generate", finished_run, name, "--length", "130", *options)
        assert (outcome.code, outcome.err) == (0, "")
        return {record.description: str(record.seq) for record in records(tmp_path / name)}

    three = draw("a.fa", "--number", "3")
    assert list(three) == [f"sequence_{i + 1} prompt=0 seed={i}" for i in range(3)]
    assert [len(letters) for letters in three.values()] == [130] * 3
    assert set("".join(three.values())) == set("ACGT")
    assert len(set(three.values())) == 3
    assert draw("b.fa", "--number", "3") == three
    assert (tmp_path / "a.fa.json").read_bytes() == (tmp_path / "b.fa.json").read_bytes()
    made = json.loads((tmp_path / "a.fa.json").read_text())
    assert made["command"] == "reformer dna generate"
    assert (made["options"]["number"], made["options"]["max_new_tokens"], made["options"]["seed"]) == (
        3,
        130,
        0,
    )
    # A sequence is determined by its own seed.
    assert list(draw("c.fa", "--seed", "2").values()) == list(three.values())[2:]
    assert max(map(len, (tmp_path / "a.fa").read_text().splitlines())) == 80


def test_from_prompts(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "p.fa").write_text(">x\nACGTT\nGG\n>y\nCC\n")
    outcome = run_command(
        "dna", "generate", finished_run, "o.fa", "--prompt-file", "p.fa", "--number", "2", "--length", "9"
    )
    assert outcome.out == "o.fa: 4 sequences\n"
    found = {record.id: str(record.seq) for record in records(tmp_path / "o.fa")}
    assert list(found) == ["x_1", "x_2", "y_1", "y_2"]
    assert [len(letters) for letters in found.values()] == [16, 16, 11, 11]
    assert found["x_2"].startswith("ACGTTGG")
    one = run_command("dna", "generate", finished_run, "one.fa", "--prompt", "ACGTTGG", "--length", "9")
    assert one.code == 0
    assert str(records(tmp_path / "one.fa")[0].seq) == found["x_1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("o.fa", "--prompt", "ACQ"), "sequence: prompt, "),
        (("o.fa", "--prompt", "A", "--prompt-file", "p.fa"), "expected one of --prompt and --prompt-file"),
        (("o.fa", "--length", "0"), "--length is 0, --number is 1: expected at least 1"),
        (("o.fa", "--temperature", "0"), "temperature is 0.0"),
        (("no/o.fa",), "expected a file to write, in a folder that exists"),
    ],
)
def test_what_cannot_be(
    run_command: RunCommand, finished_run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = run_command("dna", "generate", finished_run, *arguments)
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert message in outcome.err
    assert list(tmp_path.iterdir()) == []
