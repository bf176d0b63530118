"""The report of a classification: what was found, how right it is, and how far its probabilities hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.genomics.classification.metrics import Classified, OneLabel, SeveralLabels
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_format import format_count
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, has_matplotlib, svg
from reformer.training.run_data import TEST

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_DRAWN = 40
"""Classes of a confusion matrix that is drawn; of more, those with the most sequences are."""
_COLOURS = ("series-1", "series-2", "series-3", "series-4")
_NEVER_USED = "Read for the first time after training: no choice was made by these sequences."
_CHOSEN_BY = (
    "The best checkpoint and the temperature were chosen by these sequences: their figures are too good."
)
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
        parts.append(_scored_sections(found.scored, found.raw))
    parts.append(_predictions_table(found))
    write_text_atomically(path, page.page(found.title, "".join(parts)))


def run_sections(results: dict[str, tuple[Classified, Classified]]) -> str:
    """HTML of a run's report: its held-out sets, each after and before temperature scaling."""
    parts = []
    for name, (scored, raw) in results.items():
        use = _NEVER_USED if name == TEST else _CHOSEN_BY
        parts.append(page.section(f"Labels: {name}", page.paragraph(use, "caption")))
        parts.append(_scored_sections(scored, raw))
    return "".join(parts)


def _scored_sections(scored: Classified, raw: Classified) -> str:
    parts = []
    if has_matplotlib():
        if isinstance(scored, OneLabel):
            caption = "Share of the sequences of a true class (row) by predicted class (column)."
            parts.append(page.section("Confusion", page.figure(*confusion_plot(scored), caption)))
        plot = reliability_plot(scored, raw)
        parts.append(page.section("Calibration", page.figure(*plot, _calibration_caption(scored))))
    parts += [_calibration_table(scored, raw), _scores_table(scored)]
    return "".join(parts)


def _calibration_caption(scored: Classified) -> str:
    if isinstance(scored, OneLabel):
        return (
            "How often the true class is among the k likeliest, by their summed probability, in 15 bins; "
            "dashed where both are the same."
        )
    return (
        "Share of the k likeliest labels that is true, by their mean probability, in 15 bins; dashed where "
        "both are the same."
    )


def _calibration_table(scored: Classified, raw: Classified) -> str:
    before = raw.top_k_calibration()
    rows = [
        (
            f"top {k}",
            *(f"{found[key]:.4f}" for key in ("expected", "found", "expected_calibration_error")),
            f"{before[k]['expected']:.4f}",
            f"{before[k]['expected_calibration_error']:.4f}",
        )
        for k, found in scored.top_k_calibration().items()
    ]
    header = ("", "probability", "found true", "calibration error", "probability before", "error before")
    return page.section("Calibration of the likeliest", page.table(header, rows))


def confusion_plot(scored: OneLabel) -> Plot:
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
    """Draws what is found over what is expected of the k likeliest, and of the likeliest before scaling."""
    lines = [("top 1 before temperature scaling", raw.reliability(), "muted", "s")]
    colours = zip(scored.ranks, _COLOURS, "oD^v", strict=False)
    lines += [(f"top {k}", scored.reliability(k), colour, marker) for k, colour, marker in colours]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=STAND_IN["muted"], linewidth=1.0, dashes=(5, 3))
        for _, bins, colour, marker in lines:
            _, expected, found = zip(*bins, strict=True)
            axes.plot(expected, found, marker=marker, markersize=4, color=STAND_IN[colour])
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("probability of the k likeliest")
        axes.set_ylabel("found true")

    legend = [LegendEntry(label, colour) for label, _, colour, _ in lines]
    return svg("reliability", "Found over expected", draw, (5.2, 3.6)), legend


def _scores_table(scored: Classified) -> str:
    header: tuple[str, ...] = ("class", "precision", "recall", "F1", "sequences")
    rows: list[tuple[str, ...]] = [
        (name, f"{s.precision:.4f}", f"{s.recall:.4f}", f"{s.f1:.4f}", format_count(int(s.num_true)))
        for name, s in scored.by_class().items()
    ]
    if isinstance(scored, SeveralLabels):
        header = (*header, "average precision")
        average = scored.average_precision().values()
        rows = [(*row, "" if one is None else f"{one:.4f}") for row, one in zip(rows, average, strict=True)]
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
