"""The report of designed sequences: what the goal was before and after, and its value after each step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from reformer.genomics.design.evolution import Design
from reformer.genomics.design.goals import Goal
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, has_matplotlib, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_PLOT = "The plot needs matplotlib: pip install 'reformer-torch[report]'"
_MOST_ROWS = 200


def write_design_report(path: Path, names: Sequence[str], designs: Sequence[Design], goal: Goal) -> None:
    """Writes the page, whole or not at all.

    Args:
        path: the file.
        names: of the sequences.
        designs: what became of each.
        goal: of all.
    """
    rows = [
        (name, f"{len(one.letters):,}", str(len(one.steps)), f"{one.before:.6g}", f"{one.value:.6g}")
        for name, one in zip(names, designs, strict=True)
    ]
    table = page.table(("sequence", "bases", "substitutions", "before", "after"), rows[:_MOST_ROWS])
    if has_matplotlib():
        figure = page.figure(*_plot(designs), f"Every line is a sequence. The goal: {goal.description}.")
    else:
        figure = page.paragraph(_NO_PLOT, "note")
    if len(rows) > _MOST_ROWS:
        table += page.paragraph(f"{len(rows) - _MOST_ROWS:,} more are in the files.", "note")
    body = page.section("Goal after each substitution", figure) + page.section("Sequences", table)
    write_text_atomically(path, page.page(f"Sequences designed to {goal.name}", body))


def _plot(designs: Sequence[Design]) -> Plot:
    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        for one in designs:
            values = [one.before, *(step.value for step in one.steps)]
            axes.plot(
                range(len(values)), values, "o-", color=STAND_IN["series-1"], markersize=4, linewidth=1.2
            )
        axes.set_xlabel("substitutions")
        axes.set_ylabel("goal")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))

    legend: list[LegendEntry] = []
    return svg("design", "The goal after each substitution", draw), legend
