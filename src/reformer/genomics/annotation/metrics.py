"""How well an annotation is predicted: per base and class, and per gene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme, labelled_transcripts
from reformer.genomics.genes import Gene, Transcript


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 of one class or kind of match; a mean over nothing is 0.

    Attributes:
        num_right: predictions that are true.
        num_predicted: predictions.
        num_true: what there was to predict.
    """

    num_right: float
    num_predicted: float
    num_true: float

    @property
    def precision(self) -> float:
        """Share of the predictions that are true."""
        return self.num_right / self.num_predicted if self.num_predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true ones that are predicted."""
        return self.num_right / self.num_true if self.num_true else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        total = self.num_predicted + self.num_true
        return 2 * self.num_right / total if total else 0.0

    def to_json(self) -> dict[str, float]:
        """The figures as JSON values."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "predicted": int(self.num_predicted),
            "true": int(self.num_true),
        }


@dataclass(frozen=True)
class ClassCounts:
    """Bases by true and predicted class.

    Attributes:
        scheme: the classes.
        confusion: ``[true classes, predicted classes]``.
    """

    scheme: ClassScheme
    confusion: npt.NDArray[np.floating]

    @classmethod
    def of(
        cls, scheme: ClassScheme, true: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]
    ) -> ClassCounts:
        """Counts labels ``[bases]``."""
        num = len(scheme.names)
        pairs = true.astype(np.int64) * num + predicted
        return cls(scheme, np.bincount(pairs, minlength=num**2).reshape(num, num).astype(np.float64))

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.scheme, self.confusion + other.confusion)

    def by_class(self) -> dict[str, Score]:
        """Scores of the classes without frames, of those that occur in truth or prediction."""
        scores = {}
        for name, numbers in self.scheme.coarse.items():
            rows, columns = self.confusion[list(numbers)], self.confusion[:, list(numbers)]
            score = Score(float(rows[:, list(numbers)].sum()), float(columns.sum()), float(rows.sum()))
            if score.num_true or score.num_predicted:
                scores[name] = score
        return scores

    def macro_f1(self, names: Iterable[str] | None = None) -> float:
        """Mean F1 of classes without frames; by default of all that occur in truth."""
        scores = self.by_class()
        chosen = [name for name in scores if scores[name].num_true] if names is None else list(names)
        return float(np.mean([scores[name].f1 if name in scores else 0.0 for name in chosen] or [0.0]))

    def accuracy(self) -> float:
        """Share of the bases whose class, frame included, is right."""
        total = float(self.confusion.sum())
        return float(np.trace(self.confusion)) / total if total else 0.0


def gene_scores(true: Iterable[Gene], called: Iterable[Gene]) -> dict[str, Score]:
    """Scores per coding gene, each by the transcript that counts (see `.classes`).

    Returns:
        "exact structure": all coding segments are the same; "exact stop": the last coding base is; "exact
        start and stop": the first one too.
    """
    matches = {
        "exact structure": _structure,
        "exact stop": _stop,
        "exact start and stop": lambda transcript: (*_stop(transcript), _ends(transcript)[0]),
    }
    pairs = [[t for t in labelled_transcripts(genes) if t.cds] for genes in (true, called)]
    scores = {}
    for name, key in matches.items():
        wanted, found = ({key(transcript) for transcript in transcripts} for transcripts in pairs)
        scores[name] = Score(len(wanted & found), len(found), len(wanted))
    return scores


def _structure(transcript: Transcript) -> tuple[Any, ...]:
    segments = tuple((segment.start, segment.end) for segment in transcript.cds)
    return transcript.interval.sequence, transcript.strand, segments


def _ends(transcript: Transcript) -> tuple[int, int]:
    """First and last coding base, from the 5' end."""
    left = min(segment.start for segment in transcript.cds)
    right = max(segment.end for segment in transcript.cds) - 1
    return (right, left) if transcript.strand == "-" else (left, right)


def _stop(transcript: Transcript) -> tuple[Any, ...]:
    return transcript.interval.sequence, transcript.strand, _ends(transcript)[1]
