"""`reformer dna translate`."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def translate(
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")],
    genes: Annotated[Path, typer.Argument(metavar="GENES", help="Its genes: GFF3, GTF or GenBank.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The protein FASTA to write.")],
    code: Annotated[
        int | None,
        typer.Option(help="Genetic code (NCBI's number); each gene's own, or 1.", show_default=False),
    ] = None,
) -> None:
    """Translate genes into proteins, those that `dna annotate predict` called for example.

    Introns are cut out and phases kept; a start codon at the beginning is M, the stop at the end is dropped.
    A stop codon before the end becomes X and is reported, and so is a gene that is cut short.
    """
    from reformer.genomics.translation import translate_file

    count, warnings = translate_file(genome, genes, out, code)
    for warning in warnings:
        print(f"reformer: warning: {warning}", file=sys.stderr)
    print(f"{out}: {count:,} proteins")
