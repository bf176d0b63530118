"""Large pages are asked for where a tensor has room for them."""

import mmap
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reformer.ops.large_pages import with_large_pages


def flags(x: Tensor) -> list[str]:
    """What the system was told about the memory in the middle of a tensor."""
    middle = x.data_ptr() + x.numel() * x.element_size() // 2
    found: list[str] = []
    mappings = re.split(
        r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE
    )
    for mapping in mappings[1:]:
        start, stop = (int(bound, 16) for bound in mapping.split()[0].split("-"))
        if start <= middle < stop:
            found = mapping.split("VmFlags:")[1].split()
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")
def test_a_large_tensor_gets_the_flag() -> None:
    x = torch.frombuffer(mmap.mmap(-1, 1 << 26), dtype=torch.float32)  # memory that nobody has had before
    assert "hg" not in flags(x)
    assert with_large_pages(x) is x
    assert "hg" in flags(x)
    x.fill_(3)
    assert (x == 3).all()


@pytest.mark.parametrize("x", [torch.empty(0), torch.empty(1 << 10), torch.empty(1 << 24, device="meta")])
def test_others_are_left_alone(x: Tensor) -> None:
    assert with_large_pages(x) is x
