"""`reformer dna tracks`."""

from pathlib import Path
from typing import Annotated, Literal

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

app = typer.Typer(no_args_is_help=True, help="Say what an experiment would measure along a genome.")


@app.command()
def train(
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    genome: TrainingGenomes = None,
    track: Annotated[
        list[Path] | None,
        typer.Option(help="bigWig of its sequences, a track each; may be repeated.", show_default=False),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(help="A sequence to evaluate on instead; may be repeated.", show_default=False),
    ] = None,
    start_from: StartFrom = None,
    lora: LoraRank = None,
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
    path, given = recipe_and_overrides(recipe, overrides, named, out, start_from, lora)
    if held_out:
        given.append(f"data.held_out_records={json.dumps(held_out)}")
    loaded = load_tracks_recipe(path, given)
    if train_run(loaded, resume=resume, task=TracksTask(loaded)).interrupted:
        raise typer.Exit(130)


@app.command()
def predict(
    model: Model,
    genome: GenomeFile,
    out: NewFolder,
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
    region: ShownRegion = None,
    window: Window = WINDOW,
    overlap: Overlap = OVERLAP,
    one_strand: OneStrand = False,
    device: Device = "auto",
) -> None:
    """Predict tracks along a genome: a bigWig each, report.html; with --measured, scores.json.

    Records are read whole, one after the other; one that is longer than the window, in windows that overlap.
    """
    from reformer.genomics.tracks.command import Options
    from reformer.genomics.tracks.command import predict as predict_tracks

    options = Options(windows(window, overlap), not one_strand, region, tuple(measured or ()), no_value)
    for line in predict_tracks(model, genome, out, options, device):
        print(line)
