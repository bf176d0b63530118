"""The report of a mutagenesis: heat maps of what each substitution changes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BASES = "ACGT"
_BASES_PER_PLOT, _MAX_PLOTS = 120, 25

Scores = npt.NDArray[np.float32]
"""``[bases, 4]``: what a substitution by A, C, G or T changes, NaN for the base that is there."""


def write_mutagenesis_report(
    path: Path, genome: Genome, regions: Sequence[Interval], scores: list[Scores], what: str
) -> None:
    """Writes the page, whole or not at all: the lowest and highest scores, and heat maps of the first bases.

    Args:
        path: the file.
        genome: where the regions are.
        regions: what was scored.
        scores: of each region.
        what: what a score says. Without matplotlib there are no heat maps.
    """
    pieces = [
        (Interval(region.sequence, start, end), one[start - region.start : end - region.start])
        for region, one in zip(regions, scores, strict=True)
        for start in range(region.start, region.end, _BASES_PER_PLOT)
        for end in [min(start + _BASES_PER_PLOT, region.end)]
    ]
    largest = float(np.nan_to_num(np.abs(np.concatenate(scores))).max()) or 1.0
    caption = page.paragraph(
        f"{what}. A column is a base of the genome, with its letter below and a dot in its row; a row is "
        f"what it becomes; the fullest colour is {largest:.4g}.",
        "caption",
    )
    parts = [page.section("Scores", caption + _table(genome, regions, scores))]
    if find_spec("matplotlib") is not None:
        for interval, piece in pieces[:_MAX_PLOTS]:
            first, last = interval.closed
            plot = heat_map(interval, genome.letters(interval).upper(), piece, largest)
            parts.append(
                page.section(f"{interval.sequence}, bases {first:,} to {last:,}", page.figure(*plot, ""))
            )
    if len(pieces) > _MAX_PLOTS:
        parts.append(page.paragraph(f"{len(pieces) - _MAX_PLOTS:,} more are in the files.", "note"))
    write_text_atomically(path, page.page(f"Mutagenesis of {genome.path.name}", "".join(parts)))


def _table(genome: Genome, regions: Sequence[Interval], scores: list[Scores]) -> str:
    """The substitutions with the lowest and the highest scores."""
    flat = np.concatenate(scores).reshape(-1)
    places = [
        (region.sequence, position) for region in regions for position in range(region.start, region.end)
    ]
    ranked = [index for index in np.argsort(flat, kind="stable").tolist() if not np.isnan(flat[index])]
    rows = []
    for index in [*ranked[:5], *ranked[5:][-5:]]:
        name, position = places[index // len(BASES)]
        letter = genome.letters(Interval(name, position, position + 1)).upper()
        rows.append(
            (name, f"{position + 1:,}", f"{letter}>{BASES[index % len(BASES)]}", f"{flat[index]:.4g}")
        )
    return page.table(("sequence", "base", "substitution", "score"), rows)


def heat_map(interval: Interval, letters: str, scores: Scores, largest: float) -> Plot:
    """Draws what each substitution changes, as strong a colour as it changes, and the mean of each base.

    Args:
        interval: the bases.
        letters: theirs.
        scores: theirs.
        largest: the number that gets the fullest colour.
    """
    legend = [LegendEntry("below 0", "series-2"), LegendEntry("above 0", "series-1")]

    def draw(axes: Axes) -> None:
        for column, row in zip(*np.nonzero(~np.isnan(scores)), strict=True):
            score = float(scores[column, row])
            colour = STAND_IN["series-2" if score < 0 else "series-1"]
            x, y = [column, column + 1, column + 1, column], [3 - row] * 2 + [4 - row] * 2
            axes.fill(x, y, color=colour, alpha=min(abs(score) / largest, 1.0), linewidth=0)
        known = [(column, BASES.index(letter)) for column, letter in enumerate(letters) if letter in BASES]
        x, y = [column + 0.5 for column, _ in known], [3.5 - row for _, row in known]
        axes.plot(x, y, ".", color=STAND_IN["muted"], markersize=2)
        axes.set_xlim(0, len(letters))
        axes.set_ylim(0, len(BASES))
        axes.set_yticks([3.5 - row for row in range(len(BASES))], list(BASES))
        axes.set_xticks([column + 0.5 for column in range(len(letters))], list(letters), size=6)
        axes.tick_params(length=0)
        axes.grid(visible=False)

    size = (10.0 * max(len(letters), 40) / _BASES_PER_PLOT, 1.3)
    first, last = interval.closed
    name = f"map-{interval.sequence}-{first}"
    return svg(
        name, f"Scores of substitutions of {interval.sequence}, bases {first} to {last}", draw, size
    ), legend
