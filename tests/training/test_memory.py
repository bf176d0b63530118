"""Large memory that is freed goes back, though the commands' settings keep it."""

import subprocess
import sys

import pytest

CHILD = """
import sys
from pathlib import Path
import numpy as np
from reformer.cli import prepare_process
from reformer.training.memory import return_large_memory

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024

prepare_process()
if sys.argv[1] == "return":
    return_large_memory()
arrays = [np.ones(1 << 19) for _ in range(50)]
most = resident()
del arrays[:40]
print(most - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and mallopt")
@pytest.mark.parametrize(("what", "expected"), [("keep", 0), ("return", 160)])
def test_large_pieces_go_back_to_the_system(what: str, expected: int) -> None:
    done = subprocess.run([sys.executable, "-c", CHILD, what], capture_output=True, text=True, check=True)
    assert float(done.stdout) == pytest.approx(expected, abs=10)
