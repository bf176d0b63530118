"""What a run folder holds, read and checked."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from pydantic import BaseModel, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from reformer.errors import UserError

T = TypeVar("T")


class TrainingStep(BaseModel):
    """One line of `metrics.jsonl` for an optimizer step.

    Attributes:
        step: Optimizer step, counted from the start of the run.
        loss: Nats per token.
        per: What is predicted, where it is no token.
        bits_per_token: The same in bits.
        learning_rate: As used for this step.
        grad_norm: Before clipping.
        length: Tokens in one sequence of this step.
        tokens: Tokens seen since the start of the run.
        tokens_per_second: Speed of this step.
        peak_memory_bytes: Peak memory of this step or of the process so far.
        seconds: Wall time since the start of the run.
    """

    step: int
    loss: float
    per: str = "token"
    bits_per_token: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    length: int | None = None
    tokens: int | None = None
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    seconds: float | None = None


class Evaluation(BaseModel):
    """One line of `metrics.jsonl` for an evaluation.

    Attributes:
        step: Optimizer step after which it was done.
        eval: Name of the evaluation set.
        per: What is predicted, where it is no token.
        bits_per_token: Mean over its tokens.
        bits_per_base: Mean over those of them that are bases, for nucleotides.
        bits_by_position: Per bin, ascending: an exclusive upper bound on how many tokens stand before the
            predicted one, and the mean bits per token, None for a bin without tokens.
    """

    step: int
    eval: str
    per: str = "token"
    bits_per_token: float
    bits_per_base: float | None = None
    bits_by_position: list[tuple[PositiveInt, float | None]] = []

    @property
    def bits(self) -> float:
        """What is reported: bits per base where there are bases, else bits per token."""
        return self.bits_per_token if self.bits_per_base is None else self.bits_per_base

    @property
    def unit(self) -> str:
        """The unit of `bits`."""
        return f"bits per {self.per}" if self.bits_per_base is None else "bits per base"


class MemoryMeasurement(BaseModel):
    """Peak memory of a training step on one sequence of `tokens` tokens."""

    tokens: PositiveInt
    peak_memory_bytes: int


class MemoryUse(MemoryMeasurement):
    """`memory.json`.

    Attributes:
        tokens: Length of the sequence of the run.
        peak_memory_bytes: Peak during its step.
        baseline_memory_bytes: In use before the step: parameters, optimizer state, the program itself.
        full_attention_bytes: What full attention would need at that length, per way of counting.
        measurements: Peaks at other lengths, above the same baseline.
    """

    baseline_memory_bytes: int = 0
    full_attention_bytes: dict[str, PositiveFloat] = {}
    measurements: list[MemoryMeasurement] = []


@dataclass(frozen=True)
class Run:
    """A run folder's contents; what the folder does not have is empty or None."""

    name: str
    steps: list[TrainingStep] = field(default_factory=list)
    evaluations: dict[str, list[Evaluation]] = field(default_factory=dict)
    memory: MemoryUse | None = None
    recipe: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def kept(self) -> dict[str, Evaluation]:
        """The evaluations, by set, of the model that is kept: that of the lowest mean over the sets."""
        by_step: dict[int, dict[str, Evaluation]] = {}
        for name, series in self.evaluations.items():
            for evaluation in series:
                by_step.setdefault(evaluation.step, {})[name] = evaluation
        complete = [found for found in by_step.values() if len(found) == len(self.evaluations)]
        last = {name: series[-1] for name, series in self.evaluations.items()}
        return min(complete, key=_mean_bits_per_token, default=last)


def read_run(run_dir: Path) -> Run:
    """Read the files of a run folder that a report is made from.

    Where a step occurs twice in `metrics.jsonl`, as after a resume, the later line counts.

    Raises:
        UserError: If the folder does not exist or has none of the files, or if one of them cannot be read;
            a last line of `metrics.jsonl` that was cut short is only noted.
    """
    if not run_dir.is_dir():
        raise UserError(
            f"{run_dir}: expected a run folder, found {'a file' if run_dir.exists() else 'nothing'}"
        )
    contents = {name: _read_bytes(run_dir / name) for name in _FILES}
    if all(content is None for content in contents.values()):
        raise UserError(f"{run_dir}: nothing to report on, expected at least one of {', '.join(_FILES)}")
    steps, evaluations, notes = _read_metrics(run_dir / "metrics.jsonl", contents["metrics.jsonl"] or b"")
    machine = _read_json(run_dir / "machine.json", contents["machine.json"], dict[str, Any])
    return Run(
        name=run_dir.resolve().name,
        steps=steps,
        evaluations=evaluations,
        memory=_read_json(run_dir / "memory.json", contents["memory.json"], MemoryUse),
        recipe=_decode(contents["recipe.yaml"]),
        machine=machine or {},
        notes=notes,
    )


_FILES = ("metrics.jsonl", "memory.json", "recipe.yaml", "machine.json")


def _mean_bits_per_token(evaluations: dict[str, Evaluation]) -> float:
    return fmean(evaluation.bits_per_token for evaluation in evaluations.values())


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _decode(content: bytes | None) -> str | None:
    return None if content is None else content.decode(errors="replace")


def _read_json(path: Path, content: bytes | None, kind: type[T]) -> T | None:
    if content is None:
        return None
    try:
        return TypeAdapter(kind).validate_python(json.loads(content))
    except (ValidationError, ValueError) as error:
        raise UserError(f"{path}: {_reason(error)}") from error


def _read_metrics(
    path: Path, content: bytes
) -> tuple[list[TrainingStep], dict[str, list[Evaluation]], list[str]]:
    steps: dict[int, TrainingStep] = {}
    evaluations: dict[str, dict[int, Evaluation]] = {}
    notes = []
    lines = content.splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            record = _parse_record(line)
        except (ValidationError, ValueError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}: {_reason(error)}") from error
            notes.append(f"The last line of {path.name} (line {number}) was cut short and is left out.")
            break
        if isinstance(record, Evaluation):
            evaluations.setdefault(record.eval, {})[record.step] = record
        else:
            steps[record.step] = record
    by_name = {name: [by_step[step] for step in sorted(by_step)] for name, by_step in evaluations.items()}
    return [steps[step] for step in sorted(steps)], by_name, notes


def _parse_record(line: bytes) -> TrainingStep | Evaluation:
    values = json.loads(line)
    is_evaluation = isinstance(values, dict) and "eval" in values
    return (Evaluation if is_evaluation else TrainingStep).model_validate(values)


def _reason(error: ValueError) -> str:
    """Say in one line what was expected and what was found instead."""
    if isinstance(error, json.JSONDecodeError):
        return f"expected JSON, {error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {first['input']!r:.80}"
        return f"{place + ': ' if place else ''}{first['msg']}{found}"
    return f"expected UTF-8 text, {error}"
