"""`reformer dna structure`."""

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

app = typer.Typer(no_args_is_help=True, help="Secondary structure of proteins, residue by residue.")


@app.command()
def train(
    recipe: RecipeFile = None,
    overrides: Overrides = None,
    structures: Annotated[
        list[Path] | None,
        typer.Option(help="PDB or mmCIF file, or a folder of them; may be repeated.", show_default=False),
    ] = None,
    start_from: StartFrom = None,
    lora: LoraRank = None,
    out: RunFolder = None,
    resume: Resume = False,
) -> None:
    """Train a model on PDB and mmCIF files, and leave a run folder.

    Either a RECIPE, or --structures and --out, which are laid over the recipe of the library. A tenth of the
    chains is for choosing the best checkpoint and a fifth for testing it, none of them similar to one of
    another part; the report says how well they are predicted.
    """
    from reformer.genomics.structure.command import train_structure
    from reformer.genomics.structure.recipe import load_structure_recipe

    named = {"data.train": ("--structures", structures)}
    path, given = recipe_and_overrides(recipe, overrides, named, out, start_from, lora)
    if train_structure(load_structure_recipe(path, given), resume).interrupted:
        raise typer.Exit(130)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    proteins: Annotated[Path, typer.Argument(metavar="PROTEINS", help="FASTA, plain or gzip.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="*.tsv with probabilities, or *.fa with the classes alone.")
    ],
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Predict the secondary structure of proteins.

    Classes: H helix, E strand, C coil; of 8 also G 3-10 helix, I pi helix, B bridge, T turn, S bend. OUT.json
    says which model made them.
    """
    from reformer.genomics.structure.command import predict_structure

    print(f"{out}: {predict_structure(model, proteins, out, device):,} proteins")
