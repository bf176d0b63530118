"""The command line: one module and one typed function per command, whose docstring is the command's help.

Nothing here imports torch or transformers before a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from reformer.cli.bench import bench
from reformer.cli.convert import convert
from reformer.cli.dna import app as dna
from reformer.cli.evaluate import evaluate
from reformer.cli.generate import generate
from reformer.cli.info import info
from reformer.cli.quickstart import quickstart
from reformer.cli.serve import serve
from reformer.cli.train import train
from reformer.errors import UserError
from reformer.training.memory import keep_freed_memory

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (quickstart, train, evaluate, generate, serve, bench, convert, info):
    app.command()(command)
app.add_typer(dna, name="dna")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"reformer {version('reformer-torch')}")
        raise typer.Exit


@app.callback()
def reformer(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Train and use Reformer models on sequences as long as they come."""


environment_at_start = dict(os.environ)
"""What the process was given, without what `prepare_process` adds."""


def prepare_process() -> None:
    """Sets what makes long work on a CPU fast; before torch is imported, for it reads the first when it is.

    Threads that spin for long while they wait for each other cost ten times the time where another program
    wants a core too; ones that never spin, twice the time where none does. Memory that is freed stays with
    the process.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    keep_freed_memory()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    What the user can put right is one line on standard error; `REFORMER_DEBUG=1` shows the traceback too.

    Args:
        arguments: those of the process by default.

    Returns:
        The exit status: 0, 2 for an error that the user can put right, 130 after Ctrl-C.
    """
    prepare_process()
    try:
        status = typer.main.get_command(app).main(
            args=None if arguments is None else list(arguments), prog_name="reformer", standalone_mode=False
        )
        return status if isinstance(status, int) else 0
    except Exception as error:
        message = _one_line(error)
        if message is None or os.environ.get("REFORMER_DEBUG") == "1":
            raise
        if message:  # none where typer has printed the help instead
            print(f"reformer: error: {message}", file=sys.stderr)
        return 2


def _one_line(error: Exception) -> str | None:
    """What to tell the user about an error; None for an error of ours."""
    if isinstance(error, _UsageError):
        return str(error.format_message())  # type: ignore[attr-defined]
    if isinstance(error, (UserError, FloatingPointError)):  # the latter: a residual stream overflowed
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return place + (error.strerror or str(error))
    if _is_out_of_memory(error):
        return f"out of memory: {str(error).splitlines()[0]}"
    return None


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error)
