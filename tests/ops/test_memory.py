"""Peak memory of the tiled path, each time in a process of its own.

At T = 16,384 and 2 heads of 64 in float32, a tensor [H, T, D] has 8 MiB. What must not be made has more
than the 40 MiB granted for plans and tiles: [R, H, T, D] has R * 8 MiB, the queries, keys, values and scores
of all chunks at once 56 MiB, and [T, T] 1,024 MiB for each head.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TENSOR = 8
GRANTED = 40

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")


def peaks(*ops: str) -> list[list[float]]:
    """MiB above the inputs, for each "backend:window:T:rounds": of the forward, of forward and backward."""
    child = Path(__file__).with_name("memory_child.py")
    command = [sys.executable, str(child), *ops]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    measured = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert len(measured) == len(ops), done.stderr
    return measured


def test_no_large_buffer_is_made() -> None:
    *tiled, reference = peaks(
        "torch:bucket:16384:8", "torch:chunk:16384:8", "torch:local:16384:1", "reference:bucket:1024:4"
    )
    for forward, both in tiled:
        assert TENSOR <= forward <= TENSOR + GRANTED
        # The output and its gradient, and those of q, k and v.
        assert 5 * TENSOR <= both <= 5 * TENSOR + GRANTED
    # The measurement sees a large buffer: the reference makes several [H, R, T, T] of 32 MiB or more.
    assert reference[0] > 96


@pytest.mark.slow
@pytest.mark.parametrize(("window", "num_rounds"), [("bucket", 4), ("chunk", 4), ("local", 1)])
def test_memory_grows_no_faster_than_the_sequence(window: str, num_rounds: int) -> None:
    """From 64K to 256K tokens, where the tiles, of fixed size, weigh nothing any more."""
    short, long = peaks(*(f"torch:{window}:{T}:{num_rounds}" for T in (1 << 16, 1 << 18)))
    assert long[1] <= 4 * short[1]
