"""Ctrl-C that lets the step in hand be finished and saved."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interruption:
    """Whether Ctrl-C was pressed: the first time it is noted, the second time it acts at once."""

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        """Whether Ctrl-C has been pressed."""
        return self._requested

    @classmethod
    @contextmanager
    def watch(cls) -> Iterator[Interruption]:
        """Notes Ctrl-C within the block, where signals can be handled (the main thread)."""
        interruption = cls()

        def note(number: int, frame: Any) -> None:
            interruption._requested = True
            signal.signal(signal.SIGINT, previous)
            print("finishing the step and saving; Ctrl-C again stops at once", file=sys.stderr)

        try:
            previous = signal.signal(signal.SIGINT, note)
        except ValueError:  # not the main thread
            yield interruption
            return
        try:
            yield interruption
        finally:
            signal.signal(signal.SIGINT, previous)
