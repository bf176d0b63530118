"""Memory of the process that is free."""

from __future__ import annotations

import ctypes
import sys


def return_freed_memory() -> None:
    """Gives what was freed back to the system, where the C library can; our commands keep it else.

    What is kept saves time from step to step (see `reformer.cli.prepare_process`), but pieces of many sizes
    leave gaps in it, so that it grows with the number of long windows.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
