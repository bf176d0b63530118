"""`reformer dna tracks`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from reformer.cli.dna.overrides import (
    Overrides,
    RecipeFile,
    Resume,
    RunFolder,
    StartFrom,
    recipe_and_overrides,
)
from reformer.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Say what an experiment would measure along a genome.")


@app.command()
def train(
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    genome: Annotated[
        list[Path] | None,
        typer.Option(help="FASTA or GenBank to train on; may be repeated.", show_default=False),
    ] = None,
    track: Annotated[
        list[Path] | None,
        typer.Option(help="bigWig of its sequences, a track each; may be repeated.", show_default=False),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A sequence to evaluate on instead; may be repeated.", show_default=False),
    ] = None,
    start_from: StartFrom = None,
    out: RunFolder = None,
    resume: Resume = False,
) -> None:
    """Train a model on genomes and bigWig tracks of theirs, and leave a run folder.

    Either a RECIPE, or --genome, --track and --out, which are laid over the recipe of the library.
    """
    import json

    from reformer.genomics.tracks.recipe import load_tracks_recipe
    from reformer.genomics.tracks.training import TracksTask
    from reformer.training.run import train as train_run

    named = {"data.train": ("--genome", genome), "tracks.train": ("--track", track)}
    path, given = recipe_and_overrides(recipe, overrides, named, out, start_from)
    if held_out:
        given.append(f"data.held_out_records={json.dumps(held_out)}")
    loaded = load_tracks_recipe(path, given)
    if train_run(loaded, resume=resume, task=TracksTask(loaded)).interrupted:
        raise typer.Exit(130)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    measured: Annotated[
        list[Path] | None,
        typer.Option(
            help="bigWig of what was measured, in the order of the model's tracks, to score it by.",
            show_default=False,
        ),
    ] = None,
    no_value: Annotated[
        Literal["zero", "missing"],
        typer.Option(help="What a base is that --measured has no value of."),
    ] = "zero",
    region: Annotated[
        str | None, typer.Option(help="What the report shows, NAME:FIRST-LAST.", show_default=False)
    ] = None,
    window: Annotated[
        int,
        typer.Option(help="Longest record, in bases, that is read in one pass: about 4 GB for a million."),
    ] = 3 << 19,
    overlap: Annotated[
        int, typer.Option(help="Bases at the inner ends of a window that its neighbours have.")
    ] = 1 << 14,
    one_strand: Annotated[
        bool, typer.Option("--one-strand", help="Read the sequence only, not its reverse complement too.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Predict tracks along a genome: a bigWig each, report.html; with --measured, scores.json.

    Records are read whole, one after the other; one that is longer than the window, in windows that overlap.
    """
    from reformer.genomics.tracks.command import Options
    from reformer.genomics.tracks.command import predict as predict_tracks
    from reformer.genomics.windows import Windows

    try:
        windows = Windows(window, overlap)
    except ValueError as error:
        raise UserError(str(error)) from error
    options = Options(windows, not one_strand, region, tuple(measured or ()), no_value)
    for line in predict_tracks(model, genome, out, options, device):
        print(line)
