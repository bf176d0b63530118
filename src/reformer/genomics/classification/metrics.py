"""How well sequences are classified, and how far the probabilities can be believed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.metrics import Score

Floats = npt.NDArray[np.floating]
Targets = npt.NDArray[Any]
"""Classes, int64 ``[sequences]``, or 0 and 1 for each label, float32 ``[sequences, classes]``."""

NUM_BINS = 15
_RANKS = (1, 2, 3, 5)
_LARGEST_TEMPERATURE = 20.0
_HALVINGS = 60
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Classified(ABC):
    """Sequences with their true classes and the probabilities that a model gives.

    Attributes:
        classes: names.
        targets: what is true.
        probabilities: ``[sequences, classes]``.
    """

    classes: tuple[str, ...]
    targets: Targets
    probabilities: Floats

    @property
    def ranks(self) -> tuple[int, ...]:
        """The k for which there are figures of the k likeliest classes."""
        return tuple(k for k in _RANKS if k < len(self.classes))

    @abstractmethod
    def by_class(self) -> dict[str, Score]:
        """Precision, recall and F1 of each class."""

    @abstractmethod
    def nats(self) -> float:
        """Mean of minus the log-probability of what is true."""

    @abstractmethod
    def top_k(self, k: int) -> tuple[Floats, Floats]:
        """What is expected of the k likeliest classes of each sequence, 0 to 1, and what is found."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""

    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return float(np.mean([score.f1 for score in self.by_class().values() if score.num_true]))

    def reliability(self, k: int = 1) -> list[tuple[int, float, float]]:
        """Count, mean expected and mean found of the k likeliest, in bins of equal width."""
        return _binned(*self.top_k(k))

    def calibration_error(self, k: int = 1) -> float:
        """Expected calibration error of the k likeliest: the mean of |expected - found| over the bins.

        Guo et al. 2017 for k = 1, where it is |confidence - accuracy|.
        """
        return _error(self.reliability(k))

    def top_k_calibration(self) -> dict[int, dict[str, float]]:
        """For each of `ranks` the means of what is expected and found, and the calibration error."""
        found = {}
        for k in self.ranks:
            expected, true = self.top_k(k)
            found[k] = {
                "expected": float(expected.mean()),
                "found": float(true.mean()),
                "expected_calibration_error": self.calibration_error(k),
            }
        return found

    def _likeliest(self, k: int) -> npt.NDArray[np.int64]:
        return np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class OneLabel(Classified):
    """Sequences of one class each, int64 ``[sequences]``; their probabilities add up to 1."""

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Sequences by true and predicted class, ``[classes, classes]``."""
        num = len(self.classes)
        pairs = self.targets * num + self.probabilities.argmax(axis=1)
        return np.bincount(pairs, minlength=num**2).reshape(num, num)

    def by_class(self) -> dict[str, Score]:
        """Precision, recall and F1 of each class."""
        counts = self.confusion
        return {
            name: Score(int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum()))
            for i, name in enumerate(self.classes)
        }

    def accuracy(self) -> float:
        """Share of the sequences whose likeliest class is the true one."""
        return self.top_k_accuracy(1)

    def top_k_accuracy(self, k: int) -> float:
        """Share of the sequences whose true class is among the k likeliest."""
        return float(self.top_k(k)[1].mean())

    def top_k(self, k: int) -> tuple[Floats, Floats]:
        """The summed probability of the k likeliest classes, and 1 where the true one is among them."""
        likeliest = self._likeliest(k)
        expected = np.take_along_axis(self.probabilities, likeliest, axis=1).sum(axis=1)
        return np.minimum(expected, 1.0), (likeliest == self.targets[:, None]).any(axis=1).astype(np.float64)

    def nats(self) -> float:
        """Mean of minus the log-probability of the true class."""
        true = self.probabilities[np.arange(len(self.targets)), self.targets]
        return float(-np.log(np.maximum(true, _TINY)).mean())

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "sequences": len(self.targets),
            "accuracy": self.accuracy(),
            "macro_f1": self.macro_f1(),
            "top_k_accuracy": {k: self.top_k_accuracy(k) for k in self.ranks if k > 1},
            "nats": self.nats(),
            "expected_calibration_error": self.calibration_error(),
            "top_k_calibration": self.top_k_calibration(),
            "classes": {name: score.to_json() for name, score in self.by_class().items()},
        }


@dataclass(frozen=True)
class SeveralLabels(Classified):
    """Sequences of several labels, float32 ``[sequences, classes]``; each has a probability of its own.

    A label is predicted where its probability is one half or more.
    """

    @property
    def is_true(self) -> npt.NDArray[np.bool_]:
        """Which labels are true, ``[sequences, classes]``."""
        return self.targets > 0.5

    @property
    def is_predicted(self) -> npt.NDArray[np.bool_]:
        """Which labels are predicted, ``[sequences, classes]``."""
        return self.probabilities >= 0.5

    def by_class(self) -> dict[str, Score]:
        """Precision, recall and F1 of each label."""
        right, predicted, true = (
            which.sum(axis=0).tolist()
            for which in (self.is_true & self.is_predicted, self.is_predicted, self.is_true)
        )
        return {name: Score(right[i], predicted[i], true[i]) for i, name in enumerate(self.classes)}

    def micro_f1(self) -> float:
        """F1 of all pairs of a sequence and a label."""
        scores = self.by_class().values()
        return Score(*(sum(part) for part in zip(*map(_counts, scores), strict=True))).f1

    def average_precision(self) -> dict[str, float | None]:
        """Average precision of each label, None where no sequence has it."""
        return {
            name: average_precision(self.is_true[:, i], self.probabilities[:, i])
            if self.is_true[:, i].any()
            else None
            for i, name in enumerate(self.classes)
        }

    def macro_average_precision(self) -> float:
        """Mean average precision of the labels that occur."""
        return float(np.mean([one for one in self.average_precision().values() if one is not None]))

    def top_k(self, k: int) -> tuple[Floats, Floats]:
        """The mean probability of the k likeliest labels, and the share of them that is true."""
        likeliest = self._likeliest(k)
        chosen = (np.take_along_axis(what, likeliest, axis=1) for what in (self.probabilities, self.targets))
        expected, found = (one.mean(axis=1, dtype=np.float64) for one in chosen)
        return expected, found

    def recall_at_k(self, k: int) -> float:
        """Mean over the sequences of the share of their labels that is among the k likeliest."""
        found = np.take_along_axis(self.targets, self._likeliest(k), axis=1).sum(axis=1)
        return float((found / self.targets.sum(axis=1)).mean())

    def nats(self) -> float:
        """Mean over sequences and labels of minus the log-probability of what is so (cross-entropy)."""
        of_truth = np.where(self.is_true, self.probabilities, 1 - self.probabilities)
        return float(-np.log(np.maximum(of_truth, _TINY)).mean())

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        precision = self.average_precision()
        pairs = _binned(self.probabilities.ravel(), self.targets.ravel())
        return {
            "sequences": len(self.targets),
            "labels": int(self.is_true.sum()),
            "macro_f1": self.macro_f1(),
            "micro_f1": self.micro_f1(),
            "macro_average_precision": self.macro_average_precision(),
            "micro_average_precision": average_precision(self.is_true.ravel(), self.probabilities.ravel()),
            "precision_at_k": {k: float(self.top_k(k)[1].mean()) for k in self.ranks},
            "recall_at_k": {k: self.recall_at_k(k) for k in self.ranks},
            "nats": self.nats(),
            "expected_calibration_error": _error(pairs),
            "top_k_calibration": self.top_k_calibration(),
            "classes": {
                name: {**score.to_json(), "average_precision": precision[name]}
                for name, score in self.by_class().items()
            },
        }


def average_precision(is_true: npt.NDArray[np.bool_], scores: Floats) -> float:
    """The sum over falling thresholds of precision times the rise of recall; equal scores are one threshold.

    Args:
        is_true: ``[n]``, at least one of them.
        scores: ``[n]``.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_each = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    found = np.cumsum(is_true[order])[last_of_each]
    return float((np.diff(found, prepend=0) / found[-1] * found / (last_of_each + 1)).sum())


