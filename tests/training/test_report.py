import json
import math
import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reformer.errors import UserError
from reformer.training.report import write_report
from reformer.training.report_data import TrainingStep, read_run
from reformer.training.report_format import format_bytes, format_duration, format_short
from reformer.training.report_page import DARK, LIGHT
from reformer.training.report_plots import length_changes, smoothed

HELD_OUT = "S. kudriavzevii <chromosome 1>"


def write_run(folder: Path, num_steps: int = 240) -> Path:
    """A run folder as a quickstart leaves it: three lengths, two evaluation sets, all files."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in _metrics(num_steps)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    memory = {
        "tokens": 230218,
        "peak_memory_bytes": 1_850_000_000,
        "baseline_memory_bytes": 420_000_000,
        "full_attention_bytes": {
            "one layer's scores, float32": 230218**2 * 4 * 2,
            "all layers": 230218**2 * 24,
        },
        "measurements": [
            {"tokens": tokens, "peak_memory_bytes": 420_000_000 + 9_000_000 + 6200 * tokens}
            for tokens in (4096, 16384, 65536)
        ],
    }
    (folder / "memory.json").write_text(json.dumps(memory))
    (folder / "recipe.yaml").write_text(
        "model:\n  hidden_size: 128  # <b>not bold</b>\n  num_buckets: null\n"
    )
    machine = {"cpu": "Some CPU @ 2.5 GHz", "cores": 2, "memory_bytes": 24 * 2**30, "torch": "2.13.0"}
    (folder / "machine.json").write_text(json.dumps(machine))
    return folder


def _metrics(num_steps: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    records: list[dict[str, Any]] = []
    tokens, seconds = 0, 0.0
    for step in range(1, num_steps + 1):
        length = 4096 if step <= 0.25 * num_steps else 32768 if step <= 0.7 * num_steps else 230218
        speed = 60_000 * rng.normal(1, 0.05)
        tokens += length
        seconds += length / speed
        loss = 1.335 + 0.06 * math.exp(-40 * step / num_steps) + rng.normal(0, 3 / math.sqrt(length) / 10)
        records.append(
            {
                "step": step,
                "loss": loss,
                "bits_per_token": loss / math.log(2),
                "learning_rate": 1e-3 * min(1, 20 * step / num_steps) * (1 - 0.9 * step / num_steps),
                "grad_norm": abs(rng.normal(1, 0.2)),
                "length": length,
                "tokens": tokens,
                "tokens_per_second": speed,
                "peak_memory_bytes": 800_000_000 + 5000 * length,
                "seconds": seconds,
            }
        )
        if step % (num_steps // 6) == 0:
            for name, floor in ((HELD_OUT, 1.94), ("chromosome I, last tenth", 1.93)):
                bits = floor + 0.05 * math.exp(-6 * step / num_steps) + 0.01 * (step == num_steps)
                bins = [[2**power, bits + 0.08 / power] for power in range(1, 18)] + [[230218, bits]]
                line = {"step": step, "eval": name, "bits_per_token": bits, "bits_per_base": bits - 0.001}
                records.append({**line, "bits_by_position": bins})
    return records


class Page(HTMLParser):
    """What a reader of the page finds: its text, headings, ids and references; fails on unbalanced tags."""

    VOID = ("meta",)

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.text = ""
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: Counter[str] = Counter()
        self._open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "src"
            if name == "id":
                self.ids.append(value or "")
            elif name.endswith("href"):
                self.references.append(value or "")
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        if self._open[-1:] == ["h2"]:
            self.headings.append(data)
        self.text += " " + data.strip()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(write_report(write_run(tmp_path_factory.mktemp("runs") / "yeast & <co>")))


def write_metrics(folder: Path, *lines: object) -> Path:
    folder.mkdir(exist_ok=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_all_sections_are_there_in_order(quickstart: Page) -> None:
    assert quickstart.headings == [
        "Summary",
        "Loss",
        "Use of the context",
        "Memory",
        "Learning rate",
        "Speed",
        "Recipe",
        "Machine",
    ]
    assert quickstart.source.count('class="plot"') == 5


def test_summary_states_the_model_that_is_kept(quickstart: Page) -> None:
    records = _metrics(240)
    last = [record for record in records if "loss" in record][-1]
    evaluations = [record for record in records if record.get("eval") == HELD_OUT]
    best = min(evaluations, key=lambda record: record["bits_per_token"])
    assert best is not evaluations[-1]
    for expected in (
        f"{last['loss']:.4f} nats per token",
        f"{best['bits_per_base']:.4f} bits per base",
        f"step {best['step']}, the best, chosen by this set; "
        f"{evaluations[-1]['bits_per_base']:.4f} at the last, 240",
        f"{last['tokens']:,}",
        "1.82 GiB",
        "5 min 42 s",
    ):
        assert expected in quickstart.text


def test_text_from_files_is_escaped(quickstart: Page) -> None:
    for text in ("yeast & <co>", HELD_OUT, "# <b>not bold</b>"):
        assert text in quickstart.text
        assert text not in quickstart.source
    assert quickstart.tags["b"] == 0


def test_page_is_self_contained(quickstart: Page) -> None:
    assert quickstart.tags["script"] == quickstart.tags["link"] == quickstart.tags["img"] == 0
    assert "http" not in quickstart.source.replace("http-equiv", "")
    assert "@import" not in quickstart.source
    assert {reference[0] for reference in quickstart.references} == {"#"}


def test_plots_refer_to_ids_that_are_there_once(quickstart: Page) -> None:
    assert len(quickstart.references) > 20
    assert max(Counter(quickstart.ids).values()) == 1
    assert {reference[1:] for reference in quickstart.references} <= set(quickstart.ids)


def test_plots_take_every_colour_from_the_page(quickstart: Page) -> None:
    drawings = re.findall(r"<svg.*?</svg>", quickstart.source, flags=re.DOTALL)
    assert len(drawings) > 6
    for drawing in drawings:
        assert re.findall(r"#[0-9a-f]{6}\b", drawing) == []
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", quickstart.source))
    assert used <= LIGHT.keys() == DARK.keys()


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_contrast(colours: dict[str, str]) -> None:
    def luminance(colour: str) -> float:
        """Relative luminance by WCAG 2."""
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    paper = luminance(colours["paper"])
    for name in colours.keys() - {"paper", "rule"}:
        darker, lighter = sorted((paper, luminance(colours[name])))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    import matplotlib

    first = write_report(write_run(tmp_path / "a" / "run")).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path"}):
        settings = dict(matplotlib.rcParams)
        second = write_report(write_run(tmp_path / "b" / "run")).read_bytes()
        assert dict(matplotlib.rcParams) == settings
    assert first == second


def test_loss_curve_marks_each_length(quickstart: Page) -> None:
    loss = quickstart.source[: quickstart.source.index("Use of the context")]
    drawing = loss[loss.index('<svg class="plot"') :]
    for length in ("4,096", "32,768", "230,218"):
        assert drawing[: drawing.index("</svg>")].count(f">{length}</text>") == 1


def test_tables_stand_in_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(write_report(write_run(tmp_path / "run")))
    assert "pip install 'reformer-torch[report]'" in page.text
    assert page.tags["svg"] == 0
    assert "Loss" in page.headings
    # 65,536 tokens: measured above the baseline, per token, and what full attention would need
    row = "65,536 396 MiB 6.19 KiB 32.0 GiB 96.0 GiB"
    assert row in re.sub(r"\s+", " ", page.text)


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    page = Page(write_report(tmp_path))
    assert page.headings == ["Recipe"]
    assert "seed: 1" in page.text


def test_a_first_step_is_enough(tmp_path: Path) -> None:
    name = "$x^ 鹿 --> \" ' &"
    write_metrics(
        tmp_path,
        {"step": 1, "loss": 1.4, "length": 100, "tokens_per_second": 5.0, "learning_rate": 1e-5},
        {"step": 1, "eval": name, "bits_per_token": 2.0, "bits_by_position": [[1, 2.0], [2, None], [4, 1.5]]},
    )
    (tmp_path / "memory.json").write_text('{"tokens": 100, "peak_memory_bytes": 5000000}')
    page = Page(write_report(tmp_path))
    assert page.source.count('class="plot"') == 5
    assert page.text.count(name) >= 4
    assert "no tokens" in page.text


def test_a_repeated_step_counts_once(tmp_path: Path) -> None:
    steps = [{"step": step, "loss": loss} for step, loss in ((1, 9.0), (2, 8.0), (3, 7.0), (2, 6.0))]
    run = read_run(write_metrics(tmp_path, *steps))
    assert [(step.step, step.loss) for step in run.steps] == [(1, 9.0), (2, 6.0), (3, 7.0)]


def test_losses_that_are_not_finite_are_not_drawn(tmp_path: Path) -> None:
    losses = [1.5, math.nan, math.inf, 1.4]
    write_metrics(tmp_path, *({"step": step, "loss": loss} for step, loss in enumerate(losses)))
    page = Page(write_report(tmp_path))
    assert "Loss" in page.headings
    assert "nan" in page.text
    assert "nan" not in page.source[page.source.index("<svg") : page.source.index("</svg>")].lower()


@pytest.mark.parametrize("end", ['{"step": 2, "lo', '{"step": 2, "eval": "é'.encode()[:-1], b"", b"[1, 2]\n"])
def test_a_last_line_cut_short_is_noted(tmp_path: Path, end: str | bytes) -> None:
    ending = end.encode() if isinstance(end, str) else end
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 1.25}\n' + ending)
    page = Page(write_report(tmp_path))
    assert "1.2500 nats per token" in page.text
    assert ("was cut short" in page.text) == bool(ending)


GOOD = '{"step": 1, "loss": 1.0}'


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("metrics.jsonl", f'{GOOD}\n{{"step": 2, "lo\n{GOOD}\n', "metrics.jsonl, line 2: expected JSON"),
        ("metrics.jsonl", f"[1]\n{GOOD}\n", "metrics.jsonl, line 1: Input should be a valid dictionary"),
        (
            "metrics.jsonl",
            f'{GOOD}\n{{"loss": 2.0}}\n{GOOD}\n',
            "metrics.jsonl, line 2: step: Field required",
        ),
        ("metrics.jsonl", f'{{"step": 1, "loss": "x"}}\n{GOOD}\n', "line 1: loss: .*valid number.*'x'"),
        ("metrics.jsonl", f'{{"step": 1, "eval": "a"}}\n{GOOD}\n', "line 1: bits_per_token: Field required"),
        ("memory.json", '{"tokens":\n 1', "memory.json: expected JSON, .* line 2"),
        ("memory.json", '{"tokens": 0, "peak_memory_bytes": 1}', "memory.json: tokens: .*greater than 0"),
        ("memory.json", '{"tokens": 5}', "memory.json: peak_memory_bytes: Field required"),
        ("machine.json", "[]", "machine.json: Input should be a valid dictionary"),
        ("machine.json", b"\xff{}", "machine.json: expected UTF-8"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, file: str, content: str | bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message) as caught:
        write_report(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_folders_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to report on, expected at least one of metrics\.jsonl"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="expected a run folder, found nothing"):
        write_report(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="expected a run folder, found a file"):
        write_report(tmp_path / "file")
    (tmp_path / "recipe.yaml").mkdir()
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read: Is a directory"):
        write_report(tmp_path)


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    write_metrics(tmp_path, GOOD)
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report\.html: cannot be written: Is a directory"):
        write_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "report.html"]


def test_a_report_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_metrics(tmp_path, GOOD)
    (tmp_path / "report.html").write_text("old")
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["metrics.jsonl", "report.html"]


def test_smoothing_is_an_unbiased_moving_average() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    averages = [y for _, y in smoothed(list(enumerate(values)))]
    decay = 1 - 25 / 200
    for last in (0, 1, 57, 199):
        weights = decay ** np.arange(last, -1, -1)
        assert averages[last] == pytest.approx(weights @ values[: last + 1] / weights.sum())


def test_length_changes_are_not_marked_when_every_step_differs() -> None:
    steps = [TrainingStep(step=step, loss=1.0, length=100 + step // 5) for step in range(100)]
    assert length_changes(steps[:15]) == [(0, 100), (5, 101), (10, 102)]
    assert length_changes(steps) == []
    assert length_changes(steps[:5]) == []


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (-1536, "-1.50 KiB"),
        (10.5 * 2**20, "10.5 MiB"),
        (99.96 * 2**20, "100 MiB"),
        (800 * 2**30, "800 GiB"),
        (2**40 - 1, "1.00 TiB"),
        (5e24, "4.14 YiB"),
        (5e30, "4135903 YiB"),
    ],
)
def test_format_bytes(count: float, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (222, "3 min 42 s"), (7500, "2 h 05 min")],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (1, "1"), (20_000, "20k"), (2.5e6, "2.5M"), (3e9, "3G")]
)
def test_format_short(count: float, text: str) -> None:
    assert format_short(count) == text
