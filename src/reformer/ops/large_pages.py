"""Large pages for large tensors on a CPU.

Attention reads and writes vectors in the order of their buckets, all over a tensor. With pages of 4 KiB
almost every vector needs an address that the processor has forgotten; with large pages, few do. Linux gives
them where a program asks, which must be before the memory is first written to.
"""

import ctypes
import sys
from functools import cache
from typing import Any

import torch
from torch import Tensor

_SIZE = 1 << 21
_MADV_HUGEPAGE = 14


def with_large_pages(x: Tensor) -> Tensor:
    """Asks for large pages in a tensor just made with `torch.empty`; does nothing where there are none.

    Args:
        x: contiguous, on any device.

    Returns:
        x itself.
    """
    if torch.compiler.is_compiling() or type(x) is not Tensor or x.device.type != "cpu":
        return x
    num_bytes = x.numel() * x.element_size()
    if num_bytes >= 2 * _SIZE and (madvise := _madvise()) is not None:
        start = -(-x.data_ptr() // _SIZE) * _SIZE
        stop = (x.data_ptr() + num_bytes) // _SIZE * _SIZE
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_HUGEPAGE)
    return x


@cache
def _madvise() -> Any:
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
