"""`reformer bench`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError


def bench(
    cases: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CASE",
            help="op, kernel, short, training or million; by default all but the last, at short lengths.",
        ),
    ] = None,
    lengths: Annotated[
        str, typer.Option(help="Tokens, such as 512,1024, instead of the case's own.", show_default=False)
    ] = "",
    contenders: Annotated[
        str, typer.Option(help="Who takes part, such as chunk,sdpa; all by default.", show_default=False)
    ] = "",
    turns: Annotated[int, typer.Option(help="Measurements of each contender, in turn.")] = 5,
    prepared: Annotated[
        bool,
        typer.Option(
            "--prepared",
            help="Give all the settings of threads and memory that reformer's commands run with, "
            "instead of those of any Python program.",
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="The folder for JSON and pictures.")] = Path("runs/bench"),
    worker: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    r"""Time LSH attention and training steps on this machine, next to what one would use instead.

    Contenders are right before they are measured. Those that are not installed are left out and named;
    `pip install 'reformer-torch\[bench]'` brings all. Ctrl-C keeps what was measured.
    """
    if worker is not None:
        from reformer.bench.registry import CASES
        from reformer.bench.worker import serve

        serve(CASES, *worker.split("/"))
        return
    from reformer.bench.command import run_cases
    from reformer.cli import environment_at_start

    try:
        fine = run_cases(
            cases or [],
            out,
            lengths=[_number(one) for one in _items(lengths)],
            contenders=_items(contenders),
            turns=turns,
            prepared=prepared,
            environment=environment_at_start,
        )
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not fine:
        raise typer.Exit(1)


def _items(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UserError(f"--lengths must be whole numbers with commas between them, got {text!r}")
    return int(text)
