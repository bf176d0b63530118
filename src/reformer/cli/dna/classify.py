"""`reformer dna classify`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.cli.dna.overrides import (
    LoraRank,
    Overrides,
    RecipeFile,
    Resume,
    RunFolder,
    StartFrom,
    recipe_and_overrides,
)

app = typer.Typer(
    no_args_is_help=True, help="Say what sequences are: a label for each, or several, such as functions."
)


@app.command()
def extract(
    annotation: Annotated[Path, typer.Argument(metavar="ANNOTATION", help="GenBank, GFF3 or GTF.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    genome: Annotated[
        Path | None,
        typer.Option(help="FASTA of the sequences; GenBank has them itself.", show_default=False),
    ] = None,
    label: Annotated[
        str, typer.Option(help="product, type, GO, or another attribute or qualifier of the features.")
    ] = "product",
    features: Annotated[
        list[str] | None,
        typer.Option(help="Types of features; may be repeated; by default CDS, and genes of RNA with type."),
    ] = None,
    at_least: Annotated[int, typer.Option(help="Leave out labels of fewer sequences.", min=2)] = 2,
    several: Annotated[
        bool | None,
        typer.Option(
            "--several/--one",
            help="All labels of a feature, a line each, or its commonest; by default all GO terms, else one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make sequences.fa and labels.tsv of the features of an annotation, to train on."""
    from reformer.genomics.classification.labelled_features import Choice, extract_labelled

    for line in extract_labelled(annotation, genome, out, Choice.of(label, features, at_least, several)):
        print(line)


@app.command()
def train(
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    sequences: Annotated[
        list[Path] | None, typer.Option(help="FASTA to train on; may be repeated.", show_default=False)
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(help="Their labels: name, tab, label; may be repeated.", show_default=False),
    ] = None,
    start_from: StartFrom = None,
    lora: LoraRank = None,
    out: RunFolder = None,
    resume: Resume = False,
) -> None:
    """Train a model on labelled sequences and leave a run folder.

    Either a RECIPE, or --sequences, --labels and --out, which are laid over the recipe of the library. A
    tenth of the sequences is for choosing the best checkpoint and a tenth for testing it. Where sequences
    have several labels, a line for each, add classification.problem_type=multi_label_classification.
    """
    from reformer.genomics.classification.command import train_classifier
    from reformer.genomics.classification.recipe import load_classification_recipe

    named = {"data.train": ("--sequences", sequences), "classification.train": ("--labels", labels)}
    path, given = recipe_and_overrides(recipe, overrides, named, out, start_from, lora)
    if train_classifier(load_classification_recipe(path, given), resume).interrupted:
        raise typer.Exit(130)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    sequences: Annotated[Path, typer.Argument(metavar="SEQUENCES", help="FASTA, plain, BGZF or gzip.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    labels: Annotated[
        Path | None,
        typer.Option(help="The true labels, to score the predicted ones.", show_default=False),
    ] = None,
    top: Annotated[int, typer.Option(help="How many of the likeliest labels to list.", min=1)] = 3,
    both_strands: Annotated[
        bool, typer.Option("--both-strands", help="Average over the sequence and its reverse complement.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Label sequences: predictions.tsv, probabilities.tsv, report.html; with --labels, how right they are."""
    from reformer.genomics.classification.command import Options, classify

    for line in classify(model, sequences, out, Options(labels, top, both_strands), device):
        print(line)
