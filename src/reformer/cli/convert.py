"""`reformer convert`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError


def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="A model folder, or trax's weights as an .npz file."),
    ],
    destination: Annotated[Path, typer.Argument(metavar="DESTINATION", help="The folder to make.")],
    config: Annotated[
        Path | None,
        typer.Option(help="For trax's weights: the config.json that fits them.", show_default=False),
    ] = None,
) -> None:
    """Turn a model in transformers' Reformer format into ours, ours into theirs, or trax's into ours."""
    from reformer.training.conversion import convert_folder, convert_trax

    if source.suffix == ".npz":
        if config is None:
            raise UserError(f"{source}: trax's weights come without a configuration; name one with --config")
        print(convert_trax(source, config, destination))
    elif config is not None:
        raise UserError("--config is for trax's weights (.npz); a model folder has its own config.json")
    else:
        print(convert_folder(source, destination))
