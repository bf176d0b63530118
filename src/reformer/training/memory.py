"""Memory of the process that is free."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD, _M_MMAP_MAX = -3, -4  # of mallopt (malloc.h)
_LARGE = 1 << 20
_MOST_PIECES = 1 << 16


def return_large_memory() -> None:
    """Lets large pieces of memory go back to the system when they are freed, where the C library can.

    Our commands keep them (see `reformer.cli.prepare_process`), which saves time from one training step to
    the next. But over many windows the small pieces that stay, such as genes, come to lie between large ones
    that were freed; those that follow do not fit in, and what is kept grows with the number of windows.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_MMAP_MAX, _MOST_PIECES)
