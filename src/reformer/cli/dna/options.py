"""Options of the commands that read whole genomes with a model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reformer.errors import UserError

if TYPE_CHECKING:
    from reformer.genomics.windows import Windows

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")]
GenomeFile = Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")]
TrainingGenomes = Annotated[
    list[Path] | None,
    typer.Option(help="FASTA or GenBank to train on; may be repeated.", show_default=False),
]
NewFolder = Annotated[Path, typer.Option(help="The folder to make.")]
ShownRegion = Annotated[
    str | None, typer.Option(help="What the report shows, NAME:FIRST-LAST.", show_default=False)
]
Window = Annotated[
    int, typer.Option(help="Longest record, in bases, that is read in one pass: about 4 GB for a million.")
]
Overlap = Annotated[int, typer.Option(help="Bases at the inner ends of a window that its neighbours have.")]
OneStrand = Annotated[
    bool, typer.Option("--one-strand", help="Read the sequence only, not its reverse complement too.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]

WINDOW, OVERLAP = 3 << 19, 1 << 14


def windows(window: int, overlap: int) -> "Windows":
    """How long records are cut; UserError where nothing would be left."""
    from reformer.genomics.windows import Windows

    try:
        return Windows(window, overlap)
    except ValueError as error:
        raise UserError(str(error)) from error
