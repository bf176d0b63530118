"""`reformer quickstart`."""

from pathlib import Path
from typing import Annotated

import typer


def quickstart(
    out: Annotated[
        Path | None, typer.Option(help="The run folder; by default the next free one of runs/quickstart*.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Learn from a yeast chromosome what genes are, find those of another species, show how right that is."""
    from rich.console import Console

    from reformer.errors import UserError
    from reformer.genomics.quickstart import quickstart

    if resume and out is None:
        raise UserError("--resume: expected --out with the folder of the run")
    folder = out or _free_folder()
    lines = quickstart(folder, Console(stderr=True), resume=resume)
    if lines is None:
        print(f"or, to the end of the quickstart, with:\n  reformer quickstart --out {folder} --resume")
        raise typer.Exit(130)
    print("", *lines, "", "Next:", sep="\n")
    print(f"  reformer dna annotate predict {folder} GENOME.fa --out FOLDER       # genes of your genome")
    print(f"  reformer dna score {folder} VARIANTS.vcf GENOME.fa SCORED.vcf.gz    # what changes do to genes")
    print(f"  reformer dna mutagenesis {folder} REGIONS.bed GENOME.fa --out FOLDER   # all changes, as a map")
    print("  reformer dna pretrain GENOME.fa --out RUN; reformer dna generate RUN NEW.fa   # new sequences")


def _free_folder() -> Path:
    number = 1
    while (folder := Path("runs") / ("quickstart" if number == 1 else f"quickstart-{number}")).exists():
        number += 1
    return folder
