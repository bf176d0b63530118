"""How the commands that train take a recipe: a file, values over it, and options that name files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError

RecipeFile = Annotated[
    Path | None,
    typer.Argument(
        metavar="RECIPE", help="The recipe, a YAML file; without one, name files.", show_default=False
    ),
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values over the recipe's.")]
RunFolder = Annotated[Path | None, typer.Option(help="The run folder.", show_default=False)]
StartFrom = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL",
        help="A model, checkpoint or run folder: begin with its weights, for this task or another.",
        show_default=False,
    ),
]
LoraRank = Annotated[
    int | None,
    typer.Option(
        "--lora",
        metavar="RANK",
        min=1,
        help="With --start-from: keep its weights, and train adapters of this rank and what is new (LoRA).",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the run's latest checkpoint.")]


def recipe_and_overrides(
    recipe: Path | None,
    overrides: list[str] | None,
    files: Mapping[str, tuple[str, list[Path] | None]],
    out: Path | None,
    start_from: Path | None = None,
    lora_rank: int | None = None,
) -> tuple[Path | None, list[str]]:
    """The recipe's file, None for that of the library, and what is laid over it.

    Args:
        recipe: a file, or the first KEY=VALUE where no recipe is given.
        overrides: the others.
        files: what each option gives, by the key of the recipe: the option's name and its files.
        out: the run folder.
        start_from: the model to begin with.
        lora_rank: that of its adapters; None to train all weights.

    Raises:
        UserError: neither a recipe nor all that the one of the library needs.
    """
    words = list(overrides or ())
    if recipe is not None and "=" in str(recipe):
        words.insert(0, str(recipe))
        recipe = None
    if recipe is None and not (out and all(given for _, given in files.values())):
        *options, last = [*(option for option, _ in files.values()), "--out"]
        raise UserError(f"expected a recipe, or {', '.join(options)} and {last}")
    named = [
        f"{key}={json.dumps([str(path) for path in given])}" for key, (_, given) in files.items() if given
    ]
    if out is not None:
        named.append(f"output_dir={json.dumps(str(out))}")
    if start_from is not None:
        named.append(f"training.start_from={json.dumps(str(start_from))}")
    if lora_rank is not None:
        named.append(f"training.lora_rank={lora_rank}")
    return recipe, named + words
