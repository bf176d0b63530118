"""What `reformer bench` does."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from reformer.bench import plots
from reformer.bench.case import Case
from reformer.bench.registry import CASES
from reformer.bench.results import CaseResults
from reformer.bench.turns import Command, plain_worker, prepared_worker, run_case
from reformer.errors import UserError


def run_cases(
    names: Sequence[str],
    folder: Path,
    *,
    lengths: Sequence[int] = (),
    contenders: Sequence[str] = (),
    turns: int = 5,
    prepared: bool = False,
    environment: Mapping[str, str] | None = None,
    cases: dict[str, Case] = CASES,
    command: Command | None = None,
) -> bool:
    """Runs cases one after the other, and leaves a JSON file and pictures of each.

    Args:
        names: cases; all of them, at their quick lengths, where none is named.
        folder: where results go; made if missing.
        lengths: tokens, instead of the case's own.
        contenders: who takes part; all by default.
        turns: measurements of each contender.
        prepared: give the processes the settings of our command line.
        environment: variables of the processes; those of this one by default.
        cases: the cases there are.
        command: starts a worker, instead of what `prepared` says.

    Returns:
        Whether no contender was wrong and none failed.

    Raises:
        UserError: a name or a length does not exist, or turns are below 1.
    """
    chosen = names or [name for name, case in cases.items() if case.quick_lengths]
    _check(chosen, cases, lengths, contenders, turns)
    fine = True
    for name in chosen:
        case = cases[name]
        path = folder / (f"{name}-prepared.json" if prepared else f"{name}.json")
        print(f"{name}: {case.title}", flush=True)
        results = CaseResults(name, case, path, prepared=prepared, tell=lambda line: print(line, flush=True))
        taking_part = [n for n in case.contenders if not contenders or n in contenders]
        try:
            run_case(
                case,
                results,
                lengths=lengths or (case.lengths if names else case.quick_lengths),
                contenders=taking_part,
                turns=turns,
                command=command or (prepared_worker if prepared else plain_worker),
                environment=environment,
            )
        finally:  # also after Ctrl-C
            _show(results, path)
        fine = fine and not results.wrong
    return fine


def _show(results: CaseResults, path: Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        print("no pictures: matplotlib is not installed (pip install 'reformer-torch[report]')")
        pictures = []
    else:
        pictures = plots.write(results.report, path)
    print(f"written: {', '.join(str(one) for one in (path, *pictures))}", flush=True)


def _check(
    names: Sequence[str],
    cases: dict[str, Case],
    lengths: Sequence[int],
    contenders: Sequence[str],
    turns: int,
) -> None:
    for name in names:
        if name not in cases:
            raise UserError(f"no case is named {name!r}; there are {', '.join(cases)}")
        for contender in contenders:
            if contender not in cases[name].contenders:
                there = ", ".join(cases[name].contenders)
                raise UserError(f"no contender of case {name} is named {contender!r}; there are {there}")
    for length in lengths:
        if length < 256 or length & (length - 1):
            raise UserError(
                f"--lengths must be powers of two from 256 on, which all peers take, got {length}"
            )
    if turns < 1:
        raise UserError(f"--turns must be at least 1, got {turns}")
