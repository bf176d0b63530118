"""Everything that needs a GPU, in one call of under 8 minutes.

    python -m benchmarks.gpu [--out FOLDER] [--seconds 460]

Run it from the root of the repository. In this order: every kernel against the reference in float64, in the
cases of the test suite; the op at 1K to 1M tokens next to flash attention (SDPA), in bfloat16; training steps
of a model next to transformers' Reformer; decoding with and without a CUDA graph; one training step of a
large model on 1,048,576 tokens. `gpu.json` is written anew after each part, so that a run that is cut leaves
what it had. Without a green comparison with the reference, no speed-up is printed. Goals: forward and
backward in bfloat16 at least 8 times as fast as flash attention at 65,536 tokens and 80 times at 1,048,576,
the same speed at or below 8,192; the large step within 40 GB and 15 s.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_correctness import check_cases, check_timed_shapes
from benchmarks.gpu_decoding import decoding
from benchmarks.gpu_ops import time_ops
from benchmarks.gpu_training import large_step, training_steps
from reformer.bench.machine import describe_machine


class Results:
    """What has been found so far, in a file that is always whole."""

    def __init__(self, path: Path):
        self.path = path
        self.values: dict[str, Any] = {"machine": describe_machine() | describe_gpu()}

    def put(self, name: str, value: Any) -> None:
        """Add a value and write the file."""
        self.values[name] = value
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.values, indent=1) + "\n")
        os.replace(temporary, self.path)


def describe_gpu() -> dict[str, Any]:
    """What `describe_machine` does not say."""
    import transformers
    import triton

    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu_memory_bytes": properties.total_memory,
        "gpu_multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "transformers": transformers.__version__,
    }


def run_part(results: Results, name: str, part: Callable[[], Any]) -> Any:
    """Run a part; an error is a result too, and does not keep the other parts from running."""
    start = time.monotonic()
    print(f"--- {name}", flush=True)
    try:
        value = part()
    except Exception as error:
        value = {"error": f"{type(error).__name__}: {error}"[:2000]}
        print(f"{name}: {value['error']}", flush=True)
    torch.cuda.empty_cache()
    results.put(name, value)
    results.put("seconds", results.values.get("seconds", {}) | {name: time.monotonic() - start})
    return value


def main(arguments: list[str] | None = None) -> int:
    """Run all parts and write `gpu.json`; 0 if everything agreed with the reference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--seconds", type=float, default=460, help="after which nothing new is begun")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: torch sees no CUDA device here")
    if os.environ.get("TRITON_INTERPRET"):
        sys.exit("benchmarks.gpu: TRITON_INTERPRET is set, and the kernels would run on the CPU")
    stop = time.monotonic() + options.seconds
    results = Results(options.out / "gpu.json")

    shapes = run_part(results, "timed shapes against float64", check_timed_shapes)
    # A third of the time for the rest of the cases: they run in processes beside each other.
    cases_stop = time.monotonic() + options.seconds / 3
    cases = run_part(results, "cases against float64", lambda: check_cases(cases_stop))
    agrees = shapes.get("agrees", False) and cases.get("agrees", False)
    results.put("agrees", agrees)
    run_part(results, "ops", lambda: time_ops(stop, print_ratios=agrees))
    run_part(results, "training steps", lambda: training_steps(stop, print_ratios=agrees))
    run_part(results, "decoding", decoding)
    run_part(results, "large step", lambda: large_step(stop))
    print(f"wrote {results.path}", flush=True)
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
