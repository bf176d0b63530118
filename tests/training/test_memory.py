"""Freed memory goes back, though the commands' settings keep it."""

import subprocess
import sys

import pytest

CHILD = """
from pathlib import Path
import numpy as np
from reformer.cli import prepare_process
from reformer.training.memory import return_freed_memory

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024

prepare_process()
arrays = [np.ones(1 << 17) for _ in range(200)]
del arrays[:150]
kept = resident()
return_freed_memory()
print(kept - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and malloc_trim")
def test_gaps_in_the_heap_go_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert 140 < float(done.stdout) < 160
