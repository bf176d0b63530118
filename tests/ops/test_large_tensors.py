"""Large tensors get large pages, and memory that was freed."""

import re
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reformer.ops import large_tensors
from reformer.ops.large_tensors import new_empty, new_zeros

MIB = 1 << 20
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux is asked")


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


def of_mib(number: int) -> Tensor:
    return new_empty(torch.empty(0), (number, MIB), torch.uint8)


@only_linux
def test_a_large_tensor_gets_the_flag() -> None:
    x = new_empty(torch.empty(0), (1 << 8, 1 << 16))
    assert "hg" in flags(x)
    assert x.data_ptr() % (2 * MIB) == 0


@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (1 << 8, 1 << 14), (2, 0, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.float64])
def test_it_is_what_torch_makes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    like = torch.empty(2, dtype=torch.float32)
    x, wanted = new_empty(like, shape, dtype), like.new_empty(shape, dtype=dtype)
    assert (x.shape, x.stride(), x.dtype, x._is_view()) == (wanted.shape, wanted.stride(), dtype, False)
    x.fill_(3)
    assert (x == 3).all()
    assert new_empty(like, shape).dtype == torch.float32


def test_other_devices_are_left_to_torch() -> None:
    assert new_empty(torch.empty(0, device="meta"), (1 << 24,)).device.type == "meta"


def test_memory_that_there_is_not_is_refused_as_by_torch() -> None:
    with pytest.raises(RuntimeError, match="memory"):
        new_empty(torch.empty(0), (1 << 50,))


@pytest.fixture(autouse=True)
def no_memory_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_tensors, "_memory", large_tensors._Memory())


@only_linux
def test_freed_memory_is_used_again() -> None:
    x = of_mib(16)
    address = x.data_ptr()
    del x
    y = of_mib(15)
    assert y.data_ptr() == address
    assert of_mib(16).data_ptr() != address, "which y still has"


def test_zeros_are_zeros_in_memory_that_was_used() -> None:
    like = torch.empty(0)
    for shape in [(4, MIB), (4, MIB), (3, 5)]:
        x = new_zeros(like, shape)
        assert not x.any()
        x.fill_(1)
        del x


@only_linux
def test_views_keep_their_memory() -> None:
    x = of_mib(16).fill_(1)
    row = x[3]
    del x
    of_mib(16).fill_(2)
    assert (row == 1).all()


@only_linux
def test_no_more_is_kept_than_was_in_use_at_once() -> None:
    x = of_mib(64).fill_(1)
    begin = resident()
    del x
    y = of_mib(32).fill_(1)
    assert resident() < begin - 24 * MIB, "what does not fit was given back first"
    z = of_mib(32).fill_(1)
    assert resident() < begin + 8 * MIB
    del y, z


@only_linux
def test_the_system_can_take_back_what_is_free() -> None:
    x = of_mib(64).fill_(1)
    begin = lazily_freed()
    del x
    assert lazily_freed() >= begin + 56 * MIB
    y = of_mib(64).fill_(1)
    assert lazily_freed() < begin + 8 * MIB, "which is in use again"
    del y


def test_threads_get_memory_of_their_own() -> None:
    wrong: list[int] = []

    def fill(number: int) -> None:
        for _ in range(20):
            x = of_mib(5).fill_(number)
            if not (x == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def lazily_freed() -> int:
    """Bytes of this process that the system can take."""
    return sum(map(int, re.findall(r"LazyFree:\s+(\d+)", Path("/proc/self/smaps").read_text()))) * 1024


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
