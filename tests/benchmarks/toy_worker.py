"""Small contenders, right and wrong, for the tests: a worker, or a whole run that waits to be interrupted."""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reformer.bench.case import Case, Contender, Run
from reformer.cli import prepare_process


def leaks(q: Any, k: Any, v: Any) -> Any:
    """Full attention that also sees later tokens."""
    import torch

    return torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0)


def _steps() -> Any:
    """What needs torch, which takes a second to import."""
    from reformer.bench import op, peers

    return op, peers


def _right() -> Contender:
    def prepare(length: int) -> Run:
        op, peers = _steps()
        return op.measured(peers.full_attention, length)  # type: ignore[no-any-return]

    def gate() -> float:
        op, peers = _steps()
        return op.error_against(peers.dense_attention, peers.full_attention)  # type: ignore[no-any-return]

    return Contender(prepare, gate, 1e-4)


def _wrong() -> Contender:
    def gate() -> float:
        op, peers = _steps()
        return op.error_against(peers.dense_attention, leaks)  # type: ignore[no-any-return]

    return Contender(_waits, gate, 1e-4)


def _fails() -> float:
    raise ValueError("no luck")


def _waits(length: int) -> Run:
    runs = 0

    def run() -> dict[str, float]:
        nonlocal runs
        runs += 1
        if length > 256 and runs > 2:
            time.sleep(600)
        return {"forward_seconds": 0.1, "forward_backward_seconds": 0.25}

    return run


def _slow(length: int) -> Run:
    runs = 0

    def run() -> dict[str, float]:
        nonlocal runs
        runs += 1
        return {"forward_seconds": 24.0 / runs}  # which it says it has taken

    return run


def _dies(length: int) -> Run:
    def run() -> dict[str, float]:
        if length > 256:
            os._exit(7)
        return {"forward_seconds": 0.1, "forward_backward_seconds": 0.25}

    return run


CASES = {
    "toy": Case(
        title="toys",
        contenders={
            "right": _right(),
            "wrong": _wrong(),
            "not a number": Contender(_waits, lambda: float("nan"), 1e-4),
            "fails": Contender(_waits, _fails, 1e-4),
            "missing": Contender(_waits, _fails, 1e-4, package="no_such_package"),
            "waits": Contender(_waits, lambda: 0.0, 1e-4),
            "dies": Contender(_dies, lambda: 0.0, 1e-4),
            "slow": Contender(_slow, lambda: 0.0, 1e-4),
        },
        baselines=("wrong", "waits"),
        lengths=(256, 512),
        quick_lengths=(256,),
        warm_up_length=256,
        settings={},
    )
}


def command(case: str, contender: str) -> Sequence[str]:
    return [sys.executable, __file__, case, contender]


if __name__ == "__main__":
    prepare_process()
    if sys.argv[1] != "run":
        from reformer.bench.worker import serve

        serve(CASES, *sys.argv[1:])
        sys.exit()
    from reformer.bench.command import run_cases

    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run where it is ignored
    try:
        run_cases(
            ["toy"],
            Path(sys.argv[2]),
            lengths=[512],
            contenders=["waits"],
            turns=3,
            cases=CASES,
            command=command,
        )
    except KeyboardInterrupt:
        sys.exit(130)
