"""Plots of a results file: SVG pictures, by matplotlib."""

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.training.atomic import write_text_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#666666", "#9a8c00", "#000000")
_MARKERS = "os^Dv<>pX"

Line = list[tuple[int, float, float, float]]
"""Tokens, median, lowest and highest."""


def draw(report: Mapping[str, Any]) -> dict[str, str]:
    """SVG pictures by their subject, of what was measured at two lengths or more."""
    pictures: dict[str, str] = {}
    quantities = {q for found in report["lengths"].values() for one in found.values() for q in one}
    if len(report["lengths"]) < 2:
        return pictures
    if "forward_of_gemm_rate_share" in quantities:
        return {"share": _share(report)}
    if "forward_backward_seconds" in quantities:
        pictures["time"] = _time(report)
    if "tokens_per_second" in quantities:
        pictures["speed"] = _speed(report)
    if "work_bytes" in quantities:
        pictures["memory"] = _memory(report)
    return pictures


def write(report: Mapping[str, Any], path: Path) -> list[Path]:
    """Draws all pictures of the report in a file and writes them beside it; returns where they are."""
    paths = []
    for subject, picture in draw(report).items():
        paths.append(path.with_name(f"{path.stem}-{subject}.svg"))
        write_text_atomically(paths[-1], picture)
    return paths


def crossover(one: Line, other: Line) -> float | None:
    """Tokens at which the first becomes the faster for good, on straight lines between logarithms.

    None where it is not the faster in the end, or is so from the beginning.
    """
    other_at = {length: median for length, median, _, _ in other}
    gaps = [
        (math.log(length), math.log(median) - math.log(other_at[length]))
        for length, median, _, _ in one
        if length in other_at
    ]
    for (x1, gap1), (x2, gap2) in reversed(list(itertools.pairwise(gaps))):
        if gap2 >= 0:
            return None
        if gap1 >= 0:
            return math.exp(x1 + (x2 - x1) * gap1 / (gap1 - gap2))
    return None


def lines_of(report: Mapping[str, Any], quantity: str) -> dict[str, Line]:
    """What was measured of a quantity, by contender."""
    lines: dict[str, Line] = {}
    for length in sorted(report["lengths"], key=int):
        for name, one in report["lengths"][length].items():
            value = one.get(quantity)
            if isinstance(value, Mapping):
                point = (int(length), value["median"], value["lowest"], value["highest"])
            elif value is not None:
                point = (int(length), value, value, value)
            else:
                continue
            lines.setdefault(name, []).append(point)
    return lines


def _time(report: Mapping[str, Any]) -> str:
    figure, panels = _figure(report, 2)
    for panel, what in zip(panels, ("forward", "forward_backward"), strict=True):
        lines = lines_of(report, f"{what}_seconds")
        _draw_lines(panel, report, lines)
        panel.set(xscale="log", yscale="log", ylabel="seconds", title=what.replace("_", " + "))
        at = crossover(lines.get("chunk", []), lines.get("sdpa", []))
        if at is not None:
            panel.axvline(at, color="#888888", linestyle=":")
            panel.annotate(
                f"chunk beats sdpa from {at:,.0f}", (at, 0.02), xycoords=("data", "axes fraction"),
                rotation=90, fontsize="x-small", ha="right",
            )  # fmt: skip
    return _finish(figure, panels, report)


def _memory(report: Mapping[str, Any]) -> str:
    figure, panels = _figure(report, 1)
    scaled = {
        name: [(length, *(value / 2**20 for value in values)) for length, *values in line]
        for name, line in lines_of(report, "work_bytes").items()
    }
    _draw_lines(panels[0], report, scaled)  # type: ignore[arg-type]
    panels[0].set(xscale="log", yscale="log", ylabel="MiB over inputs and parameters", title="peak memory")
    return _finish(figure, panels, report)


def _speed(report: Mapping[str, Any]) -> str:
    figure, panels = _figure(report, 1)
    _draw_lines(panels[0], report, lines_of(report, "tokens_per_second"))
    panels[0].set(xscale="log", yscale="log", ylabel="tokens/s", title="training step")
    return _finish(figure, panels, report)


def _share(report: Mapping[str, Any]) -> str:
    figure, panels = _figure(report, 2)
    for panel, what in zip(panels, ("forward", "backward"), strict=True):
        _draw_lines(panel, report, lines_of(report, f"{what}_of_gemm_rate_share"))
        panel.set(xscale="log", ylabel="of the rate of matrix products", title=what)
        panel.set_ylim(bottom=0)
    return _finish(figure, panels, report)


def _figure(report: Mapping[str, Any], num_panels: int) -> tuple["Figure", Sequence["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4.2 * num_panels, 4), layout="constrained")
    machine = report["machine"]
    figure.suptitle(
        f"{report['title']}: {machine['cpu']}, {machine['threads']} threads, kernels {report['kernels']}",
        fontsize="small",
    )
    return figure, figure.subplots(1, num_panels, squeeze=False)[0]


def _draw_lines(panel: "Axes", report: Mapping[str, Any], lines: Mapping[str, Line]) -> None:
    for name, colour, marker in _styles(report):
        if name in lines:
            lengths, medians, lowest, highest = zip(*lines[name], strict=True)
            style = "--" if name in report["baselines"] else "-"
            panel.plot(lengths, medians, style, color=colour, marker=marker, markersize=4, label=name)
            panel.vlines(lengths, lowest, highest, color=colour)
    panel.set_xlabel("tokens")
    panel.grid(alpha=0.3)


def _styles(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Each contender's colour and marker: the same in all pictures of a report."""
    for index, name in enumerate(report["gates"]):
        yield name, _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _finish(figure: "Figure", panels: Sequence["Axes"], report: Mapping[str, Any]) -> str:
    import matplotlib

    lengths = sorted(map(int, report["lengths"]))
    for panel in panels:
        panel.set_xticks(lengths, labels=[f"{n // 1024}K" if n >= 1024 else str(n) for n in lengths])
        panel.set_xticks([], minor=True)
    handles, labels = panels[-1].get_legend_handles_labels()
    for panel in panels[:-1]:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles, labels = [*handles, handle], [*labels, label]
    figure.legend(handles, labels, loc="outside right center", fontsize="small")
    picture = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "reformer"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()
