"""`reformer dna structure`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError

app = typer.Typer(no_args_is_help=True, help="Secondary structure of proteins, residue by residue.")


@app.command()
def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            help="The recipe, a YAML file; without one, name structures.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values over the recipe's.")
    ] = None,
    structures: Annotated[
        list[Path] | None,
        typer.Option(help="PDB or mmCIF file, or a folder of them; may be repeated.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")] = False,
) -> None:
    """Train a model on PDB and mmCIF files, and leave a run folder.

    Either a RECIPE, or --structures and --out, which are laid over the recipe of the library. A fifth of the
    chains is held out, none of them similar to one in training; the report says how well they are predicted.
    """
    from reformer.cli.dna.overrides import as_overrides
    from reformer.genomics.structure_command import train_structure
    from reformer.genomics.structure_recipe import load_structure_recipe

    words = list(overrides or ())
    if recipe is not None and "=" in str(recipe):  # KEY=VALUE where no recipe is given
        words.insert(0, str(recipe))
        recipe = None
    if recipe is None and not (structures and out):
        raise UserError("expected a recipe, or --structures and --out")
    named = as_overrides({"data.train": structures}, out)
    if train_structure(load_structure_recipe(recipe, named + words), resume).interrupted:
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

    Classes: H helix, E strand, C coil; of 8 also G 3-10 helix, I pi helix, B bridge, T turn, S bend.
    """
    from reformer.genomics.structure_command import predict_structure

    print(f"{out}: {predict_structure(model, proteins, out, device):,} proteins")
