"""The recipe of `reformer dna classify train`: that of any run, and a section about the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.classifier import MULTI_LABEL, SINGLE_LABEL, ProblemType
from reformer.genomics.recipes import LabelFiles, LabelRecipe, check_label_files, load_over_packaged
from reformer.training.recipe import Count
from reformer.training.run_data import TEST, VALIDATION


class ClassificationSection(LabelFiles):
    """What the sequences are.

    Attributes:
        train: files of labels of the sequences of `data.train`, those held out of them included.
        eval: files of labels of the held-out sequences, by the names that `data.eval` has.
        problem_type: "single_label_classification", one label for each sequence, or
            "multi_label_classification", one or several, each with a probability of its own.
        folds: deal the sequences of `data.train` into so many parts, each label evenly, identical ones into
            the same part, and hold two of them out, "test" and "validation"; 0 to hold out none.
        fold: which part is "test"; "validation" is the one half of all further on.
        class_weights: what an example counts in the loss: "none" (all the same) or "balanced" (the less the
            more there are of its class), for one label a sequence.
        kmer: bases that a token of the model stands for.
    """

    problem_type: ProblemType = SINGLE_LABEL
    folds: Annotated[int, Field(ge=0)] = 0
    fold: Annotated[int, Field(ge=0)] = 0
    class_weights: Literal["none", "balanced"] = "none"
    kmer: Annotated[Count, Field(le=8)] = 3


class ClassificationRecipe(LabelRecipe):
    """A checked recipe; its model is a `ReformerForSequenceClassification`, which sees both sides.

    Of the held-out sets, "test" is evaluated on once, after training; the others choose the best checkpoint.
    In its training section, the length of a stage is that of the longest window: longer sequences are read in
    part, another one each time.
    """

    architecture: ClassVar[str] = "ReformerForSequenceClassification"
    classification: ClassificationSection

    @property
    def reads_either_strand(self) -> bool:
        """Whether a sequence and its reverse complement are the same to the model."""
        return self.data.reverse_complement or bool(self.model.get("rc_equivariant"))

    @property
    def encoding(self) -> BaseEncoding:
        """What the tokens are."""
        return BaseEncoding(self.classification.kmer, orf_lengths=())


def load_classification_recipe(path: Path | None, overrides: Sequence[str] = ()) -> ClassificationRecipe:
    """Reads and checks a recipe; see `load_over_packaged`."""
    recipe = load_over_packaged(ClassificationRecipe, path, "classification/classify.yaml", overrides)
    section = recipe.classification
    if section.folds in (1, 2):
        raise recipe.error(
            "classification.folds",
            f"{section.folds}: nothing would be left to train on; expected 0, or 3 or more",
        )
    if section.folds and (taken := {VALIDATION, TEST} & recipe.data.eval.keys()):
        raise recipe.error("classification.folds", f"data.eval has a set called {min(taken)!r} already")
    if section.problem_type == MULTI_LABEL and section.class_weights != "none":
        raise recipe.error(
            "classification.class_weights",
            f"{section.class_weights}: expected none where problem_type is {MULTI_LABEL}",
        )
    if section.fold >= max(section.folds, 1):
        raise recipe.error(
            "classification.fold", f"{section.fold}: expected less than folds, {section.folds}"
        )
    if recipe.data.held_out_regions is not None:
        raise recipe.error(
            "data.held_out_regions", "labels are those of sequences: expected held_out_records or folds"
        )
    check_label_files(recipe, "classification")
    return recipe
