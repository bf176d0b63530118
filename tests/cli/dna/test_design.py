"""`reformer dna design` from the outside."""

import json
from pathlib import Path

import pytest
import yaml

from reformer.genomics.design.goals import load_goal
from tests.cli.conftest import RunCommand, recipe_values
from tests.cli.dna.test_classify import classification_run
from tests.training.conftest import write_fasta

__all__ = ["classification_run"]

FILES = ["designed.fa", "provenance.json", "report.html", "steps.tsv"]


@pytest.fixture
def starts(tmp_path: Path) -> Path:
    """Two records of different lengths, N and lower case in the first."""
    path = write_fasta(tmp_path / "starts.fa", 50, 40, letters="ATATC", seed=4)
    lines = path.read_text().split("\n")
    lines[1] = lines[1][:10] + "Nn" + lines[1][12:30].lower() + lines[1][30:]
    path.write_text("\n".join(lines))
    return path


def records_of(path: Path) -> dict[str, tuple[str, str]]:
    """Name -> description and letters."""
    found = {}
    for record in path.read_text().split(">")[1:]:
        header, _, letters = record.partition("\n")
        name, _, description = header.partition(" ")
        found[name] = description, letters.replace("\n", "")
    return found


def steps_of(path: Path) -> dict[str, list[list[str]]]:
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert lines[0] == ["#sequence", "step", "position", "from", "to", "goal_before", "goal_after"]
    found: dict[str, list[list[str]]] = {}
    for name, *cells in lines[1:]:
        found.setdefault(name, []).append(cells)
    return found


def test_it_writes_what_the_model_says_of_each_step(
    run_command: RunCommand, finished_run: Path, starts: Path
) -> None:
    Path("keep.bed").write_text("record0\t0\t20\nrecord0\t40\t50\nrecord1\t5\t6\n")
    command = ("dna", "design", finished_run, starts, "out", "--steps", "3", "--keep", "keep.bed")
    outcome = run_command(*command)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("out: 6 substitutions in 2 sequence(s), likelihood from -")
    assert sorted(path.name for path in Path("out").iterdir()) == FILES
    before, designed = records_of(starts), records_of(Path("out/designed.fa"))
    steps = steps_of(Path("out/steps.tsv"))
    goal = load_goal(finished_run, None, "cpu")
    for name, (_, text) in before.items():
        value = goal.values([text])[0]
        before_design = float(designed[name][0].split()[0].removeprefix("before="))
        assert before_design == pytest.approx(value, abs=1e-4)
        for number, (step, position, old, new, was, now) in enumerate(steps[name], start=1):
            place = int(position) - 1
            assert (int(step), text[place]) == (number, old)
            assert old.islower() == new.islower()
            assert not (name == "record0" and (place < 20 or place >= 40))
            text = text[:place] + new + text[place + 1 :]
            assert float(was) == pytest.approx(value, abs=1e-4)
            value = goal.values([text])[0]
            assert float(now) == pytest.approx(value, abs=1e-4)
            assert float(now) > float(was)
        assert designed[name][1] == text
        assert designed[name][0].endswith(f"after={steps[name][-1][-1]} substitutions=3 goal=likelihood")
    made = json.loads(Path("out/provenance.json").read_text())
    assert made["command"] == "reformer dna design"
    assert (made["options"]["goal"], made["options"]["steps"]) == ("likelihood", 3)
    assert Path("out/report.html").read_text().count("<svg") >= 1
    again = [*command]
    again[4] = "again"
    assert run_command(*again).code == 0
    for name in FILES:
        assert Path("again", name).read_bytes() == Path("out", name).read_bytes()


def test_a_label_becomes_likelier_or_less_likely(
    run_command: RunCommand, classification_run: Path, starts: Path
) -> None:
    for name, more in (("up", ()), ("down", ("--minimize", "--beam", "2"))):
        outcome = run_command(
            "dna", "design", classification_run, starts, name, "--goal", "rich", "--steps", "2", *more
        )
        assert outcome.code == 0, outcome.err
    goal = load_goal(classification_run, "rich", "cpu")
    start, up, down = (
        goal.values([records_of(path)["record1"][1]])[0]
        for path in (starts, Path("up/designed.fa"), Path("down/designed.fa"))
    )
    assert down < start < up


def test_what_cannot_be_improved_is_left_as_it_is(run_command: RunCommand, classification_run: Path) -> None:
    Path("s.fa").write_text(">g\n" + "GC" * 30 + "\n")
    outcome = run_command("dna", "design", classification_run, "s.fa", "out", "--goal", "rich")
    assert outcome.code == 0, outcome.err
    (_, letters) = records_of(Path("out/designed.fa"))["g"]
    found = steps_of(Path("out/steps.tsv"))
    assert len(found.get("g", [])) < 10
    goal = load_goal(classification_run, "rich", "cpu")
    others = [letters[:i] + b + letters[i + 1 :] for i in range(60) for b in "ACGT"]
    assert goal.values(others).max() <= goal.values([letters])[0] + 1e-5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", "0"), "--steps is 0, --beam is 1: expected at least 1"),
        (("--beam", "0"), "--steps is 10, --beam is 0: expected at least 1"),
        (("--goal", "rich"), "no goal 'rich': expected --goal to be one of likelihood"),
        (("--keep", "all.bed"), "in 'record1' nothing may change: expected A, C, G or T outside of all.bed"),
        (("--keep", "long.bed"), "long.bed: a region ends at 41, but 'record1' has 40 bases"),
        (("--keep", "other.bed"), "'chr9'"),
        (("--keep", "none.bed"), "none.bed: cannot be read"),
        (("--device", "tpu"), "device 'tpu': expected auto, cpu or cuda"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run_command: RunCommand, finished_run: Path, starts: Path, more: tuple[str, ...], message: str
) -> None:
    Path("all.bed").write_text("record1\t0\t40\n")
    Path("long.bed").write_text("record1\t0\t41\n")
    Path("other.bed").write_text("chr9\t0\t41\n")
    before = sorted(Path().iterdir())
    outcome = run_command("dna", "design", finished_run, starts, "out", *more)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "s.fa: the file is empty"),
        (">a\nNNNN\n", "s.fa: in 'a' nothing may change: expected A, C, G or T\n"),
        (">a\nACGT\n>b\nACJT\n", "s.fa: in 'b': 'J' is not a nucleotide letter"),
        ("ACGT\n", "s.fa, line 1: not FASTA"),
    ],
)
def test_starts_that_are_none(
    run_command: RunCommand, finished_run: Path, content: str, message: str
) -> None:
    Path("s.fa").write_text(content)
    outcome = run_command("dna", "design", finished_run, "s.fa", "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("out").exists()


def test_a_folder_that_is_there_stays(run_command: RunCommand, finished_run: Path, starts: Path) -> None:
    Path("out").mkdir()
    outcome = run_command("dna", "design", finished_run, starts, "out")
    assert (outcome.code, outcome.err) == (2, "reformer: error: out: exists: expected a folder to make\n")


def test_more_bases_than_the_model_has_positions(run_command: RunCommand, tmp_path: Path) -> None:
    values = recipe_values(tmp_path, write_fasta(tmp_path / "train.fa", 100))
    values["model"] |= {"position_embedding_type": "learned", "max_position_embeddings": 64}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert run_command("train", "recipe.yaml").code == 0
    write_fasta(tmp_path / "s.fa", 60, 70)
    outcome = run_command("dna", "design", "run", "s.fa", "out")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == (
        "reformer: error: s.fa: 'record1' has 70 bases: expected 64 at most, the positions of the model "
        "(max_position_embeddings)\n"
    )
