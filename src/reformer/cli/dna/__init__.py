"""`reformer dna`: one module and one typed function per command."""

import typer

from reformer.cli.dna.annotate import app as annotate
from reformer.cli.dna.classify import app as classify
from reformer.cli.dna.design import design
from reformer.cli.dna.embed import embed
from reformer.cli.dna.generate import generate
from reformer.cli.dna.motifs import app as motifs
from reformer.cli.dna.mutagenesis import mutagenesis
from reformer.cli.dna.pretrain import pretrain
from reformer.cli.dna.score import score
from reformer.cli.dna.structure import app as structure
from reformer.cli.dna.tracks import app as tracks
from reformer.cli.dna.translate import translate

app = typer.Typer(no_args_is_help=True, help="Genomes: from FASTA and standard files to standard files.")
app.add_typer(annotate, name="annotate")
app.add_typer(classify, name="classify")
app.command()(design)
app.command()(embed)
app.command()(generate)
app.add_typer(motifs, name="motifs")
app.command()(mutagenesis)
app.command()(pretrain)
app.command()(score)
app.add_typer(structure, name="structure")
app.add_typer(tracks, name="tracks")
app.command()(translate)
