"""Sequences with their labels, to train on and held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import reverse_complement
from reformer.errors import UserError
from reformer.genomics.classification.classifier import MULTI_LABEL, ClassificationSettings
from reformer.genomics.classification.metrics import Targets
from reformer.genomics.formats.label_files import Labelled, Labels, check_all_used, class_names, read_labels
from reformer.training.run_data import HELD_OUT, TEST, VALIDATION, RunData, file_facts

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.genomics.classification.recipe import ClassificationRecipe

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClassificationData(RunData):
    """The data of a run, with labels.

    Attributes:
        train: what it is trained on.
        held_out: what it is evaluated on, by name; "test" only after training.
        settings: the classes and how they are read.
        targets: of the records of "train" and "eval.NAME".
        label_files: where they are from.
    """

    settings: ClassificationSettings
    targets: dict[str, Targets]
    label_files: dict[str, list[str]]

    @property
    def validation(self) -> dict[str, TokenArray]:
        """All held-out sets but "test"."""
        return {name: array for name, array in self.held_out.items() if name != TEST}

    @classmethod
    def of(cls, recipe: ClassificationRecipe) -> ClassificationData:
        """Opens the sequences and labels that a recipe names.

        Raises:
            UserError: for whatever is wrong with a file, a sequence without label and a label without
                sequence, and a class that cannot be learned.
        """
        section = recipe.classification
        data = RunData.open(recipe, whole_windows=False)
        for array in (data.train, *data.held_out.values()):
            if array.tokenizer_name != "nucleotide":
                raise UserError(
                    f"{array.sources[0].path}: not FASTA of nucleotides: expected sequences of DNA"
                )
        several = section.problem_type == MULTI_LABEL
        labels = read_labels(section.train, several=several)
        train, held_out = data.train, dict(data.held_out)
        check_all_used(labels, train, *([held_out[HELD_OUT]] if recipe.data.held_out_records else []))
        classes = _checked_classes(recipe, labels)
        settings = ClassificationSettings(classes, recipe.encoding, problem_type=section.problem_type)
        if section.folds:
            dealt = _dealt(recipe, train, settings.targets(train, labels))
            test = section.fold
            validation = (test + section.folds // 2) % section.folds  # a class of two keeps one in training
            held_out |= {TEST: _rows(train, dealt == test), VALIDATION: _rows(train, dealt == validation)}
            train = _rows(train, (dealt != test) & (dealt != validation))
        found = {"train": settings.targets(train, labels)}
        files = {"train": section.train}
        for name, array in held_out.items():
            own = labels if name not in section.eval else read_labels(section.eval[name], several=several)
            if name in section.eval:
                check_all_used(own, array)
            found[f"eval.{name}"] = settings.targets(array, own)
            files[f"eval.{name}"] = section.eval.get(name, section.train)
        taught = (
            found["train"].any(axis=0) if several else np.bincount(found["train"], minlength=len(classes))
        )
        if not taught.all():
            name = classes[int(np.argmin(taught))]
            raise recipe.error(
                "classification.train",
                f"every sequence of class {name!r} is held out: nothing to learn it from",
            )
        return cls(train, held_out, settings, found, files)

    def sources(self) -> dict[str, Any]:
        """What the data were, labels included, for `data.json`."""
        sources = super().sources()
        for name, files in self.label_files.items():
            sources[name]["files"] += [file_facts(Path(path)) for path in files]
        return sources


def _dealt(recipe: ClassificationRecipe, array: TokenArray, true: Targets) -> Numbers:
    """The fold of each record; -1 for some that are always trained on.

    Sequences of several labels are dealt by their rarest one. A label that would not be trained on keeps its
    first sequence in training.
    """
    section, seed, both_strands = recipe.classification, recipe.training.seed, recipe.reads_either_strand
    if true.ndim == 1:
        return deal(array, true, section.folds, seed, both_strands)
    rarest = np.where(true > 0, true.sum(axis=0), np.inf).argmin(axis=1)
    dealt = deal(array, rarest, section.folds, seed, both_strands)
    groups = sequence_groups(array, both_strands)
    held_out = np.isin(dealt, [section.fold, (section.fold + section.folds // 2) % section.folds])
    for label in np.flatnonzero(~true[~held_out].any(axis=0)):
        dealt[groups == groups[true[:, label].argmax()]] = -1
    return dealt


def deal(array: TokenArray, classes: Numbers, num_parts: int, seed: int, both_strands: bool) -> Numbers:
    """Deals records into parts: every class evenly, identical sequences together.

    Args:
        array: the sequences.
        classes: the class of each.
        num_parts: 2 or more.
        seed: determines the order in which they are dealt.
        both_strands: whether a sequence and its reverse complement are the same.

    Returns:
        int64 ``[records]``, the part of each.

    Raises:
        UserError: a part gets nothing.
    """
    groups = sequence_groups(array, both_strands)
    firsts = np.unique(groups, return_index=True)[1]
    order = np.random.Generator(np.random.Philox(seed)).permutation(firsts)
    order = order[np.argsort(classes[order], kind="stable")]
    part_of_group = np.empty(len(firsts), dtype=np.int64)
    part_of_group[groups[order]] = np.arange(len(order)) % num_parts
    if len(order) < num_parts:
        raise UserError(
            f"{array.sources[0].path}: {len(order):,} different sequences: expected as many as folds, "
            f"{num_parts}"
        )
    return part_of_group[groups]


def sequence_groups(array: TokenArray, both_strands: bool) -> Numbers:
    """Numbers int64 ``[records]`` that identical sequences share."""
    numbers: dict[bytes, int] = {}
    groups = np.empty(len(array.records), dtype=np.int64)
    for row, record in enumerate(array.records):
        tokens = array.window(record.start, record.length)
        digest = _digest(tokens.tobytes())
        if both_strands:
            digest = min(digest, _digest(reverse_complement(tokens).tobytes()))
        groups[row] = numbers.setdefault(digest, len(numbers))
    return groups


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _rows(array: TokenArray, chosen: npt.NDArray[np.bool_]) -> TokenArray:
    return array.select([array.records[int(row)] for row in np.flatnonzero(chosen)])


def _checked_classes(recipe: ClassificationRecipe, labels: Labels) -> tuple[str, ...]:
    classes = class_names(labels)
    if len(classes) < 2:
        raise recipe.error("classification.train", f"one class, {classes[0]!r}: expected two or more")
    every: dict[str, list[Labelled]] = {}
    for one in chain.from_iterable(labels.values()):
        every.setdefault(one.label, []).append(one)
    for name in classes:
        if len(every[name]) == 1:
            raise every[name][0].place.error(f"class {name!r} has a single example: expected two or more")
    return classes


def class_weights(targets: Numbers, num_classes: int, kind: str) -> Sequence[float] | None:
    """What an example of each class counts; their mean over the examples is 1. None where all are equal."""
    if kind == "none":
        return None
    counts = np.bincount(targets, minlength=num_classes)
    return (len(targets) / (num_classes * np.maximum(counts, 1))).tolist()  # type: ignore[no-any-return]
