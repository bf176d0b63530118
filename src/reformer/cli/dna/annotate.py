"""`reformer dna annotate`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.cli.dna.options import (
    OVERLAP,
    WINDOW,
    Device,
    GenomeFile,
    Model,
    NewFolder,
    OneStrand,
    Overlap,
    ShownRegion,
    TrainingGenomes,
    Window,
    windows,
)
from reformer.cli.dna.overrides import (
    LoraRank,
    Overrides,
    RecipeFile,
    Resume,
    RunFolder,
    StartFrom,
    recipe_and_overrides,
)

app = typer.Typer(no_args_is_help=True, help="Say what each base of a genome is, and where its genes are.")


@app.command()
def train(
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    genome: TrainingGenomes = None,
    genes: Annotated[
        list[Path] | None,
        typer.Option(
            help="Its annotation (GFF3, GTF, GenBank); may be repeated; GenBank genomes bring theirs.",
            show_default=False,
        ),
    ] = None,
    relatives: Annotated[
        bool,
        typer.Option(
            "--relatives",
            help="Let the model read what the annotation of the other genomes says, in place of the bases "
            "themselves (annotation.kmer=3 for both); for related species.",
        ),
    ] = False,
    start_from: StartFrom = None,
    lora: LoraRank = None,
    out: RunFolder = None,
    resume: Resume = False,
) -> None:
    """Train a model on genomes and their annotations, and leave a run folder.

    Either a RECIPE, or --genome, --genes and --out, which are laid over the recipe of the library.
    """
    from reformer.genomics.annotation.recipe import load_annotation_recipe
    from reformer.genomics.annotation.training import AnnotationTask
    from reformer.genomics.formats.annotation import is_genbank
    from reformer.training.run import train as train_run

    if genome and genes is None and all(map(is_genbank, genome)):
        genes = genome
    named = {"data.train": ("--genome", genome), "annotation.train": ("--genes", genes)}
    path, given = recipe_and_overrides(recipe, overrides, named, out, start_from, lora)
    if relatives:
        given = ["annotation.relatives=true", "annotation.kmer=0", *given]
    loaded = load_annotation_recipe(path, given)
    if train_run(loaded, resume=resume, task=AnnotationTask(loaded)).interrupted:
        raise typer.Exit(130)


@app.command()
def predict(
    model: Model,
    genome: GenomeFile,
    out: NewFolder,
    genes: Annotated[
        Path | None,
        typer.Option(help="The true annotation, to score the predicted one.", show_default=False),
    ] = None,
    region: ShownRegion = None,
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    one_strand: OneStrand = False,
    closed_ends: Annotated[
        bool, typer.Option("--closed-ends", help="Call no genes that an end of a record cuts off.")
    ] = False,
    no_tracks: Annotated[bool, typer.Option("--no-tracks", help="Write no bigWig files.")] = False,
    device: Device = "auto",
) -> None:
    """Annotate a genome: genes.gff3, a bigWig per class, report.html; with --genes, scores.json.

    Records are read whole, one after the other; one that is longer than the window, in windows that overlap.
    """
    from reformer.genomics.annotation.command import Options, annotate

    options = Options(windows(window, overlap), not one_strand, not closed_ends, not no_tracks, region, genes)
    for line in annotate(model, genome, out, options, device):
        print(line)
