"""What becomes of memory that the process frees: settings of the C library, where it has them (glibc)."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of mallopt (malloc.h)
_LARGE = 1 << 20
_MOST_PIECES = 1 << 16


def keep_freed_memory() -> None:
    """Lets freed memory stay with the process.

    glibc would give each large tensor back to the system, and the pages of the next one, cleared anew one by
    one, take up to a third of a training step.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def return_large_memory() -> None:
    """Undoes `keep_freed_memory` for pieces of 1 MiB and more: they go back to the system once freed.

    Over many windows the small pieces that stay, such as genes, come to lie between large ones that were
    freed; those that follow do not fit in, and what is kept grows with the number of windows.
    """
    _set({_M_MMAP_THRESHOLD: _LARGE, _M_MMAP_MAX: _MOST_PIECES})


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
