"""The plots of a report, as SVG elements that take their colours from the page.

matplotlib draws with stand-in colours, which are then replaced by the page's CSS variables, so that one
drawing serves light, dark and paper. It is imported when a plot is drawn, and no sooner.
"""

import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from reformer.training.report_data import Evaluation, MemoryUse, TrainingStep
from reformer.training.report_format import format_bytes_short, format_count, format_short
from reformer.training.report_page import LegendEntry, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Plot = tuple[str, list[LegendEntry]]
Points = Sequence[tuple[float, float]]

_SERIES = ("series-1", "series-2", "series-3", "series-4")
_MARKERS: tuple[tuple[str, Mark], ...] = (("s", "square"), ("^", "triangle"), ("D", "diamond"))
STAND_IN = {
    name: f"#0000{number:02x}" for number, name in enumerate(("ink", "muted", "rule", *_SERIES), start=1)
}
"""The colours to draw with: name in the page's palette -> what stands in for it."""

_SIZE_INCHES = (5.2, 3.2)
_MAX_LENGTH_MARKS = 12

_RC: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": STAND_IN["muted"],
    "axes.grid": True,
    "axes.labelcolor": STAND_IN["ink"],
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "grid.color": STAND_IN["rule"],
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "reformer",
    "text.color": STAND_IN["ink"],
    "text.parse_math": False,
    "xtick.color": STAND_IN["muted"],
    "xtick.labelcolor": STAND_IN["ink"],
    "xtick.labelsize": 9,
    "ytick.color": STAND_IN["muted"],
    "ytick.labelcolor": STAND_IN["ink"],
    "ytick.labelsize": 9,
}


def has_matplotlib() -> bool:
    """Whether there can be plots."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def loss_curve(steps: Sequence[TrainingStep], evaluations: dict[str, list[Evaluation]]) -> Plot:
    """Draw the training loss, raw and smoothed, the held-out losses, and the changes of sequence length."""
    points = finite((step.step, step.loss) for step in steps)
    held_out = {
        name: finite((one.step, one.bits_per_token * math.log(2)) for one in series)
        for name, series in evaluations.items()
    }
    legend = [LegendEntry("training, each step", "series-1", "faint"), LegendEntry("smoothed", "series-1")]

    def draw(axes: "Axes") -> None:
        _line(axes, points, "series-1", linewidth=0.8, alpha=0.45)
        _line(axes, smoothed(points), "series-1")
        for number, (name, series) in enumerate(held_out.items()):
            colour = other_colour(number)
            marker, mark = _MARKERS[number % len(_MARKERS)]
            _line(axes, series, colour, linewidth=1.2, marker=marker, markersize=4)
            legend.append(LegendEntry(name, colour, mark))
        for step, length in length_changes(steps):
            _mark_length(axes, step, length)
        _steps(axes)
        axes.set_ylabel(f"loss (nats per {steps[-1].per})")

    return svg("loss", "Loss over the steps of training", draw), legend


def bits_by_position(evaluations: dict[str, tuple[Evaluation, str]]) -> Plot:
    """Draw bits per token by position, for each evaluation set in its colour."""
    legend: list[LegendEntry] = []

    def draw(axes: "Axes") -> None:
        for name, (evaluation, colour) in evaluations.items():
            bins = [
                (bound, math.nan if bits is None else bits) for bound, bits in evaluation.bits_by_position
            ]
            edges = [min(1.0, bins[0][0] / 2), *(bound for bound, _ in bins)]
            axes.stairs(
                [bits for _, bits in bins], edges, baseline=None, color=STAND_IN[colour], linewidth=1.8
            )
            legend.append(LegendEntry(name, colour))
        _log_tokens(axes, "tokens before the predicted one")
        axes.set_ylabel("bits per token")

    return svg("positions", "Bits per token by position in the context", draw), legend


def memory_per_token(memory: MemoryUse) -> Plot:
    """Draw measured memory per token against the length, and what full attention would need."""
    measured = memory_points(memory)
    legend = [LegendEntry("measured", "series-1", "circle")]

    def draw(axes: "Axes") -> None:
        points = [(tokens, used / tokens) for tokens, used in measured if used > 0]
        _line(axes, points, "series-1", marker="o", markersize=5)
        lengths = [tokens for tokens, _ in measured]
        ends = (min(lengths) / 2, max(lengths) * 2)
        for number, (name, count) in enumerate(memory.full_attention_bytes.items()):
            colour = other_colour(number)
            line = [(tokens, count * tokens / memory.tokens**2) for tokens in ends]
            _line(axes, line, colour, dashes=(5, 3))
            legend.append(LegendEntry(f"full attention: {name}", colour, "dashed"))
        axes.set_yscale("log", base=2)
        axes.yaxis.set_major_formatter(lambda value, _: format_bytes_short(value))
        _log_tokens(axes, "sequence length (tokens)")
        axes.set_ylabel("memory per token")

    return svg("memory", "Memory per token against the sequence length", draw), legend


def over_steps(name: str, label: str, points: Points, write: Callable[[float], str]) -> Plot:
    """Draw one quantity over the steps, from zero; `write` formats the ticks."""

    def draw(axes: "Axes") -> None:
        _line(axes, points, "series-1", linewidth=1.4)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: write(value))
        _steps(axes)
        axes.set_ylabel(label)

    return svg(name, f"{label} over the steps", draw), []


def other_colour(number: int) -> str:
    """Return the colour of the number-th thing beside what the run itself did, from 0."""
    return _SERIES[1 + number % (len(_SERIES) - 1)]


def finite(points: Any) -> list[tuple[float, float]]:
    """Keep the points whose value is there and neither infinite nor NaN."""
    return [(x, y) for x, y in points if y is not None and math.isfinite(y)]


def smoothed(points: Points) -> list[tuple[float, float]]:
    """Return the exponential moving average over about a 25th of the points, without a bias to its start."""
    decay = 1 - 1 / max(1.0, len(points) / 25)
    total = weight = 0.0
    averages = []
    for x, y in points:
        total, weight = decay * total + y, decay * weight + 1
        averages.append((x, total / weight))
    return averages


def length_changes(steps: Sequence[TrainingStep]) -> list[tuple[int, int]]:
    """Return (first step, length) of each stretch of one length, or nothing if there is one or too many."""
    changes: list[tuple[int, int]] = []
    for step in steps:
        if step.length is not None and (not changes or step.length != changes[-1][1]):
            changes.append((step.step, step.length))
    return changes if 1 < len(changes) <= _MAX_LENGTH_MARKS else []


def memory_points(memory: MemoryUse) -> list[tuple[int, int]]:
    """Return (tokens, peak bytes above the baseline) of every measurement, ascending."""
    peaks = {one.tokens: one.peak_memory_bytes for one in (*memory.measurements, memory)}
    return [(tokens, peaks[tokens] - memory.baseline_memory_bytes) for tokens in sorted(peaks)]


def _line(axes: "Axes", points: Points, colour: str, **style: Any) -> None:
    if len(points) == 1:
        style.setdefault("marker", "o")
    axes.plot([x for x, _ in points], [y for _, y in points], color=STAND_IN[colour], **style)


def _steps(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(lambda value, _: format_count(value))


def _log_tokens(axes: "Axes", label: str) -> None:
    """Make the x axis logarithmic, with ticks at 2 and 5 as well if it spans less than three decades."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: format_short(value))
    axes.set_xlabel(label)


