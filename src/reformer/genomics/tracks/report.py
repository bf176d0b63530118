"""The report of predicted tracks: what was predicted, how right it is, and a plot of a region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.genomics.coordinates import Interval
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_format import format_count
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, has_matplotlib, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_PLOT = "The plots of the tracks need matplotlib: pip install 'reformer-torch[report]'"
_SIZE_INCHES = (10.0, 2.4)
_MAX_POINTS = 2000
_PREDICTED, _MEASURED = "series-1", "series-2"


@dataclass(frozen=True)
class Found:
    """All that the report shows.

    Attributes:
        title: of the page.
        facts: (what, value, remark).
        names: of the tracks.
        region: of the plots.
        predicted: ``[bases, tracks]`` of the region, NaN where a base is unknown.
        measured: of each track ``[bases]``, empty where there is no truth.
        scores: of each track by name, empty likewise.
    """

    title: str
    facts: list[tuple[str, str, str]]
    names: tuple[str, ...]
    region: Interval
    predicted: npt.NDArray[np.float32]
    measured: list[npt.NDArray[np.float32]]
    scores: dict[str, dict[str, float | None]]


def write_tracks_report(path: Path, found: Found) -> str | None:
    """Writes the page, whole or not at all; what it says where it lacks its plots, for want of matplotlib."""
    note = None if has_matplotlib() else _NO_PLOT
    parts = [page.paragraph(note, "note")] if note else []
    parts.append(page.section("Summary", page.headline(found.facts)))
    if found.scores:
        rows = [
            (name, *("" if r is None else f"{r:.4f}" for r in of.values()))
            for name, of in found.scores.items()
        ]
        header = ("track", "Pearson's r", "Pearson's r of asinh(value / mean)")
        parts.append(page.section("Against what was measured", page.table(header, rows)))
    first, last = found.region.closed
    place = f"{found.region.sequence}:{first:,}-{last:,}"
    for number, name in enumerate(found.names if note is None else ()):
        true = found.measured[number] if found.measured else None
        caption = f"{name} over {place}; each point is the mean of as many bases as the plot has no room for."
        plot = _plot(f"track-{number}", name, found.region, found.predicted[:, number], true)
        parts.append(page.section(name, page.figure(*plot, caption)))
    write_text_atomically(path, page.page(found.title, "".join(parts)))
    return note


def _plot(
    name: str,
    label: str,
    region: Interval,
    predicted: npt.NDArray[np.float32],
    measured: npt.NDArray[np.float32] | None,
) -> Plot:
    legend = [LegendEntry("predicted", _PREDICTED)]
    if measured is not None:
        legend.append(LegendEntry("measured", _MEASURED, "faint"))

    def draw(axes: Axes) -> None:
        if measured is not None:
            places, values = _means(region, measured)
            axes.fill_between(places, values, step="post", color=STAND_IN[_MEASURED], alpha=0.45, lw=0)
        places, values = _means(region, predicted)
        axes.step(places, values, where="post", color=STAND_IN[_PREDICTED], linewidth=1.2)
        axes.set_xlim(region.start, region.end)
        axes.set_xlabel(f"position on {region.sequence} (bases)")
        axes.xaxis.set_major_formatter(lambda value, _: format_count(value))

    return svg(name, f"{label}, predicted and measured", draw, _SIZE_INCHES), legend


def _means(
    region: Interval, values: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Where points of the plot begin, and the means of the known values there, NaN for none."""
    per_point = -(-len(region) // _MAX_POINTS)
    at = np.arange(0, len(region), per_point)
    known = ~np.isnan(values)
    sums = np.add.reduceat(np.where(known, values, 0).astype(np.float64), at)
    counts = np.add.reduceat(known.astype(np.int64), at)
    means = np.full(len(at), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return region.start + at, means
