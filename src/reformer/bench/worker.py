"""The process of one contender: it shows that its results are right, then does the work when it is told to.

It reads orders from its standard input, a line each, and answers each with a line of JSON.
"""

import ctypes
import importlib.util
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from reformer.bench.case import Case, Contender, Run, Unavailable

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def serve(cases: Mapping[str, Case], case_name: str, contender_name: str) -> None:
    """Answers orders until the input ends: "gate", "prepare LENGTH", "first", "run".

    Whatever else the contender's libraries print goes to standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who gives the orders decides
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    case = cases[case_name]
    contender = case.contenders[contender_name]
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        order, *arguments = line.split()
        _answer(answers, lambda: _obey(case, contender, runs, order, arguments))  # noqa: B023


def _obey(
    case: Case, contender: Contender, runs: dict[str, Run], order: str, arguments: list[str]
) -> dict[str, Any]:
    if order == "gate":
        _require(contender.package)
        return {"error": contender.gate()}
    if order == "prepare":
        _require(contender.package)
        contender.prepare(case.warm_up_length)()
        runs["run"] = contender.prepare(int(arguments[0]))
        return {}
    return _with_peak(runs["run"]) if order == "first" else runs["run"]()


def _require(package: str | None) -> None:
    if package is not None and importlib.util.find_spec(package) is None:
        raise Unavailable(f"{package} is not installed (pip install 'reformer-torch[bench]')")


def _answer(answers: TextIO, work: Callable[[], dict[str, Any]]) -> None:
    try:
        answer = work()
    except (Unavailable, NotImplementedError) as reason:
        answer = {"unavailable": _one_line(reason)}
    except Exception as error:
        traceback.print_exc()
        answer = {"failed": f"{type(error).__name__}: {_one_line(error)}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _one_line(error: Exception) -> str:
    return str(error).split("\n")[0][:300]


def _with_peak(run: Run) -> dict[str, float]:
    """What a run says, and its memory in bytes where the system tells it.

    `work_bytes` is the peak of the resident set over the resident set before; `resident_bytes` is all of it.
    """
    if not _CLEAR.exists():
        return run()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # what was freed counts no more
    before = _resident("VmRSS")
    _CLEAR.write_text("5")  # the peak counts from here
    found = run()
    peak = _resident("VmHWM")
    return found | {"work_bytes": peak - before, "resident_bytes": peak}


def _resident(field: str) -> int:
    return int(_STATUS.read_text().split(f"{field}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    from reformer.bench.registry import CASES

    serve(CASES, *sys.argv[1].split("/"))
