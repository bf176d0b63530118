"""What `reformer bench` makes of its measurements: ratios, crossover, pictures."""

from pathlib import Path
from typing import Any

import pytest

from reformer.bench import plots
from reformer.bench.registry import CASES
from reformer.bench.results import CaseResults, summary


def op_results(tmp_path: Path, seconds: dict[str, list[float]], lengths: list[int]) -> CaseResults:
    results = CaseResults("op", CASES["op"], tmp_path / "op.json", tell=lambda line: None)
    for name in seconds:
        results.gate(name, {"error": 0.0}, 1e-4)
    for index, length in enumerate(lengths):
        for name, values in seconds.items():
            answer = {"forward_seconds": values[index] / 3, "forward_backward_seconds": values[index]}
            results.record(length, name, answer | {"work_bytes": length << 10}, counts=False)
            results.record(length, name, answer, counts=True)
        results.finish_length(length)
    return results


@pytest.mark.parametrize(
    ("ours", "faster_from"),
    [([9, 1, 1], 512), ([1, 1, 1], 256), ([1, 9, 1], 1024), ([1, 1, 9], None), ([2, 2, 2], None)],
)
def test_faster_from_some_length_on(ours: list[float], faster_from: int | None, tmp_path: Path) -> None:
    results = op_results(tmp_path, {"chunk": ours, "sdpa": [2, 2, 2]}, [256, 512, 1024])
    assert results.report["faster_from"] == {"chunk": {"sdpa": faster_from}}


def test_summary() -> None:
    assert summary([3.0, 1.0, 2.5]) == {"median": 2.5, "lowest": 1.0, "highest": 3.0, "runs": 3}


def test_warming_up_counts_as_memory_alone(tmp_path: Path) -> None:
    results = CaseResults("short", CASES["short"], tmp_path / "short.json", tell=lambda line: None)
    results.record(512, "gpt2", {"step_seconds": 9.0, "work_bytes": 5, "resident_bytes": 7}, counts=False)
    found = results.report["lengths"]["512"]["gpt2"]
    assert found == {"work_bytes": 5, "resident_bytes": 7}
    for seconds in (1.0, 4.0, 2.0):
        results.record(512, "gpt2", {"step_seconds": seconds}, counts=True)
    assert found["step_seconds"]["median"] == 2.0
    assert found["tokens_per_second"] == 8 * 512 / 2.0


def test_crossover_is_where_the_lines_meet() -> None:
    quadratic = [(n, n**2 / 1e6, 0.0, 0.0) for n in (256, 1024, 4096)]
    linear = [(n, n / 1e3, 0.0, 0.0) for n in (256, 1024, 4096)]
    assert plots.crossover(linear, quadratic) == pytest.approx(1000)  # type: ignore[arg-type]
    assert plots.crossover(quadratic, linear) is None  # type: ignore[arg-type]
    assert plots.crossover(linear[1:], quadratic[1:]) is None  # type: ignore[arg-type]
    assert plots.crossover([], quadratic) is None  # type: ignore[arg-type]


def test_pictures_of_the_op(tmp_path: Path) -> None:
    seconds = {"chunk": [1.0, 2.0, 4.0], "sdpa": [0.5, 2.5, 9.0], "window": [1.0, 1.0, 1.0]}
    results = op_results(tmp_path, seconds, [256, 512, 1024])
    paths = plots.write(results.report, tmp_path / "op.json")
    assert [path.name for path in paths] == ["op-time.svg", "op-memory.svg"]
    time, memory = (path.read_text() for path in paths)
    assert time.rstrip().endswith("</svg>")
    assert "chunk beats sdpa from 43" in time
    assert "beats" not in memory
    assert time == plots.draw(results.report)["time"]  # the same bytes each time
    assert all(name in time for name in seconds)


@pytest.mark.parametrize(
    ("case", "quantities", "pictures"),
    [
        ("training", {"step_seconds": 1.5, "work_bytes": 1 << 20}, ["speed", "memory"]),
        (
            "kernel",
            {"forward_seconds": 1.0, "forward_of_gemm_rate_share": 0.8, "backward_of_gemm_rate_share": 0.7},
            ["share"],
        ),
    ],
)
def test_pictures_of_other_cases(
    case: str, quantities: dict[str, Any], pictures: list[str], tmp_path: Path
) -> None:
    results = CaseResults(case, CASES[case], tmp_path / f"{case}.json", tell=lambda line: None)
    name = next(iter(CASES[case].contenders))
    results.gate(name, {"error": 0.0}, 1e-4)
    for index, length in enumerate((4096, 8192)):
        assert list(plots.draw(results.report)) == []  # one length makes no line
        results.record(length, name, quantities, counts=True)
        results.finish_length(length)
        assert len(results.report["lengths"]) == index + 1
    assert list(plots.draw(results.report)) == pictures
