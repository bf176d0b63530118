"""How well secondary structure is predicted: residues by class, and the share that is right by chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.genomics.formats.structures import to_three_classes

Confusion = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChainResult:
    """What was predicted of a chain.

    Attributes:
        name: the chain's.
        true: a letter for each residue that has a label.
        predicted: likewise.
    """

    name: str
    true: str
    predicted: str

    def accuracy(self, classes: int) -> float:
        """Share of the residues whose class is right: Q3 for 3 classes, Q8 for 8."""
        pairs = list(zip(*self._letters(classes), strict=True))
        return sum(one == other for one, other in pairs) / len(pairs)

    def _letters(self, classes: int) -> tuple[str, str]:
        if classes != 3:
            return self.true, self.predicted
        return to_three_classes(self.true), to_three_classes(self.predicted)


def accuracy_by_chain(results: Sequence[ChainResult], classes: int) -> float:
    """Mean over chains of the share of residues whose class is right."""
    return float(np.mean([result.accuracy(classes) for result in results]))


def confusion_of(results: Sequence[ChainResult], letters: str) -> Confusion:
    """Residues ``[true classes, predicted classes]``."""
    number = {letter: n for n, letter in enumerate(letters)}
    confusion = np.zeros((len(letters), len(letters)), dtype=np.int64)
    for result in results:
        for one, other in zip(result.true, result.predicted, strict=True):
            confusion[number[one], number[other]] += 1
    return confusion


def scores_json(results: Sequence[ChainResult], letters: str) -> dict[str, Any]:
    """All figures as JSON values."""
    confusion = confusion_of(results, letters)
    found: dict[str, Any] = {"chains": len(results), "residues": int(confusion.sum())}
    found["q3_by_chain"] = accuracy_by_chain(results, 3)
    if len(letters) > 3:
        found["q8_by_chain"] = accuracy_by_chain(results, 8)
    found["accuracy_by_residue"] = float(np.trace(confusion) / confusion.sum())
    found["classes"] = list(letters)
    found["confusion"] = confusion.tolist()
    return found
