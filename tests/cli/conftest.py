"""A trained model, and a way to run commands."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reformer.cli import main
from tests.training.conftest import TINY_MODEL, write_fasta


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


RunCommand = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Runs `reformer ARGUMENTS` in this process."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def recipe_values(folder: Path, train: Path) -> dict[str, Any]:
    """A recipe of 4 steps with output in `folder / "run"`."""
    return {
        "data": {"train": [str(train)]},
        "model": dict(TINY_MODEL),
        "training": {"lengths": [{"length": 32, "steps": 4}], "device": "cpu"},
        "output_dir": str(folder / "run"),
    }


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on nucleotides; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    values = recipe_values(folder, write_fasta(folder / "train.fa", 300))
    values["data"]["cache_dir"] = str(folder / "cache")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert main(["train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def finished_text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on text; not to be changed."""
    folder = tmp_path_factory.mktemp("finished_text")
    (folder / "book.txt").write_text("And the earth was without form, and void. " * 9)
    values = recipe_values(folder, folder / "book.txt")
    values["data"]["cache_dir"] = str(folder / "cache")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert main(["train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"
