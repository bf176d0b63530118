"""`reformer train`."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Values over the recipe's, such as training.learning_rate=3e-4."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")] = False,
) -> None:
    """Train a model as a recipe says, and leave a run folder with the model and a report."""
    from reformer.training.recipe import load_recipe
    from reformer.training.run import train as train_run

    result = train_run(load_recipe(recipe, overrides or ()), resume=resume)
    if result.interrupted:
        raise typer.Exit(130)
