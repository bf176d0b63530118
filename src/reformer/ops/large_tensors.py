"""Large tensors on a CPU: in large pages, and in memory that is used again.

Attention reads and writes vectors in the order of their buckets, all over a tensor. With pages of 4 KiB
almost every vector needs an address that the processor has forgotten; with large pages, few do. Linux gives
them where a program asks, which must be before the memory is first written to.

The system clears every page that it gives out. For tensors as long as a sequence, of which each layer makes
some and frees them, that takes up to a third of a training step. Their memory is therefore kept for the next
ones, marked as memory that the system can take back when it runs short (madvise(2), "MADV_FREE").
"""

import mmap
import sys
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from math import prod

import torch
from torch import Tensor

_PAGE = 1 << 21
_LARGE = 2 * _PAGE
_LARGEST_LEARNT = 31 << 20


def new_empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """`like.new_empty(shape, dtype=dtype)`, in large pages where there are any.

    Args:
        like: on any device.
        shape: of the result, which is contiguous.
        dtype: that of `like` if None.
    """
    return _allocate(like, shape, dtype or like.dtype)[0]


def new_zeros(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """The same with zeros, which need not be written where the system has just cleared the memory."""
    x, is_zero = _allocate(like, shape, dtype or like.dtype)
    return x if is_zero else x.zero_()


def _allocate(like: Tensor, shape: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, bool]:
    """A new tensor, and whether it is known to be zero."""
    ordinary = torch.compiler.is_compiling() or type(like) is not Tensor or like.device.type != "cpu"
    if ordinary or sys.platform != "linux" or prod(shape) * dtype.itemsize < _LARGE:
        return like.new_empty(shape, dtype=dtype), False
    _keep_freed_chunks()
    try:
        allocated, is_zero = _memory.bytes(prod(shape) * dtype.itemsize)
    except OSError:
        return like.new_empty(shape, dtype=dtype), False  # says how much memory there is not
    x: Tensor = torch.empty(0, dtype=dtype).set_(allocated.untyped_storage(), 0, tuple(shape))  # type: ignore[call-overload]
    return x, is_zero


class _Memory:
    """Memory for large tensors, each piece in a mapping of its own.

    What is kept and what is in use never come to more than has been in use at once.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._free: list[mmap.mmap] = []
        self._in_use = self._most_in_use = 0
        self._returned: deque[mmap.mmap] = deque()

    def bytes(self, number: int) -> tuple[Tensor, bool]:
        """Bytes that begin at a large page, and whether all are 0; they come back when the tensor is freed.

        Raises:
            OSError: there is not enough memory.
        """
        with self._lock:
            piece, is_zero = self._piece(number + _PAGE)
        start = -torch.frombuffer(piece, dtype=torch.uint8, count=1).data_ptr() % _PAGE
        view = memoryview(piece)[start : start + number]  # which the tensor's storage keeps
        weakref.finalize(view, self._take_back, piece).atexit = False
        return torch.frombuffer(view, dtype=torch.uint8), is_zero

    def _piece(self, size: int) -> tuple[mmap.mmap, bool]:
        while self._returned:
            returned = self._returned.popleft()
            self._in_use -= len(returned)
            self._free.append(returned)
        fitting = [piece for piece in self._free if size <= len(piece) <= size + size // 8]
        if fitting:
            piece = min(fitting, key=len)
            self._free.remove(piece)
        else:
            self._most_in_use = max(self._most_in_use, self._in_use + size)
            while self._free and self._in_use + sum(map(len, self._free)) + size > self._most_in_use:
                self._free.pop(0)
            piece = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            piece.madvise(mmap.MADV_HUGEPAGE)
        self._in_use += len(piece)
        return piece, not fitting

    def _take_back(self, piece: mmap.mmap) -> None:
        """Keeps a piece that is free. Called at any moment, by any thread, so it changes nothing else."""
        with suppress(OSError):  # of systems that have no such mark
            piece.madvise(mmap.MADV_FREE)
        self._returned.append(piece)


_memory = _Memory()


@cache
def _keep_freed_chunks() -> None:
    """Lets the C library keep what chunks of a few MiB leave behind for the next chunk.

    glibc gives freed memory at the end of its heap back to the system, from twice the size on of the largest
    piece below 32 MiB that a program has freed (mallopt(3), "M_MMAP_THRESHOLD"), so one such piece is freed.
    """
    torch.empty(_LARGEST_LEARNT, dtype=torch.uint8)
