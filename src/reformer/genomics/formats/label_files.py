"""Labels of sequences: lines of a name, a tab and a label."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
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


def read_labels(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Labelled]:
    """Reads files of labels, plain or gzip; blank lines and those that begin with "#" are skipped.

    Returns:
        Name of the sequence -> label.

    Raises:
        UserError: a line is not what it should be, a name occurs twice, or a file has no label.
    """
    labels: dict[str, Labelled] = {}
    for path in paths:
        before = len(labels)
        for place, line in numbered_lines(path):
            if not line.strip() or line.startswith("#"):
                continue
            columns = line.split("\t")
            if len(columns) != 2:
                raise place.error(f"{len(columns)} column(s): expected a name, a tab and a label")
            name, label = (column.strip() for column in columns)
            if not name or not label:
                raise place.error(f"the {'label' if name else 'name'} is empty: expected a name and a label")
            if name in labels:
                raise place.error(f"sequence {name!r} has a label already, in {labels[name].place}")
            labels[name] = Labelled(label, place)
        if len(labels) == before:
            raise UserError(f"{path}: no label: expected lines of a name, a tab and a label")
    return labels


def write_labels(path: Path, labels: Mapping[str, str]) -> None:
    """Writes a file of labels, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(f"{name}\t{label}\n" for name, label in labels.items())


def class_names(labels: Mapping[str, Labelled]) -> tuple[str, ...]:
    """The different labels, sorted."""
    return tuple(sorted({one.label for one in labels.values()}))


def targets(
    array: TokenArray, labels: Mapping[str, Labelled], classes: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """The number of the class of each record, int64 ``[records]``.

    Raises:
        UserError: a record has no label, or one that is not among the classes.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    found = np.empty(len(array.records), dtype=np.int64)
    for row, record in enumerate(array.records):
        if (one := labels.get(record.name)) is None:
            files = ", ".join(sorted({str(other.place.path) for other in labels.values()}))
            raise UserError(f"{array.sources[0].path}: sequence {record.name!r} has no label in {files}")
        if one.label not in numbers:
            raise one.place.error(f"label {one.label!r} is unknown: expected one of {_shown(classes)}")
        found[row] = numbers[one.label]
    return found


def check_all_used(labels: Mapping[str, Labelled], *arrays: TokenArray) -> None:
    """Raises UserError if a label is that of a sequence that no array has."""
    names = {record.name for array in arrays for record in array.records}
    for name, (_, place) in labels.items():
        if name not in names:
            check_names([name], place.path, names, arrays[0].sources[0].path)


def _shown(classes: tuple[str, ...], most: int = 8) -> str:
    more = len(classes) - most
    return ", ".join(map(repr, classes[:most])) + (f" and {more:,} more" if more > 0 else "")
