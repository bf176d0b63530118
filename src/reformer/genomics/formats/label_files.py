"""Labels of sequences: lines of a name, a tab and a label; a line each where a sequence has several."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reformer.data.names import check_names
from reformer.data.tokens import TokenArray
from reformer.errors import UserError
from reformer.genomics.formats.lines import Place, numbered_lines
from reformer.training.atomic import atomic_file


class Labelled(NamedTuple):
    """A label and the line that gives it."""

    label: str
    place: Place


Labels = Mapping[str, Sequence[Labelled]]
"""Name of the sequence -> its labels, one or more."""


def read_labels(paths: Iterable[str | os.PathLike[str]], *, several: bool = False) -> Labels:
    """Reads files of labels, plain or gzip; blank lines and those that begin with "#" are skipped.

    Args:
        paths: the files.
        several: a sequence may have several labels, a line for each.

    Returns:
        Name of the sequence -> labels.

    Raises:
        UserError: a line is not what it should be, a name has a second label where it may have only one, or
            one twice, or a file has no label.
    """
    labels: dict[str, list[Labelled]] = {}
    for path in paths:
        is_empty = True
        for place, line in numbered_lines(path):
            if not line.strip() or line.startswith("#"):
                continue
            columns = line.split("\t")
            if len(columns) != 2:
                raise place.error(f"{len(columns)} column(s): expected a name, a tab and a label")
            name, label = (column.strip() for column in columns)
            if not name or not label:
                raise place.error(f"the {'label' if name else 'name'} is empty: expected a name and a label")
            before = labels.setdefault(name, [])
            if before and not several:
                raise place.error(
                    f"sequence {name!r} has a label already, in {before[0].place}; several need problem_type "
                    "multi_label_classification"
                )
            if same := [one for one in before if one.label == label]:
                raise place.error(f"sequence {name!r} has the label {label!r} already, in {same[0].place}")
            before.append(Labelled(label, place))
            is_empty = False
        if is_empty:
            raise UserError(f"{path}: no label: expected lines of a name, a tab and a label")
    return labels


def write_labels(path: Path, labels: Mapping[str, Iterable[str]]) -> None:
    """Writes a file of labels, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\t{label}\n" for name, own in labels.items() for label in own)


def class_names(labels: Labels) -> tuple[str, ...]:
    """The different labels, sorted."""
    return tuple(sorted({one.label for own in labels.values() for one in own}))


def targets(array: TokenArray, labels: Labels, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """The number of the class of each record, int64 ``[records]``, where each has one label.

    Raises:
        UserError: a record has no label, or one that is not among the classes.
    """
    return np.array([numbers[0] for numbers in _numbers(array, labels, classes)], dtype=np.int64)


def target_matrix(array: TokenArray, labels: Labels, classes: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Which labels each record has, float32 ``[records, classes]`` of 0 and 1.

    Raises:
        UserError: a record has no label, or one that is not among the classes.
    """
    matrix = np.zeros((len(array.records), len(classes)), dtype=np.float32)
    for row, numbers in enumerate(_numbers(array, labels, classes)):
        matrix[row, numbers] = 1
    return matrix


def check_all_used(labels: Labels, *arrays: TokenArray) -> None:
    """Raises UserError if a label is that of a sequence that no array has."""
    names = {record.name for array in arrays for record in array.records}
    for name, own in labels.items():
        if name not in names:
            check_names([name], own[0].place.path, names, arrays[0].sources[0].path)


def _numbers(array: TokenArray, labels: Labels, classes: tuple[str, ...]) -> Iterable[list[int]]:
    """The numbers of the classes of each record."""
    numbers = {name: number for number, name in enumerate(classes)}
    for record in array.records:
        if (own := labels.get(record.name)) is None:
            files = ", ".join(sorted({str(other[0].place.path) for other in labels.values()}))
            raise UserError(f"{array.sources[0].path}: sequence {record.name!r} has no label in {files}")
        for one in own:
            if one.label not in numbers:
                raise one.place.error(f"label {one.label!r} is unknown: expected one of {_shown(classes)}")
        yield [numbers[one.label] for one in own]


def _shown(classes: tuple[str, ...], most: int = 8) -> str:
    more = len(classes) - most
    return ", ".join(map(repr, classes[:most])) + (f" and {more:,} more" if more > 0 else "")
