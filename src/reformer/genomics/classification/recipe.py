"""The recipe of `reformer dna classify train`: that of any run, and a section about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.recipes import LabelFiles, LabelRecipe, check_label_files, load_over_packaged
from reformer.training.recipe import Count


class ClassificationSection(LabelFiles):
    """What the sequences are.

    Attributes:
        train: files of labels of the sequences of `data.train`, those held out of them included.
        eval: files of labels of the held-out sequences, by the names that `data.eval` has.
        folds: deal the sequences of `data.train` into so many parts, each label evenly, identical ones into
            the same part, and hold one of them out; 0 to hold out none.
        fold: which part is held out.
        class_weights: what an example counts in the loss: "none" (all the same) or "balanced" (the less the
            more there are of its class).
        kmer: bases that a token of the model stands for.
    """

    folds: Annotated[int, Field(ge=0)] = 0
    fold: Annotated[int, Field(ge=0)] = 0
    class_weights: Literal["none", "balanced"] = "none"
    kmer: Annotated[Count, Field(le=8)] = 3


class ClassificationRecipe(LabelRecipe):
    """A checked recipe; its model is a `ReformerForSequenceClassification`, which sees both sides.

    In its training section, the length of a stage is that of the longest window: longer sequences are read in
    part, another one each time.
    """

    classification: ClassificationSection

    @property
    def encoding(self) -> BaseEncoding:
        """What the tokens are."""
        return BaseEncoding(self.classification.kmer, orf_lengths=())


def load_classification_recipe(path: Path | None, overrides: Sequence[str] = ()) -> ClassificationRecipe:
    """Reads and checks a recipe; see `load_over_packaged`."""
    recipe = load_over_packaged(ClassificationRecipe, path, "classification/classify.yaml", overrides)
    section = recipe.classification
    if section.folds == 1:
        raise recipe.error(
            "classification.folds", "1: nothing would be left to train on; expected 0, or 2 or more"
        )
    if section.fold >= max(section.folds, 1):
        raise recipe.error(
            "classification.fold", f"{section.fold}: expected less than folds, {section.folds}"
        )
    if recipe.data.held_out_regions is not None:
        raise recipe.error(
            "data.held_out_regions", "sequences have one label: expected held_out_records or folds"
        )
    check_label_files(recipe, "classification")
    return recipe