def _mark_length(axes: "Axes", step: int, length: int) -> None:
    axes.axvline(step, color=STAND_IN["muted"], linewidth=0.8, dashes=(2, 2))
    axes.annotate(
        format_count(length),
        (step, 1),
        (0, 2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        rotation=35,
        ha="left",
        va="bottom",
        rotation_mode="anchor",
        size=8,
        color=STAND_IN["muted"],
    )


def svg(
    name: str, label: str, draw: Callable[["Axes"], None], size: tuple[float, float] = _SIZE_INCHES
) -> str:
    """Draw a figure, the same bytes every time, and return it as an SVG element with ids of its own.

    Args:
        name: begins its ids.
        label: what a screen reader says.
        draw: draws into axes, in the colours of `STAND_IN`.
        size: inches.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The browser has glyphs that the font used for the layout lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        figure = Figure(figsize=size)
        draw(figure.add_subplot())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue(), name, label)


def _inline(document: str, name: str, label: str) -> str:
    """Turn matplotlib's SVG document into an element with the page's colours and with ids of its own."""
    svg = ElementTree.fromstring(document)
    for element in svg.iter():
        for child in [*element]:
            child.tag = _without_namespace(child.tag)
            if child.tag in ("metadata", "style"):
                element.remove(child)
        attributes = [(_without_namespace(key), value) for key, value in element.attrib.items()]
        element.attrib = {key: _attribute(key, value, name) for key, value in attributes}
    svg.tag = "svg"
    svg.attrib = {"class": "plot", "role": "img", "aria-label": label, "viewBox": svg.attrib["viewBox"]}
    return ElementTree.tostring(svg, encoding="unicode")


def _attribute(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value[1:]}"
    value = value.replace("url(#", f"url(#{name}-")
    for colour, stand_in in STAND_IN.items():
        value = value.replace(stand_in, f"var(--{colour})")
    return value


def _without_namespace(name: str) -> str:
    return name.rpartition("}")[2]
