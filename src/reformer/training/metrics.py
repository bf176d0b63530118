"""What a run leaves behind while it trains: `metrics.jsonl` and TensorBoard events.

`metrics.jsonl` has one JSON object a line. After every optimizer step: step, loss (nats per token),
bits_per_token, learning_rate, grad_norm (before clipping), length (tokens per sequence), tokens (so far, all
processes), tokens_per_second, peak_memory_bytes, seconds (of training so far). After every evaluation, for
every set: step, eval (the set's name), bits_per_token, bits_per_base (nucleotides only) and bits_by_position,
a list of [exclusive upper bound of the number of tokens seen before the predicted one, bits per token]. Where
what is predicted is no token, `per` says what it is, such as "sequence"; loss and bits are then those of one.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import IO, Any, Protocol

from reformer.training.atomic import write_text_atomically

NATS_PER_BIT = math.log(2.0)


class Recorder(Protocol):
    """Takes the lines of `metrics.jsonl` as they come."""

    def record_step(self, line: dict[str, Any]) -> None:
        """Takes a training step's line."""

    def record_evaluation(self, line: dict[str, Any]) -> None:
        """Takes an evaluation's line."""

    def flush(self) -> None:
        """Puts everything recorded so far on disk: a checkpoint of this step follows."""

    def close(self) -> None:
        """Ends the recording."""


class MetricsFile:
    """Appends lines to `metrics.jsonl`, each whole in one write."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("a", encoding="utf-8", buffering=1)

    def record_step(self, line: dict[str, Any]) -> None:
        """Appends a line."""
        self._file.write(json.dumps(line) + "\n")

    record_evaluation = record_step

    def flush(self) -> None:
        """Waits until all lines are on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardEvents:
    """Writes the numbers of the lines as TensorBoard scalars under train/ and eval/.

    Args:
        folder: where the event files go.
        first_step: events of this step and later ones, left by a run that was cut off, are withdrawn.

    Raises:
        ImportError: when tensorboard is not installed.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=first_step)  # type: ignore[no-untyped-call]

    def record_step(self, line: dict[str, Any]) -> None:
        """Writes train/ scalars."""
        self._write("train", line)

    def record_evaluation(self, line: dict[str, Any]) -> None:
        """Writes eval/NAME/ scalars."""
        self._write(f"eval/{line['eval']}", line)

    def _write(self, prefix: str, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if name != "step" and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{prefix}/{name}", value, line["step"])  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Hands the events to the operating system."""
        self._writer.flush()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()  # type: ignore[no-untyped-call]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, without a last one that was cut off."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def drop_metrics_after(path: Path, step: int) -> list[dict[str, Any]]:
    """Removes the lines of later steps than `step` and returns those that stay.

    Args:
        path: a `metrics.jsonl`, which need not exist.
        step: the step of the checkpoint that the run goes on from.
    """
    if not path.exists():
        return []
    lines = [line for line in read_metrics(path) if line["step"] <= step]
    write_text_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def peak_memory_bytes() -> int:
    """The most memory in use so far: on the GPU, if torch has begun to use one, else by the process."""
    import torch

    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # unlike getrusage, not inherited from the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
