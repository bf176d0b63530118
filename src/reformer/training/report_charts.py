"""What the charts of a report show: each has a plot and, for those who cannot see one, a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reformer.training import report_page as page
from reformer.training import report_plots as plots
from reformer.training.report_data import Run
from reformer.training.report_format import format_bytes, format_count, format_short

T = TypeVar("T")

_MAX_TABLE_ROWS = 20


@dataclass(frozen=True)
class Chart:
    """A plot that is drawn when asked for, and the same data as a table."""

    heading: str
    caption: str
    draw: Callable[[], plots.Plot]
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def html(self, with_plot: bool) -> str:
        """Return the section: the plot with its table collapsed below it, or the table alone."""
        figures = page.table(self.header, self.rows)
        if not with_plot:
            return page.section(self.heading, page.paragraph(self.caption, "caption") + figures)
        svg, legend = self.draw()
        figure = page.figure(svg, legend, self.caption)
        return page.section(self.heading, figure + page.collapsed("As a table", figures))


def charts(run: Run) -> list[Chart]:
    """Return the charts that the run has data for, in the order of the report."""
    return [
        *_loss(run),
        *_positions(run),
        *_memory(run),
        *_learning_rate(run),
        *_speed(run),
    ]


def _loss(run: Run) -> list[Chart]:
    if not plots.finite((step.step, step.loss) for step in run.steps):
        return []
    caption = "Training loss at each step and its moving average"
    if run.evaluations:
        caption += ", with the loss on held-out sequences"
    caption += "."
    if plots.length_changes(run.steps):
        caption += " From each vertical line on, training sequences have the length written at it, in tokens."
    rows = [
        (
            format_count(step.step),
            f"{step.loss:.4f}",
            "" if step.length is None else format_count(step.length),
        )
        for step in _evenly(run.steps)
    ]
    header = ("step", f"loss (nats per {run.steps[-1].per})", "length (tokens)")
    return [Chart("Loss", caption, lambda: plots.loss_curve(run.steps, run.evaluations), header, rows)]


def _positions(run: Run) -> list[Chart]:
    kept = {name: evaluation for name, evaluation in run.kept.items() if evaluation.bits_by_position}
    if not kept:
        return []
    drawn = {name: (evaluation, _colours(run)[name]) for name, evaluation in kept.items()}
    columns = [dict(evaluation.bits_by_position) for evaluation in kept.values()]
    rows = [
        (f"below {format_count(bound)}", *(_bits(column.get(bound)) for column in columns))
        for bound in sorted({bound for column in columns for bound in column})
    ]
    return [
        Chart(
            "Use of the context",
            "Bits per token by how many tokens come before the predicted one.",
            lambda: plots.bits_by_position(drawn),
            ("tokens before", *(f"bits per token, {name}" for name in kept)),
            rows,
        )
    ]


def _bits(bits: float | None) -> str:
    return "no tokens" if bits is None else f"{bits:.4f}"


def _colours(run: Run) -> dict[str, str]:
    return {name: plots.other_colour(number) for number, name in enumerate(run.evaluations)}


def _memory(run: Run) -> list[Chart]:
    memory = run.memory
    if memory is None:
        return []
    rows = [
        (
            format_count(tokens),
            format_bytes(used),
            format_bytes(used / tokens),
            *(
                format_bytes(count * (tokens / memory.tokens) ** 2)
                for count in memory.full_attention_bytes.values()
            ),
        )
        for tokens, used in plots.memory_points(memory)
    ]
    caption = "Peak memory of a training step above what was in use before it"
    caption += f" ({format_bytes(memory.baseline_memory_bytes)}), divided by the length of its sequence."
    if memory.full_attention_bytes:
        caption += (
            " What full attention needs grows with the square of the length; it is computed, not measured."
        )
    header = (
        "tokens",
        "measured",
        "per token",
        *(f"full attention: {name}" for name in memory.full_attention_bytes),
    )
    return [Chart("Memory", caption, lambda: plots.memory_per_token(memory), header, rows)]


def _learning_rate(run: Run) -> list[Chart]:
    points = plots.finite((step.step, step.learning_rate) for step in run.steps)
    if not points:
        return []
    rows = [(format_count(step), f"{rate:.3g}") for step, rate in _evenly(points)]
    return [
        Chart(
            "Learning rate",
            "The learning rate of each step.",
            lambda: plots.over_steps("learning-rate", "learning rate", points, "{:g}".format),
            ("step", "learning rate"),
            rows,
        )
    ]


def _speed(run: Run) -> list[Chart]:
    points = plots.finite((step.step, step.tokens_per_second) for step in run.steps)
    if not points:
        return []
    rows = [(format_count(step), format_count(speed)) for step, speed in _evenly(points)]
    return [
        Chart(
            "Speed",
            "Training tokens per second at each step.",
            lambda: plots.over_steps("speed", "tokens per second", points, format_short),
            ("step", "tokens per second"),
            rows,
        )
    ]


def _evenly(items: Sequence[T]) -> list[T]:
    """Keep at most `_MAX_TABLE_ROWS` items, evenly spaced, the first and the last among them."""
    if len(items) <= _MAX_TABLE_ROWS:
        return list(items)
    last = _MAX_TABLE_ROWS - 1
    return [items[round(row * (len(items) - 1) / last)] for row in range(_MAX_TABLE_ROWS)]
