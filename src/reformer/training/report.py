"""The report of a run: one page that needs neither scripts nor the network."""

import statistics
from pathlib import Path
from typing import Any

from reformer.errors import UserError
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_charts import charts
from reformer.training.report_data import Run, read_run
from reformer.training.report_format import format_bytes, format_count, format_duration
from reformer.training.report_plots import finite, has_matplotlib

_NO_PLOTS = "Tables stand in for the plots, which need matplotlib: pip install 'reformer-torch[report]'"


def write_report(run_dir: Path, sections: str = "") -> Path:
    """Write `report.html` into a run folder from the files that are in it.

    It reads `metrics.jsonl`, `recipe.yaml`, `memory.json` and `machine.json`, as far as they exist;
    `reformer.training.report_data` describes their fields. Sections without data are left out, and without
    matplotlib tables take the place of the plots. The same files give the same page, byte for byte.

    Args:
        run_dir: the run folder.
        sections: more of the page, HTML, shown below the charts.

    Returns:
        The path of the report, which is written whole or not at all.

    Raises:
        UserError: If the folder has nothing to report on, if one of the files is malformed (a last line of
            `metrics.jsonl` that was cut short is only noted), or if the report cannot be written.
    """
    run = read_run(run_dir)
    with_plots = has_matplotlib()
    notes = run.notes if with_plots else [*run.notes, _NO_PLOTS]
    body = "".join(
        [
            *(page.paragraph(note, "note") + "\n" for note in notes),
            _headline(run),
            '<div class="charts">\n',
            *(chart.html(with_plots) for chart in charts(run)),
            "</div>\n",
            sections,
            _recipe(run),
            _machine(run),
        ]
    )
    path = run_dir / "report.html"
    try:
        write_text_atomically(path, page.page(f"Training run {run.name}", body))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _headline(run: Run) -> str:
    rows = [*_loss_rows(run), *_evaluation_rows(run), *_cost_rows(run)]
    return page.section("Summary", page.headline(rows)) if rows else ""


def _loss_rows(run: Run) -> list[tuple[str, str, str]]:
    if not run.steps:
        return []
    last = run.steps[-1]
    bits = "" if last.bits_per_token is None else f"{last.bits_per_token:.4f} bits per {last.per}, "
    loss = f"{last.loss:.4f} nats per {last.per}"
    return [("Final training loss", loss, f"{bits}step {format_count(last.step)}")]


def _evaluation_rows(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    for name, kept in run.kept.items():
        remark = "" if kept.bits_per_base is None else f"{kept.bits_per_token:.4f} bits per token, "
        remark += f"step {format_count(kept.step)}"
        last = run.evaluations[name][-1]
        if last.step != kept.step:
            remark += (
                f", the best, chosen by this set; {last.bits:.4f} at the last, {format_count(last.step)}"
            )
        rows.append((f"Held out: {name}", f"{kept.bits:.4f} {kept.unit}", remark))
    return rows


def _cost_rows(run: Run) -> list[tuple[str, str, str]]:
    rows = []
    tokens = [step.tokens for step in run.steps if step.tokens is not None]
    if tokens:
        rows.append(("Tokens seen", format_count(tokens[-1]), f"in {format_count(run.steps[-1].step)} steps"))
    speeds = finite((step.step, step.tokens_per_second) for step in run.steps)
    if speeds:
        median = statistics.median(speed for _, speed in speeds)
        rows.append(("Tokens per second", format_count(median), "median over the steps"))
    peaks = [step.peak_memory_bytes for step in run.steps if step.peak_memory_bytes is not None]
    if peaks:
        rows.append(("Peak memory", format_bytes(max(peaks)), ""))
    seconds = [step.seconds for step in run.steps if step.seconds is not None]
    if seconds:
        rows.append(("Wall time", format_duration(seconds[-1]), ""))
    return rows


def _recipe(run: Run) -> str:
    if not run.recipe:
        return ""
    return page.section(
        "Recipe", page.collapsed("The resolved recipe of this run", page.preformatted(run.recipe))
    )


def _machine(run: Run) -> str:
    rows = [(_label(key), _value(key, value), "") for key, value in run.machine.items() if value is not None]
    return page.section("Machine", page.headline(rows)) if rows else ""


def _label(key: str) -> str:
    return key.removesuffix("_bytes").replace("_", " ")


def _value(key: str, value: Any) -> str:
    is_size = key.endswith("_bytes") and isinstance(value, int | float)
    return format_bytes(value) if is_size else str(value)
