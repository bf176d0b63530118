"""Attention alone, once the buckets are known, as a share of the rate of matrix products of the machine."""

import statistics
import time

import torch

from reformer.bench.case import Case, Contender, Run
from reformer.bench.op import GATE_LENGTH, TOLERANCE, C, D, H, Hashed, R, error_of_attention, make_inputs

GEMM_SIZE = 2_048


def gemm_rate() -> float:
    """Floating-point operations a second of a matrix product of torch in float32, the median of three."""
    x = torch.randn(GEMM_SIZE, GEMM_SIZE)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - start)
    return 2 * GEMM_SIZE**3 / statistics.median(seconds)


def num_operations(length: int) -> int:
    """Of a forward: two products of each query of each round with 2C keys; the backward has five."""
    return 2 * 2 * H * R * length * 2 * C * D


def _contender(dtype: torch.dtype) -> Contender:
    def prepare(length: int) -> Run:
        op = Hashed(length, "chunk", "cpu")
        (q, k, v), grad = make_inputs(length, dtype)
        buckets = op.hash(q.detach())

        def run() -> dict[str, float]:
            before = gemm_rate()
            start = time.perf_counter()
            out = op.attend(q, k, v, buckets)
            middle = time.perf_counter()
            torch.autograd.grad(out, (q, k, v), grad)
            stop = time.perf_counter()
            rate = (before + gemm_rate()) / 2
            forward, backward = middle - start, stop - middle
            return {
                "forward_seconds": forward,
                "backward_seconds": backward,
                "forward_backward_seconds": stop - start,
                "forward_of_gemm_rate_share": num_operations(length) / forward / rate,
                "backward_of_gemm_rate_share": 2.5 * num_operations(length) / backward / rate,
            }

        return run

    def gate() -> float:
        op = Hashed(GATE_LENGTH, "chunk", "cpu")
        buckets = op.hash(make_inputs(GATE_LENGTH, dtype)[0][0].detach())
        return error_of_attention(op, buckets, dtype)

    return Contender(prepare, gate, TOLERANCE[dtype])


def make_case() -> Case:
    """Float32 and bfloat16, both next to products in float32."""
    return Case(
        title="attention alone, window chunk, next to matrix products",
        contenders={"float32": _contender(torch.float32), "bfloat16": _contender(torch.bfloat16)},
        baselines=("float32",),
        lengths=(4_096, 16_384, 65_536),
        quick_lengths=(16_384,),
        warm_up_length=512,
        settings={
            "batch": 1, "heads": H, "head_size": D, "chunk_length": C, "rounds": R, "causal": True,
            "gemm": f"torch.float32, {GEMM_SIZE} x {GEMM_SIZE}, before and after each run",
        },
    )  # fmt: skip
