"""Time and memory of LSH attention, side by side with what one would use instead.

    python -m benchmarks.attention [--out FOLDER] [--lengths 2048 16384 65536] [--skip CONTENDER ...]

One row, 8 heads of 64, causal, chunks of 64, 4 hash rounds, float32 (and bfloat16 of ours). What is timed is
the whole op: hashing, sorting, attention, merging. Before anything is timed, each of ours is compared with
the reference in float64; without that no time is printed. Contenders take turns, so that a busy machine is
busy for all; fractions refer to matrix products of torch that ran between. The layer of transformers also
projects its input, which is part of its time. Peak memory is that of a process that runs one contender once.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import describe_machine
from reformer.ops import lsh_attention, lsh_attention_by_level, lsh_hash
from reformer.ops.attention import Backend

H, D, C, R = 8, 64, 64, 4
LENGTHS = (2_048, 16_384, 65_536)
GEMM_SIZE = 2_048
CONTENDERS = ("cpu", "cpu bucket", "cpu bfloat16", "torch", "sdpa", "transformers")
SLOW = ("sdpa", "transformers")
GATE = 1e-4  # of an output or gradient in float32, relative to the largest

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def factors(num_buckets: int) -> tuple[int, ...]:
    """Two factors from 256 buckets on, as transformers chooses them."""
    power = int(math.log2(num_buckets))
    return (num_buckets,) if num_buckets < 256 else (2 ** (power // 2), 2 ** (power - power // 2))


def unit_keys(q: Tensor) -> Tensor:
    """The shared query-key: queries scaled to unit length."""
    return q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / D**0.5


def rotations_of(num_buckets: int, level: int = 0) -> Tensor:
    """Rotations `[H, D, R, sum(factors) / 2]`, the same at each call."""
    width = sum(factors(num_buckets)) // 2 if num_buckets > 1 else 0
    return torch.randn(H, D, R, width, generator=torch.Generator().manual_seed(level))


def levels_of(length: int) -> list[tuple[int, int]]:
    """End and number of buckets of each level, as the layer has them."""
    levels, end, num_buckets = [], C, 1
    while end < length:
        levels.append((end, num_buckets))
        end, num_buckets = 2 * end, 2 * num_buckets
    return [*levels, (length, num_buckets)]


def chunk_step(length: int, backend: Backend) -> Step:
    """Window "chunk" with 2T / C buckets: what the peers compute."""
    num_buckets = 2 * length // C
    rotations = rotations_of(num_buckets)
    hashing: Any = "torch" if backend != "cpu" else "cpu"

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        buckets = lsh_hash(q, rotations, factors(num_buckets), backend=hashing)
        return lsh_attention(q, k, v, buckets, chunk_length=C, window="chunk", backend=backend)

    return step


def bucket_step(length: int, backend: Backend) -> Step:
    """Window "bucket" with a resolution that grows with position."""
    levels = levels_of(length)
    rotations = [rotations_of(num_buckets, level) for level, (_, num_buckets) in enumerate(levels)]

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        buckets = [
            lsh_hash(q[:, :, :end], of_level, factors(num_buckets))
            for (end, num_buckets), of_level in zip(levels, rotations, strict=True)
        ]
        return lsh_attention_by_level(q, k, v, buckets, chunk_length=C, backend=backend)

    return step


def transformers_step(length: int) -> Step:
    """The layer of transformers, which makes queries, keys and values itself."""
    from transformers import ReformerConfig
    from transformers.models.reformer.modeling_reformer import LSHSelfAttention

    num_buckets = list(factors(2 * length // C))
    config = ReformerConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        attention_head_size=D,
        num_hashes=R,
        lsh_attn_chunk_length=C,
        num_buckets=num_buckets if len(num_buckets) > 1 else num_buckets[0],
        is_decoder=True,
        lsh_attention_probs_dropout_prob=0.0,
        hash_seed=0,
        max_position_embeddings=length,
    )
    layer = LSHSelfAttention(config).train()

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        hidden = q.transpose(1, 2).flatten(2)
        return layer(hidden).hidden_states.unflatten(-1, (H, D)).transpose(1, 2)

    return step


def sdpa_step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention."""
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)


def make_step(contender: str, length: int) -> Step:
    if contender == "sdpa":
        return sdpa_step
    if contender == "transformers":
        return transformers_step(length)
    if contender == "torch":
        return chunk_step(length, "torch")
    return bucket_step(length, "cpu") if contender == "cpu bucket" else chunk_step(length, "cpu")


def make_inputs(contender: str, length: int) -> list[Tensor]:
    """q, k, v and the gradient of the output, `[1, H, T, D]`."""
    g = torch.Generator().manual_seed(0)
    q, v, grad = (torch.randn(1, H, length, D, generator=g) for _ in range(3))
    dtype = torch.bfloat16 if contender == "cpu bfloat16" else torch.float32
    inputs = [x.to(dtype) for x in (q, unit_keys(q), v, grad)]
    return [*(x.requires_grad_() for x in inputs[:3]), inputs[3]]


def run_once(step: Step, inputs: list[Tensor]) -> tuple[float, float]:
    """Seconds of a forward without gradients, and of a forward and backward."""
    start = time.perf_counter()
    with torch.no_grad():
        step(*inputs[:3])
    middle = time.perf_counter()
    out = step(*inputs[:3])
    torch.autograd.grad(out, inputs[:3], inputs[3], allow_unused=True)
    return middle - start, time.perf_counter() - middle


def gemm_rate() -> float:
    """Floating-point operations a second of one matrix product."""
    x = torch.randn(GEMM_SIZE, GEMM_SIZE)
    start = time.perf_counter()
    x @ x
    return 2 * GEMM_SIZE**3 / (time.perf_counter() - start)


