"""The sequences of a run, and whether they are still those that it began with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.data.regions import hold_out, named_records, read_regions
from reformer.data.sources import sha256_of
from reformer.errors import UserError
from reformer.training.corpus import open_corpus
from reformer.training.json_file import read_json
from reformer.training.run_folder import DATA_FILE

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.training.recipe import Recipe


HELD_OUT = "held_out"
"""The name of the set of what is held out of the training files."""
VALIDATION, TEST = "validation", "test"
"""The names of sets that a task holds out itself: to choose a checkpoint by, and to report of it alone."""


@dataclass(frozen=True)
class RunData:
    """The data of a run.

    Attributes:
        train: what it is trained on.
        held_out: what it is evaluated on, by name.
    """

    train: TokenArray
    held_out: dict[str, TokenArray]

    @property
    def validation(self) -> dict[str, TokenArray]:
        """Those of the held-out sets that are evaluated during training and choose the best checkpoint."""
        return self.held_out

    @classmethod
    def open(cls, recipe: Recipe, *, whole_windows: bool = True) -> RunData:
        """Builds or opens the token arrays that a recipe names.

        Args:
            recipe: names them.
            whole_windows: every sequence that is trained on has the length of its stage; False where that
                is an upper bound.

        Raises:
            UserError: for whatever is wrong with a file, data of different kinds, and windows longer than
                every training record.
        """
        data = recipe.data

        def open_files(files: Sequence[str]) -> TokenArray:
            return open_corpus(files, data.format, data.lower_case, data.cache_dir)

        train = open_files(data.train)
        held_out = {name: open_files(files) for name, files in data.eval.items()}
        if data.held_out_regions is not None or data.held_out_records:
            if HELD_OUT in held_out:
                raise recipe.error(
                    f"data.eval.{HELD_OUT}", "this name is that of held-out regions; another one"
                )
            regions = [] if data.held_out_regions is None else read_regions(data.held_out_regions, train)
            train, held_out[HELD_OUT] = hold_out(
                train, [*regions, *named_records(train, data.held_out_records)]
            )
        if whole_windows:
            _check_lengths(recipe, train)
        for array in held_out.values():
            if array.vocabulary != train.vocabulary:
                raise UserError(
                    f"{array.sources[0].path}: holds {array.tokenizer_name} tokens, but the training data "
                    f"{train.tokenizer_name} tokens"
                )
        return cls(train, held_out)

    def sources(self) -> dict[str, Any]:
        """What the data were, for `data.json`."""
        arrays = {"train": self.train, **{f"eval.{name}": array for name, array in self.held_out.items()}}
        return {
            name: {
                "tokens": len(array),
                "records": len(array.records),
                "files": [{"path": s.path, "bytes": s.size, "sha256": s.sha256} for s in array.sources],
            }
            for name, array in arrays.items()
        }


def file_facts(path: Path) -> dict[str, Any]:
    """What a file was, for `data.json`."""
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _check_lengths(recipe: Recipe, train: TokenArray) -> None:
    longest = int(train.records.lengths.max())
    for index, stage in enumerate(recipe.training.lengths):
        wanted = 2 if stage.length == "full" else stage.length
        if wanted > longest:
            raise recipe.error(
                f"training.lengths.{index}.length",
                f"{wanted:,} tokens, but the longest record of the training data has {longest:,}",
            )


def check_same_data(folder: Path, data: RunData) -> None:
    """Raises UserError if a file to train on is not what it was when the run in `folder` began."""
    earlier, present = read_json(folder / DATA_FILE)["train"]["files"], data.sources()["train"]["files"]
    if len(earlier) != len(present):  # where a recipe names folders
        raise UserError(f"{folder}: began with {len(earlier)} training files, now there are {len(present)}")
    for was, now in zip(earlier, present, strict=True):
        if was["sha256"] != now["sha256"]:
            raise UserError(f"{now['path']}: has changed since the run in {folder} began")
