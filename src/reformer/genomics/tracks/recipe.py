"""The recipe of `reformer dna tracks train`: that of any run, and a section about the tracks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reformer.genomics.recipes import LabelFiles, LabelRecipe, check_label_files, load_over_packaged


class TracksSection(LabelFiles):
    """What was measured along the sequences.

    Attributes:
        train: bigWig files of the sequences to train on, a track each, called by the file's name.
        eval: those of the held-out sequences in `data.eval`, in the order of `train`.
        levels: how many values of a track are told apart, see `Levels`.
        no_value: what a base is that the file has no value of: "zero", as in coverage, or "missing".
        strands: pairs of tracks that are one on each strand, by their names.
    """

    levels: Annotated[int, Field(ge=2, le=64)] = 16
    no_value: Literal["zero", "missing"] = "zero"
    strands: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = []


class TracksRecipe(LabelRecipe):
    """A checked recipe; its model is a `ReformerForTokenClassification`, which sees both sides."""

    architecture: ClassVar[str] = "ReformerForTokenClassification"
    tracks: TracksSection

    @property
    def names(self) -> tuple[str, ...]:
        """What the tracks are called."""
        return tuple(Path(file).stem for file in self.tracks.train)

    @property
    def other_strand(self) -> tuple[int, ...]:
        """For each track the number of what it is on the other strand: itself, or its partner."""
        names = self.names
        partner = {a: b for pair in self.tracks.strands for a, b in (pair, pair[::-1])}
        return tuple(names.index(partner.get(name, name)) for name in names)


def load_tracks_recipe(path: Path | None, overrides: Sequence[str] = ()) -> TracksRecipe:
    """Reads and checks a recipe; see `load_over_packaged`."""
    recipe = load_over_packaged(TracksRecipe, path, "tracks/tracks.yaml", overrides)
    check_label_files(recipe, "tracks")
    names = recipe.names
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise recipe.error("tracks.train", f"two files are called {twice[0]!r}: expected a name for each")
    for key, files in recipe.tracks.eval.items():
        if len(files) != len(names):
            raise recipe.error(
                f"tracks.eval.{key}", f"{len(files)} files: expected {len(names)}, as train has"
            )
    paired = [name for pair in recipe.tracks.strands for name in pair]
    for name in paired:
        if name not in names:
            raise recipe.error("tracks.strands", f"no track {name!r}: expected of {', '.join(names)}")
    if len(set(paired)) != len(paired):
        raise recipe.error("tracks.strands", "expected each track in one pair")
    return recipe