def _counts(score: Score) -> tuple[float, float, float]:
    return score.num_right, score.num_predicted, score.num_true


def _binned(expected: Floats, found: Floats) -> list[tuple[int, float, float]]:
    bins = np.minimum((expected * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [bins == number for number in range(NUM_BINS)]
    return [(int(c.sum()), float(expected[c].mean()), float(found[c].mean())) for c in chosen if c.any()]


def _error(bins: list[tuple[int, float, float]]) -> float:
    return sum(count * abs(expected - found) for count, expected, found in bins) / sum(b[0] for b in bins)


def fit_temperature(logits: Floats, targets: Targets) -> float:
    """The temperature, 1/20 to 20, at which what is true is likeliest (Guo et al. 2017).

    The likelihood is concave in the inverse b of the temperature. Its slope, the sum of the logits of what is
    true minus their mean under softmax(b logits), or sigmoid(b logits), falls in b, so halving finds 0.

    Args:
        logits: ``[sequences, classes]``.
        targets: true classes, int64 ``[sequences]``, or labels, float32 ``[sequences, classes]``.
    """
    if targets.ndim == 1:
        logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        true = logits[np.arange(len(targets)), targets].sum()
        probabilities = softmax
    else:
        logits = logits.astype(np.float64)
        true = (logits * targets).sum()
        probabilities = sigmoid
    low, high = 1 / _LARGEST_TEMPERATURE, _LARGEST_TEMPERATURE
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        mean = (probabilities(middle * logits) * logits).sum()
        low, high = (middle, high) if true > mean else (low, middle)
    return float(1 / (low * high) ** 0.5)


def softmax(logits: Floats) -> npt.NDArray[np.float64]:
    """Probabilities of classes of which one is true, of logits ``[..., classes]``, in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    raised = np.exp(shifted)
    return raised / raised.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def sigmoid(logits: Floats) -> npt.NDArray[np.float64]:
    """Probabilities of labels each by itself, of logits ``[..., classes]``, in float64."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))  # type: ignore[no-any-return]
