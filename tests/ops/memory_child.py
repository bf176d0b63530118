"""Run attention ops and print how far each raised the peak memory of this process, in MiB.

Usage: python memory_child.py BACKEND:WINDOW:T:NUM_ROUNDS ...
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reformer.ops import local_attention, lsh_attention

H, D = 2, 64


def status(field: str) -> float:
    """A size from the kernel's account of this process; getrusage's would include the parent's peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def inputs(T: int, num_rounds: int) -> tuple[list[Tensor], Tensor]:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, H, T, D, generator=g, requires_grad=True) for _ in range(3))
    return [q, k, v], torch.randint(max(1, T // 64), (1, H, num_rounds, T), generator=g)


def run(window: Any, qkv: list[Tensor], buckets: Tensor, backend: Any) -> list[float]:
    """Peaks above what was resident before: of the forward, of forward and backward."""
    start = status("VmRSS")
    if window == "local":
        out = local_attention(*qkv, backend=backend)
    else:
        out = lsh_attention(*qkv, buckets, window=window, backend=backend)
    forward = status("VmHWM") - start
    torch.autograd.grad(out, qkv, torch.ones_like(out))
    return [forward, status("VmHWM") - start]


def main() -> None:
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        child = os.fork()  # so that no op finds memory that another has left
        if child == 0:
            backend, window, T, num_rounds = argument.split(":")
            run(window, *inputs(256, int(num_rounds)), backend)  # loads what is loaded once
            print(*run(window, *inputs(int(T), int(num_rounds)), backend), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
