import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from reformer import cli
from tests.cli.conftest import RunCommand

COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]
README = Path(__file__).parents[2] / "README.md"


def test_commands() -> None:
    assert {"train", "evaluate", "generate", "info"} <= set(COMMANDS)


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help(run_command: RunCommand, command: tuple[str, ...], flag: str) -> None:
    outcome = run_command(*command, flag)
    assert outcome.code == 0
    assert "Usage: " in outcome.out
    assert outcome.err == ""
    if not command:
        assert all(f" {name} " in outcome.out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_docstring(command: str) -> None:
    assert typer.main.get_command(cli.app).commands[command].help  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"reformer {command}" in README.read_text(encoding="utf-8")


def test_version(run_command: RunCommand) -> None:
    outcome = run_command("--version")
    assert (outcome.code, outcome.out) == (0, f"reformer {version('reformer-torch')}\n")


def test_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "reformer", "--version"], capture_output=True, check=True, text=True
    )
    assert result.stdout.startswith("reformer ")


def test_help_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from reformer.cli import main; assert main(['--help']) == 0;"
        "print([name for name in ('torch', 'transformers', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    def seconds() -> float:  # of the processor, which is what it takes where nothing else runs
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "reformer", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5


def test_no_command_shows_the_help(run_command: RunCommand) -> None:
    outcome = run_command()
    assert outcome.code == 2
    assert "Usage: reformer" in outcome.out + outcome.err


def test_debugging_shows_the_traceback(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFORMER_DEBUG", "1")
    with pytest.raises(ValueError, match="no such file or folder"):
        run_command("info", "missing")


def test_a_fault_of_ours_is_not_hidden(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("reformer.training.inspection.inspect_path", fail)
    with pytest.raises(RuntimeError, match="ours"):
        run_command("info", "x")
