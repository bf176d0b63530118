"""The report of a classification: what was found, how right it is, and how far its probabilities hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.genomics.classification.metrics import Classified
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_format import format_count
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_DRAWN = 40
"""Classes of a confusion matrix that is drawn; of more, those with the most sequences are."""
_MOST_WRITTEN = 12
"""Classes of a confusion matrix whose counts are written into its cells."""


@dataclass(frozen=True)
class Found:
    """All that the report shows.

    Attributes:
        title: of the page.
        facts: (what, value, remark).
        classes: names.
        probabilities: ``[sequences, classes]``.
        scored: with the true labels, None where there are none.
        raw: the same before temperature scaling.
    """

    title: str
    facts: list[tuple[str, str, str]]
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.floating]
    scored: Classified | None
    raw: Classified | None


def write_classification_report(path: Path, found: Found) -> None:
    """Writes the page, whole or not at all; without matplotlib it has no plots."""
    parts = [page.section("Summary", page.headline(found.facts))]
    if found.scored is not None and found.raw is not None:
        if _can_plot():
            caption = "Share of the sequences of a true class (row) by predicted class (column)."
            parts.append(page.section("Confusion", page.figure(*confusion_plot(found.scored), caption)))
            caption = "Accuracy of sequences by the probability of their likeliest class, in 15 bins."
            plot = reliability_plot(found.scored, found.raw)
            parts.append(page.section("Calibration", page.figure(*plot, caption)))
        parts.append(_scores_table(found.scored))
    parts.append(_predictions_table(found))
    write_text_atomically(path, page.page(found.title, "".join(parts)))


def confusion_plot(scored: Classified) -> Plot:
    """Draws the confusion matrix, each row by its share; the counts too where there is room."""
    counts = scored.confusion
    chosen = np.sort(np.argsort(-counts.sum(axis=1), kind="stable")[:_MOST_DRAWN])
    counts = counts[np.ix_(chosen, chosen)]
    names = [scored.classes[i] for i in chosen]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes) -> None:
        for (row, column), share in np.ndenumerate(shares):
            if share > 0:
                axes.broken_barh(
                    [(column - 0.5, 1)], (row - 0.5, 1), color=STAND_IN["series-1"], alpha=share, linewidth=0
                )
            if len(names) <= _MOST_WRITTEN:
                axes.text(
                    column, row, format_count(int(counts[row, column])), ha="center", va="center", size=8
                )
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    size = 2.5 + 0.35 * len(names)
    return svg("confusion", "Confusion matrix", draw, (size + 1.5, size)), []


def reliability_plot(scored: Classified, raw: Classified) -> Plot:
    """Draws accuracy over confidence, before and after temperature scaling."""
    lines = (("before", raw, "series-2", "s"), ("after temperature scaling", scored, "series-1", "o"))

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=STAND_IN["muted"], linewidth=1.0, dashes=(5, 3))
        for _, one, colour, marker in lines:
            _, confidence, accuracy = zip(*one.reliability(), strict=True)
            axes.plot(confidence, accuracy, marker=marker, markersize=4, color=STAND_IN[colour])
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("probability of the likeliest class")
        axes.set_ylabel("accuracy")

    legend = [LegendEntry(label, colour) for label, _, colour, _ in lines]
    return svg("reliability", "Accuracy over confidence", draw, (5.2, 3.6)), legend


def _can_plot() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def _scores_table(scored: Classified) -> str:
    header = ("class", "precision", "recall", "F1", "sequences")
    rows = [
        (name, f"{s.precision:.4f}", f"{s.recall:.4f}", f"{s.f1:.4f}", format_count(s.num_true))
        for name, s in scored.by_class().items()
    ]
    return page.section("Classes", page.table(header, rows))


def _predictions_table(found: Found) -> str:
    likeliest = found.probabilities.argmax(axis=1)
    confidence = found.probabilities.max(axis=1)
    rows = []
    for number, name in enumerate(found.classes):
        chosen = likeliest == number
        mean = f"{confidence[chosen].mean():.4f}" if chosen.any() else ""
        rows.append((name, format_count(int(chosen.sum())), mean))
    return page.section("Predictions", page.table(("class", "sequences", "mean probability"), rows))
