"""How well sequences are classified, and how far the probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.metrics import Score

Floats = npt.NDArray[np.floating]
Targets = npt.NDArray[np.int64]

NUM_BINS = 15
_LARGEST_TEMPERATURE = 20.0
_HALVINGS = 60


@dataclass(frozen=True)
class Classified:
    """Sequences with their true classes and the probabilities that a model gives.

    Attributes:
        classes: names.
        targets: true classes, int64 ``[sequences]``.
        probabilities: ``[sequences, classes]``.
    """

    classes: tuple[str, ...]
    targets: Targets
    probabilities: Floats

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
        likeliest = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :k]
        return float((likeliest == self.targets[:, None]).any(axis=1).mean())

    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return float(np.mean([score.f1 for score in self.by_class().values() if score.num_true]))

    def nats(self) -> float:
        """Mean of minus the log-probability of the true class."""
        true = self.probabilities[np.arange(len(self.targets)), self.targets]
        return float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())

    def reliability(self) -> list[tuple[int, float, float]]:
        """Count, mean confidence and accuracy of the sequences by confidence, in bins of equal width."""
        confidence = self.probabilities.max(axis=1)
        is_right = self.probabilities.argmax(axis=1) == self.targets
        bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
        chosen = [bins == number for number in range(NUM_BINS)]
        return [
            (int(c.sum()), float(confidence[c].mean()), float(is_right[c].mean())) for c in chosen if c.any()
        ]

    def calibration_error(self) -> float:
        """Expected calibration error: the mean of |confidence - accuracy| over the bins (Guo et al. 2017)."""
        gaps = [count * abs(confidence - accuracy) for count, confidence, accuracy in self.reliability()]
        return sum(gaps) / len(self.targets)

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "sequences": len(self.targets),
            "accuracy": self.accuracy(),
            "macro_f1": self.macro_f1(),
            "top_k_accuracy": {k: self.top_k_accuracy(k) for k in (2, 3, 5) if k < len(self.classes)},
            "nats": self.nats(),
            "expected_calibration_error": self.calibration_error(),
            "classes": {name: score.to_json() for name, score in self.by_class().items()},
        }


def fit_temperature(logits: Floats, targets: Targets) -> float:
    """The temperature, 1/20 to 20, at which the true classes are likeliest (Guo et al. 2017).

    The likelihood is concave in the inverse b of the temperature; its slope, the sum over the sequences of
    the true class's logit minus the mean logit under softmax(b logits), falls in b, so halving finds 0.

    Args:
        logits: ``[sequences, classes]``.
        targets: true classes, int64 ``[sequences]``.
    """
    logits = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(targets)), targets].sum()
    low, high = 1 / _LARGEST_TEMPERATURE, _LARGEST_TEMPERATURE
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        raised = np.exp(middle * logits)
        mean = ((raised / raised.sum(axis=1, keepdims=True)) * logits).sum()
        low, high = (middle, high) if true > mean else (low, middle)
    return float(1 / (low * high) ** 0.5)
