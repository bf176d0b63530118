"""`reformer info`."""

from pathlib import Path
from typing import Annotated

import typer


def info(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A model, checkpoint, run or token array folder, or a FASTA, GenBank or text file.",
        ),
    ],
) -> None:
    """Say what a folder or file is, and whether it is whole."""
    from rich.console import Console
    from rich.table import Table

    from reformer.training.inspection import inspect_path

    table = Table.grid(padding=(0, 2))
    for name, value in inspect_path(path):
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)
