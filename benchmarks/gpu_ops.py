"""Time of the whole op on a GPU, hashing and sorting included, next to flash attention.

One row, 8 heads of 64, causal, chunks of 64, 4 hash rounds, bfloat16, as in `reformer.bench.op`.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from reformer.bench.op import C, D, H, factors, levels_of, rotations_of
from reformer.bench.peers import full_attention
from reformer.layers.shared_keys import shared_keys
from reformer.ops import lsh_attention, lsh_attention_by_level, lsh_hash

LENGTHS = (1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 262_144, 1_048_576)
STEPS = ("chunk", "bucket")
FLASH = "flash attention"
SECONDS_OF_REPEATS = 0.5
MAX_REPEATS = 20

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def make_inputs(length: int) -> list[Tensor]:
    """q, k, v and the gradient of the output: bfloat16 `[1, H, T, D]` on the GPU."""
    g = torch.Generator("cuda").manual_seed(0)
    q, v, grad = (torch.randn(1, H, length, D, generator=g, device="cuda") for _ in range(3))
    inputs = [x.bfloat16() for x in (q, shared_keys(q), v, grad)]
    return [*(x.requires_grad_() for x in inputs[:3]), inputs[3]]


def make_step(name: str, length: int, backend: Any = "triton") -> Step:
    """Hash and attend: "chunk" with 2T / C buckets, as the peers do, or "bucket", level by level.

    Buckets are those of the Triton kernel, or with the reference those of the same bfloat16 vectors.
    """
    if name == FLASH:
        return flash_step
    levels = levels_of(length) if name == "bucket" else [(length, 2 * length // C)]
    rotations = [rotations_of(n, level).cuda() for level, (_, n) in enumerate(levels)]

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        buckets = [
            lsh_hash(q.detach()[:, :, :end].bfloat16(), of_level, factors(n), backend="triton")
            for (end, n), of_level in zip(levels, rotations, strict=True)
        ]
        if name == "bucket":
            return lsh_attention_by_level(q, k, v, buckets, chunk_length=C, backend=backend)
        return lsh_attention(q, k, v, buckets[0], chunk_length=C, window="chunk", backend=backend)

    return step


def flash_step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention by the flash kernel, and nothing else."""
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return full_attention(q, k, v)


def time_ops(stop: float, *, print_ratios: bool) -> dict[str, Any]:
    """Seconds of forward, and of forward and backward, by length; and from where on ours is faster.

    Args:
        stop: of `time.monotonic()`, when no other length is begun.
        print_ratios: whether the kernels agreed with the reference.
    """
    results: dict[str, Any] = {"lengths": {}}
    for length in LENGTHS:
        if time.monotonic() > stop:
            results["cut"] = f"not begun: {length} tokens and more"
            break
        of_length = measure_length(length)
        results["lengths"][str(length)] = of_length
        for name, times in of_length.items():
            line = f"{length:9,} tokens  {name:16}"
            for what in ("forward", "forward_backward"):
                seconds = times[f"{what}_seconds"]["median"]
                line += f"  {what.replace('_', ' + '):18} {seconds * 1e3:9.3f} ms"
                if print_ratios and name != FLASH:
                    line += f" ({of_length[FLASH][f'{what}_seconds']['median'] / seconds:6.2f} x)"
            print(line, flush=True)
    if print_ratios:
        results["crossover_tokens"] = {name: crossover(results["lengths"], name) for name in STEPS}
        print("faster than flash attention from here on:", results["crossover_tokens"], flush=True)
    return results


def crossover(lengths: dict[str, Any], name: str) -> int | None:
    """The least length from which on ours is faster, forward and backward; None if the last is slower."""
    found = None
    for length, times in reversed(lengths.items()):
        ours, flash = (times[n]["forward_backward_seconds"]["median"] for n in (name, FLASH))
        if ours >= flash:
            break
        found = int(length)
    return found


def measure_length(length: int) -> dict[str, Any]:
    """Interleaved times; everything runs once before, except where once takes long."""
    inputs = make_inputs(length)
    steps = {name: make_step(name, length) for name in (*STEPS, FLASH)}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    peaks = {}
    for name, step in steps.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        first = run_once(step, inputs)
        peaks[name] = torch.cuda.max_memory_allocated() - before
        if name == FLASH and sum(first) > 2 * SECONDS_OF_REPEATS:
            times[name].append(first)  # the kernel is built in: its first run is as good as another
    begin = time.monotonic()
    for repeat in range(MAX_REPEATS):
        if repeat > 2 and time.monotonic() - begin > SECONDS_OF_REPEATS * len(steps):
            break
        for name, step in steps.items():
            if not (times[name] and sum(times[name][0]) > 2 * SECONDS_OF_REPEATS):
                times[name].append(run_once(step, inputs))
    return {
        name: {
            "forward_seconds": summary([forward for forward, _ in pairs]),
            "forward_backward_seconds": summary([both for _, both in pairs]),
            "peak_bytes": peaks[name],
        }
        for name, pairs in times.items()
    }


def run_once(step: Step, inputs: list[Tensor]) -> tuple[float, float]:
    """Seconds of a forward without gradients, and of a forward and backward, from launch to end."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    with torch.no_grad():
        step(*inputs[:3])
    torch.cuda.synchronize()
    middle = time.perf_counter()
    torch.autograd.grad(step(*inputs[:3]), inputs[:3], inputs[3])
    torch.cuda.synchronize()
    return middle - start, time.perf_counter() - middle


def summary(values: list[float]) -> dict[str, Any]:
    """Median, and the range of all values."""
    median = statistics.median(values)
    return {"median": median, "lowest": min(values), "highest": max(values), "runs": len(values)}
