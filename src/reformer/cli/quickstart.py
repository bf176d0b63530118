"""`reformer quickstart`."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[
        Path | None, typer.Option(help="The run folder; by default the next free one of runs/quickstart*.")
    ] = None,
) -> None:
    """Train a small Reformer on a whole yeast chromosome, test it on another species, show the result."""
    from rich.console import Console

    from reformer.genomics.quickstart import TEST_FILE, TRAIN_FILE, quickstart, summary, yeast_file

    folder = out or _free_folder()
    report = quickstart(folder, Console(stderr=True))
    if report is None:
        raise typer.Exit(130)
    model = folder / "model"
    print()
    for line in summary(folder):
        print(line)
    print(f"\nreport   {report}\nmodel    {model}\nmetrics  {folder / 'metrics.jsonl'}\n\nNext:")
    print(f"  reformer evaluate {model} {yeast_file(TEST_FILE)}")
    print(f"  reformer generate {model} --prompt ATGAGTACTGAAGTTCCAGCTAAATGG --max-new-tokens 100")
    print(f"  reformer info {yeast_file(TRAIN_FILE)}")


def _free_folder() -> Path:
    number = 1
    while (folder := Path("runs") / ("quickstart" if number == 1 else f"quickstart-{number}")).exists():
        number += 1
    return folder
