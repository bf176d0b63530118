"""Lets contenders take turns, each in a process of its own, in which a first run only warms up."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Self

from reformer.bench.case import Case
from reformer.bench.results import CaseResults

SLOW_SECONDS = 10.0
"""A contender whose first run takes as long takes every second turn, from twice as long on every third ..."""

Command = Callable[[str, str], Sequence[str]]


def plain_worker(case: str, contender: str) -> Sequence[str]:
    """Starts a worker as Python starts any program."""
    return [sys.executable, "-m", "reformer.bench.worker", f"{case}/{contender}"]


def prepared_worker(case: str, contender: str) -> Sequence[str]:
    """Starts a worker through our command line, which prepares the process before torch is imported."""
    return [sys.executable, "-m", "reformer", "bench", "--worker", f"{case}/{contender}"]


class Worker:
    """The process of one contender, which does as it is told."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, order: str) -> dict[str, Any]:
        """Gives an order and waits for the answer; a process that has died is an answer too."""
        try:
            _pipe(self._process.stdin).write(order + "\n")
            _pipe(self._process.stdin).flush()
            line = _pipe(self._process.stdout).readline()
        except BrokenPipeError:
            line = ""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        return {"failed": f"its process ended with status {self._process.wait()}"}

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run_case(
    case: Case,
    results: CaseResults,
    *,
    lengths: Sequence[int],
    contenders: Sequence[str],
    turns: int,
    command: Command = plain_worker,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Shows that each contender is right, then measures those that are, length by length.

    Args:
        case: what is compared.
        results: where everything goes as soon as it is known.
        lengths: tokens.
        contenders: names, in the order of the turns.
        turns: measurements of each contender that is not slow; see `SLOW_SECONDS`.
        command: starts the worker of a case and a contender.
        environment: variables of the workers; those of this process by default.
    """

    def start(name: str) -> Worker:
        return Worker(command(results.name, name), environment)

    right = []
    for name in contenders:
        with start(name) as worker:
            if results.gate(name, worker.ask("gate"), case.contenders[name].tolerance):
                right.append(name)
    for length in lengths:
        _take_turns(results, length, right, turns, start)
        results.finish_length(length)


def _take_turns(
    results: CaseResults, length: int, names: Sequence[str], turns: int, start: Callable[[str], Worker]
) -> None:
    workers: dict[str, Worker] = {}
    intervals: dict[str, int] = {}
    try:
        for name in names:
            worker = workers[name] = start(name)
            answer = worker.ask(f"prepare {length}")
            answer = answer if _is_bad(answer) else worker.ask("first")
            results.record(length, name, answer, counts=False)
            if _is_bad(answer):
                workers.pop(name).stop()
            else:
                intervals[name] = 1 + int(_seconds(answer) / SLOW_SECONDS)
        for turn in range(turns):
            for name, worker in list(workers.items()):
                if turn % intervals[name]:
                    continue
                answer = worker.ask("run")
                results.record(length, name, answer, counts=True)
                if _is_bad(answer):
                    workers.pop(name).stop()
    finally:
        for worker in workers.values():
            worker.stop()


def _is_bad(answer: dict[str, Any]) -> bool:
    return "failed" in answer or "unavailable" in answer


def _seconds(answer: dict[str, Any]) -> float:
    return sum(value for name, value in answer.items() if name.endswith("seconds"))


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
