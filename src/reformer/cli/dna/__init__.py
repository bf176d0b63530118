"""`reformer dna`: one module and one typed function per command."""

import typer

from reformer.cli.dna.annotate import app as annotate

app = typer.Typer(no_args_is_help=True, help="Genomes: from FASTA and standard files to standard files.")
app.add_typer(annotate, name="annotate")
