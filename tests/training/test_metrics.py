import json
from pathlib import Path

import pytest

from reformer.training.metrics import MetricsFile, TensorBoardEvents, drop_metrics_after, peak_memory_bytes

STEPS = [{"step": step, "loss": 1.5 / step} for step in (1, 2, 3, 4)]
EVALUATION = {"step": 2, "eval": "x", "bits_per_token": 0.1 + 0.2}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for line in STEPS[:2]:
        file.record_step(line)
    file.record_evaluation(EVALUATION)
    for line in STEPS[2:]:
        file.record_step(line)
    file.flush()
    file.close()
    return path


def test_lines_after_a_step_are_dropped(path: Path) -> None:
    before = path.read_text()
    assert drop_metrics_after(path, 4) == [*STEPS[:2], EVALUATION, *STEPS[2:]]
    assert path.read_text() == before
    assert drop_metrics_after(path, 2) == [*STEPS[:2], EVALUATION]
    assert [json.loads(line) for line in path.read_text().splitlines()] == [*STEPS[:2], EVALUATION]


def test_a_line_that_was_cut_off_is_dropped(path: Path) -> None:
    path.write_text(path.read_text()[:-5])
    assert drop_metrics_after(path, 4) == [*STEPS[:2], EVALUATION, STEPS[2]]


def test_no_file(tmp_path: Path) -> None:
    assert drop_metrics_after(tmp_path / "none.jsonl", 4) == []
    assert not list(tmp_path.iterdir())


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, values in ((1, (3.0, 2.0, 1.0)), (2, (2.5,))):  # the second run goes on from step 1
        events = TensorBoardEvents(tmp_path, first)
        for step, loss in enumerate(values, first):
            events.record_step({"step": step, "loss": loss})
        events.record_evaluation(
            {"step": 2, "eval": "x", "bits_per_token": 2.0, "bits_by_position": [[2, 1.0]]}
        )
        events.flush()
        events.close()
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.Tags()["scalars"] == ["train/loss", "eval/x/bits_per_token"]
    assert {event.step: event.value for event in accumulator.Scalars("train/loss")}[2] == 2.5


def test_peak_memory_is_that_of_the_process() -> None:
    before = peak_memory_bytes()
    block = bytearray(before + 2**26)
    assert before + 2**26 <= peak_memory_bytes() < before + 2**28 + len(block)
