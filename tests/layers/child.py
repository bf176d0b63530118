"""Functions of test modules, run in processes of their own, and the memory that they need there."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_CLEAR_REFS = Path("/proc/self/clear_refs")
_SCRIPT = "from tests.layers.child import _main; _main()"

needs_proc = pytest.mark.skipif(not _CLEAR_REFS.exists(), reason="peak memory is read from Linux's /proc")


def call(function: str, *arguments: Any) -> Any:
    """Call `tests.package.module:function` in a new process; arguments and result must have a JSON form."""
    return call_together(function, [arguments])[0]


def call_together(function: str, arguments: Sequence[Sequence[Any]], timeout: float = 300) -> list[Any]:
    """Call a function in as many new processes at once as there are lists of arguments."""
    processes = [_start(function, *of_one) for of_one in arguments]
    try:
        return [_result(process, timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _start(function: str, *arguments: Any) -> "subprocess.Popen[str]":
    # Large blocks go back to the system as soon as they are freed, so that peaks are those of tensors.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, function, json.dumps(arguments)],
        cwd=_ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(process: "subprocess.Popen[str]", timeout: float) -> Any:
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def growth_at_peak(run: Callable[[], object]) -> int:
    """Bytes by which the resident set was larger at its peak during a call than before it."""
    before = _status("VmRSS")
    _CLEAR_REFS.write_text("5")  # the peak is counted from here
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no {field} in /proc/self/status")


def _main() -> None:
    name, arguments = sys.argv[1:]
    module, function = name.split(":")
    print(json.dumps(getattr(import_module(module), function)(*json.loads(arguments))))
