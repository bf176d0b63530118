"""What the recipes of this package have in common."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field

from reformer.training.recipe import (
    FilePath,
    Recipe,
    Section,
    TrainingSection,
    absolute,
    load_recipe,
    load_sections,
)

Files = Annotated[list[FilePath], Field(min_length=1)]
Kind = TypeVar("Kind", bound=Recipe)


class LabelTraining(TrainingSection):
    """How the model is trained; it predicts no tokens, so that it has no objective to choose."""

    objective: ClassVar[None] = None  # type: ignore[assignment,misc]


class LabelRecipe(Recipe):
    """A checked recipe of a model that labels sequences, bases or residues, which it sees from both sides."""

    is_decoder: ClassVar[bool] = False
    training: LabelTraining


class LabelFiles(Section):
    """Files of labels.

    Attributes:
        train: of what `data.train` has.
        eval: of the held-out sequences, by the names that `data.eval` has.
    """

    train: Files
    eval: dict[str, Files] = {}


def load_over_packaged(
    kind: type[Kind], path: Path | None, packaged: str, overrides: Sequence[str] = ()
) -> Kind:
    """Reads and checks a recipe.

    Args:
        kind: its class.
        path: the YAML file; None for the packaged one, to which the overrides add files, and which has no
            model section where they name weights to start from.
        packaged: the file that comes with the library, from the folder of this package.
        overrides: `dotted.key=value` strings laid over the file.

    Raises:
        UserError: one line with the place and what was expected there.
        OSError: when the file cannot be read.
    """
    if path is None:
        with as_file(files("reformer.genomics") / packaged) as path:
            if load_sections(path, overrides, kind).training.start_from is not None:
                overrides = ["model={}", *overrides]  # the weights say what the model is
            return load_over_packaged(kind, path, packaged, overrides)
    recipe = load_recipe(path, overrides, kind)
    assert isinstance(recipe, kind)
    return recipe


def check_label_files(recipe: Recipe, name: str) -> None:
    """Makes the paths in a section of `LabelFiles` absolute.

    Raises:
        UserError: held-out sets that only `data.eval` or only the section names.
    """
    section: LabelFiles = getattr(recipe, name)
    section.train = [absolute(file) for file in section.train]
    section.eval = {key: [absolute(file) for file in given] for key, given in section.eval.items()}
    if missing := recipe.data.eval.keys() ^ section.eval.keys():
        key = min(missing)
        has, lacks = ("data", name) if key in recipe.data.eval else (name, "data")
        raise recipe.error(f"{has}.eval", f"{key!r} is not in {lacks}.eval: expected it in both")