def correctness_errors() -> dict[str, float]:
    """Largest error of ours, relative to the largest value, against the reference in float64."""
    length = 1_024
    errors = {}
    for contender in ("cpu", "cpu bucket", "torch"):
        q, k, v, grad = make_inputs(contender, length)
        num_buckets = 2 * length // C
        results = []
        for backend, dtype in (("reference", torch.float64), (contender.split()[0], torch.float32)):
            x, y, z = (leaf.detach().to(dtype).requires_grad_() for leaf in (q, k, v))
            name: Any = backend
            if contender == "cpu bucket":
                buckets = [
                    lsh_hash(q[:, :, :end], rotations_of(n, level), factors(n))
                    for level, (end, n) in enumerate(levels_of(length))
                ]
                out = lsh_attention_by_level(x, y, z, buckets, chunk_length=C, backend=name)
            else:
                ids = lsh_hash(q, rotations_of(num_buckets), factors(num_buckets))
                out = lsh_attention(x, y, z, ids, chunk_length=C, window="chunk", backend=name)
            results.append([out, *torch.autograd.grad(out, (x, y, z), grad.to(dtype))])
        errors[contender] = max(
            float((actual - expected).detach().abs().max() / expected.detach().abs().max())
            for expected, actual in zip(*results, strict=True)
        )
    return errors


def kernel_fractions(length: int, repeats: int) -> dict[str, Any]:
    """Attention alone, of window "chunk", as fractions of the rate of matrix products around it."""
    num_buckets = 2 * length // C
    fractions: dict[str, list[float]] = {}
    for contender in ("cpu", "cpu bfloat16"):
        q, k, v, grad = make_inputs(contender, length)
        buckets = lsh_hash(q, rotations_of(num_buckets), factors(num_buckets))
        operations = 2 * 2 * H * R * length * 2 * C * D  # two products of each query with 2C keys
        for repeat in range(repeats + 1):
            before = gemm_rate()
            start = time.perf_counter()
            out = lsh_attention(q, k, v, buckets, chunk_length=C, window="chunk", backend="cpu")
            middle = time.perf_counter()
            torch.autograd.grad(out, (q, k, v), grad)
            stop = time.perf_counter()
            rate = (before + gemm_rate()) / 2
            if repeat:  # the first warms up
                fractions.setdefault(f"{contender} forward", []).append(operations / (middle - start) / rate)
                fractions.setdefault(f"{contender} backward", []).append(
                    2.5 * operations / (stop - middle) / rate
                )
    return {name: summary(values) for name, values in fractions.items()}


def summary(values: list[float]) -> dict[str, Any]:
    """Median, and the range of all values."""
    return {
        "median": statistics.median(values),
        "lowest": min(values),
        "highest": max(values),
        "runs": len(values),
    }


def measure_length(length: int, contenders: list[str], repeats: int) -> dict[str, Any]:
    """Interleaved times of one length, in seconds; the slow contenders run once where they take minutes."""
    steps = {name: (make_step(name, length), make_inputs(name, length)) for name in contenders}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for step, inputs in (steps[name] for name in contenders if name not in SLOW):
        run_once(step, inputs)  # warms up
    for repeat in range(repeats):
        for name, (step, inputs) in steps.items():
            if repeat == 0 or name not in SLOW or length < 16_384:
                times[name].append(run_once(step, inputs))
    result = {}
    for name, pairs in times.items():
        forward, both = summary([f for f, _ in pairs]), summary([b for _, b in pairs])
        result[name] = {"forward_seconds": forward, "forward_backward_seconds": both}
        print(
            f"{length:7,} tokens  {name:13} forward {forward['median']:8.3f} s  forward + backward "
            f"{both['median']:8.3f} s ({both['lowest']:.3f} to {both['highest']:.3f}, {both['runs']} runs)",
            flush=True,
        )
    return result


def peak_bytes(contender: str, length: int) -> int:
    """Peak resident memory of a forward and backward, above that of the inputs."""
    step, inputs = make_step(contender, length), make_inputs(contender, length)
    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    out = step(*inputs[:3])
    torch.autograd.grad(out, inputs[:3], inputs[3], allow_unused=True)
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def _peak_in_subprocess(contender: str, length: int) -> int:
    command = [sys.executable, "-m", "benchmarks.attention", "--peak", contender, "--lengths", str(length)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main(arguments: list[str] | None = None) -> None:
    """Compare, time, and write `attention.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--skip", nargs="+", choices=CONTENDERS, default=[])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peak", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.peak:
        print(peak_bytes(options.peak, options.lengths[0]))
        return
    errors = correctness_errors()
    print("errors against float64:", ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    if max(errors.values()) > GATE:
        raise SystemExit(f"benchmarks.attention: an error is above {GATE}: nothing is timed")
    contenders = [name for name in CONTENDERS if name not in options.skip]
    results: dict[str, Any] = {"machine": describe_machine(), "errors": errors, "lengths": {}}
    for length in options.lengths:
        of_length = measure_length(length, contenders, options.repeats)
        for name in of_length:
            of_length[name]["peak_bytes"] = _peak_in_subprocess(name, length)
            print(
                f"{length:7,} tokens  {name:13} peak {of_length[name]['peak_bytes'] / 2**20:9,.0f} MiB",
                flush=True,
            )
        fractions = kernel_fractions(length, options.repeats)
        for name, values in fractions.items():
            print(
                f"{length:7,} tokens  {name:22} {values['median']:.0%} of the rate of matrix products",
                flush=True,
            )
        results["lengths"][str(length)] = {"contenders": of_length, "fraction_of_gemm_rate": fractions}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "attention.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
