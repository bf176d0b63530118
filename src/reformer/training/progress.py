"""Shows a run's progress on the terminal: a bar, or a line every few seconds where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 5.0
_RECENT_STEPS = 50


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on standard error, where that is a terminal; yields what advances it by a number."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda number: progress.advance(task, number)


class ProgressDisplay:
    """Shows steps and evaluations as they are recorded.

    Args:
        console: where to.
        num_steps: optimizer steps of the whole run.
        num_tokens: tokens of the whole run, all processes; the remaining time is estimated by tokens.
        tokens_done: tokens of the steps before this process began.
    """

    def __init__(self, console: Console, num_steps: int, num_tokens: int, tokens_done: int) -> None:
        self._console = console
        self._num_steps = num_steps
        self._num_tokens = num_tokens
        self._recent = deque([(time.monotonic(), tokens_done)], maxlen=_RECENT_STEPS)
        self._last_line = float("-inf")
        self._bar: Progress | None = None
        if console.is_terminal:
            columns = (BarColumn(bar_width=12), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task("starting", total=num_tokens, completed=tokens_done)
            self._bar.start()

    def record_step(self, line: dict[str, Any]) -> None:
        """Shows a training step."""
        self._recent.append((time.monotonic(), line["tokens"]))
        if self._bar is not None:
            self._bar.update(
                self._task, completed=line["tokens"], description="\n".join(self._describe(line))
            )
            return
        now = time.monotonic()
        if now - self._last_line >= _SECONDS_BETWEEN_LINES or line["step"] == self._num_steps:
            self._last_line = now
            self._print("  ".join(self._describe(line)))

    def record_evaluation(self, line: dict[str, Any]) -> None:
        """Prints an evaluation's result, above the bar if there is one."""
        step = f"step {line['step']:,}/{self._num_steps:,}"
        text = f"{step}  {line['eval']}: {line['bits_per_token']:.4f} bits/{line.get('per', 'token')}"
        if "bits_per_base" in line:
            text += f", {line['bits_per_base']:.4f} bits/base"
        self._print(text)

    def flush(self) -> None:
        """Nothing is on disk."""

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _describe(self, line: dict[str, Any]) -> tuple[str, str]:
        """Where the run is, and its numbers; each fits beside the bar in 80 columns."""
        rate = self._tokens_per_second()
        remaining = timedelta(seconds=round((self._num_tokens - line["tokens"]) / rate))
        return (
            f"step {line['step']:,}/{self._num_steps:,}  length {line['length']:,}  ETA {remaining}",
            f"loss {line['loss']:.4f}  {line['bits_per_token']:.4f} bits/{line.get('per', 'token')}  "
            f"{rate:,.0f} tokens/s  peak {line['peak_memory_bytes'] / 2**30:.2f} GiB",
        )

    def _tokens_per_second(self) -> float:
        """The speed over the last steps, evaluations and checkpoints between them included."""
        (start, tokens_at_start), (end, tokens) = self._recent[0], self._recent[-1]
        return (tokens - tokens_at_start) / max(end - start, 1e-9)
