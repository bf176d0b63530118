"""What was measured: kept in a JSON file that is whole at any time, and told as it comes."""

import itertools
import json
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reformer.bench.case import Case
from reformer.bench.machine import describe_machine
from reformer.training.atomic import write_text_atomically

PROCESS = "each contender in a process of its own, with torch's default number of threads, "
PLAIN = "as Python starts it"
PREPARED = "with the settings of reformer's commands (reformer.cli.prepare_process: GOMP_SPINCOUNT, mallopt)"
TOTALS = ("forward_backward_times_as_fast", "step_times_as_fast")
PEAKS = ("work_bytes", "resident_bytes")


def summary(values: list[float]) -> dict[str, Any]:
    """Median, and the range of all values."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "runs": len(values),
    }


class CaseResults:
    """The results of one run of a case.

    Args:
        name: of the case.
        case: the case.
        path: the JSON file; written after each measurement.
        prepared: whether the processes have the settings of our command line.
        tell: shows a line.
    """

    def __init__(
        self,
        name: str,
        case: Case,
        path: Path,
        *,
        prepared: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.name = name
        self._case, self._path, self._tell = case, path, tell
        self._values: dict[tuple[int, str, str], list[float]] = {}
        self.report: dict[str, Any] = {
            "case": name,
            "title": case.title,
            "machine": describe_machine(),
            "process": PROCESS + (PREPARED if prepared else PLAIN),
            "kernels": _kernels(),
            "settings": dict(case.settings),
            "baselines": list(case.baselines),
            "notes": {n: c.note for n, c in case.contenders.items() if c.note},
            "gates": {},
            "lengths": {},
        }

    @property
    def wrong(self) -> list[str]:
        """Contenders whose results were not right, or that failed while they were asked."""
        bad = [name for name, gate in self.report["gates"].items() if gate["status"] in ("wrong", "failed")]
        lengths = self.report["lengths"].values()
        return bad + [name for found in lengths for name, one in found.items() if "failed" in one]

    def gate(self, name: str, answer: Mapping[str, Any], tolerance: float) -> bool:
        """Notes how near a contender comes to the truth; whether that is near enough to be measured."""
        gate: dict[str, Any] = {"tolerance": tolerance}
        reason = answer.get("unavailable") or answer.get("failed")
        if reason is not None:
            gate |= {"status": "unavailable" if "unavailable" in answer else "failed", "reason": reason}
            self._tell(f"{self.name}  {name:18} not measured: {reason}")
        else:
            error = answer["error"]
            right = error <= tolerance
            gate |= {
                "status": "right" if right else "wrong",
                "error": error if math.isfinite(error) else str(error),
            }
            verdict = "" if right else ": wrong, so it is not measured"
            self._tell(f"{self.name}  {name:18} error {error:.1e}, allowed {tolerance:.0e}{verdict}")
        self.report["gates"][name] = gate
        self._write()
        return gate["status"] == "right"

    def record(self, length: int, name: str, answer: Mapping[str, Any], *, counts: bool) -> None:
        """Notes a measurement; of one that does not count, which warmed up, only the memory."""
        found = self.report["lengths"].setdefault(str(length), {}).setdefault(name, {})
        for reason in ("unavailable", "failed"):
            if reason in answer:
                found[reason] = answer[reason]
                self._tell(f"{length:9,} tokens  {name:18} {reason}: {answer[reason]}")
        for quantity, value in answer.items():
            if quantity in PEAKS:
                found[quantity] = value
            elif counts and isinstance(value, (int, float)):
                values = self._values.setdefault((length, name, quantity), [])
                values.append(value)
                found[quantity] = summary(values)
                if quantity == "step_seconds":
                    found["tokens_per_second"] = self._case.batch * length / found[quantity]["median"]
        self._write()
        seconds = [value for quantity, value in answer.items() if quantity.endswith("_seconds")]
        if seconds:
            kind = "measured" if counts else "warmed up"
            self._tell(f"{length:9,} tokens  {name:18} {kind} in {max(seconds):.3g} s")

    def finish_length(self, length: int) -> None:
        """Compares what was measured at a length, and tells it."""
        found: dict[str, Any] = self.report["lengths"].get(str(length), {})
        for name, one in found.items():
            ratios = {
                base: compared
                for base in self._case.baselines
                if base != name and (compared := _ratios(found.get(base, {}), one))
            }
            if ratios and name not in self._case.baselines:
                one["compared_with"] = ratios
            self._tell_line(length, name, one)
        self.report["faster_from"] = faster_from(self.report)
        self._write()

    def _tell_line(self, length: int, name: str, one: Mapping[str, Any]) -> None:
        words = [
            _in_words(quantity, value["median"]) + f" ({value['lowest']:.3g} to {value['highest']:.3g})"
            for quantity, value in one.items()
            if isinstance(value, dict) and "median" in value
        ]
        words += [_in_words(quantity, one[quantity]) for quantity in PEAKS if quantity in one]
        if len(words) > 0:
            self._tell(f"{length:9,} tokens  {name:18} {'  '.join(words)}")
        for base, ratios in one.get("compared_with", {}).items():
            told = [
                f"{quantity.removesuffix('_times_as_fast').replace('_', ' ')} {value:.2f} times as fast"
                for quantity, value in ratios.items()
                if quantity.endswith("_times_as_fast")
            ]
            told += (
                [f"{ratios['share_of_work_bytes']:.2f} of its memory"]
                if "share_of_work_bytes" in ratios
                else []
            )
            self._tell(f"{'':18}next to {base}: {', '.join(told)}")

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self._path, json.dumps(self.report, indent=1) + "\n")


def _ratios(base: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, float]:
    """How many times as fast, and what share of the memory."""
    ratios = {
        quantity.removesuffix("seconds") + "times_as_fast": base[quantity]["median"] / value["median"]
        for quantity, value in one.items()
        if quantity.endswith("_seconds") and quantity in base
    }
    for peak in PEAKS:
        if base.get(peak) and one.get(peak):
            ratios[f"share_of_{peak}"] = one[peak] / base[peak]
    return ratios


def faster_from(report: Mapping[str, Any]) -> dict[str, dict[str, int | None]]:
    """For each contender and baseline: the least length from which on it is faster, wherever both ran.

    None where the baseline is faster at the longest of them.
    """
    speeds: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for length, contenders in report["lengths"].items():
        for name, one in contenders.items():
            for base, ratios in one.get("compared_with", {}).items():
                for total in TOTALS:
                    if total in ratios:
                        speeds.setdefault((name, base), []).append((int(length), ratios[total]))
    found: dict[str, dict[str, int | None]] = {}
    for (name, base), pairs in speeds.items():
        faster = itertools.takewhile(lambda pair: pair[1] > 1, sorted(pairs, reverse=True))
        found.setdefault(name, {})[base] = min((length for length, _ in faster), default=None)
    return found


def _in_words(quantity: str, value: float) -> str:
    name, _, unit = quantity.rpartition("_")
    name = name.replace("_", " ")
    if unit == "bytes":
        return f"{name} {value / 2**20:,.0f} MiB"
    return f"{name} {value:.1%}" if unit == "share" else f"{name} {value:.4g} s"


def _kernels() -> str:
    from reformer.ops.cpu import library

    if isinstance(library.functions, str):
        return f"none: {library.functions}"
    return library.instruction_sets[0]
