"""The whole op, forward and backward: hashing, sorting, attention, merging.

One row, 8 heads of 64, causal, chunks of 64, 4 hash rounds. "chunk" is what the peers compute, the paper's
window with 2T / C buckets; "bucket" has ours, with a resolution that grows with position.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from reformer.bench.case import Case, Contender, Run, largest_error
from reformer.layers.shared_keys import shared_keys
from reformer.ops import lsh_attention, lsh_attention_by_level, lsh_hash
from reformer.ops.attention import Backend, Window

H, D, C, R = 8, 64, 64, 4
GATE_LENGTH = 1_024
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
OTHER_BUCKETS = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
"""Share of vectors that rounding may put into another bucket: those with two products that nearly tie."""

Step = Callable[[Tensor, Tensor, Tensor], Tensor]


def factors(num_buckets: int) -> tuple[int, ...]:
    """Two factors from 256 buckets on, as transformers chooses them."""
    power = int(math.log2(num_buckets))
    return (num_buckets,) if num_buckets < 256 else (2 ** (power // 2), 2 ** (power - power // 2))


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


def make_inputs(length: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    """q, k and v, and the gradient of the output, `[1, H, T, D]`."""
    g = torch.Generator().manual_seed(0)
    q, v, grad = (torch.randn(1, H, length, D, generator=g) for _ in range(3))
    return [x.to(dtype).requires_grad_() for x in (q, shared_keys(q), v)], grad.to(dtype)


@dataclass(frozen=True)
class Hashed:
    """Hash, then attend.

    Args:
        length: tokens.
        window: "chunk", with 2T / C buckets, or "bucket", with a resolution that grows with position.
        backend: of both ops.
    """

    length: int
    window: Window
    backend: Backend

    @cached_property
    def levels(self) -> list[tuple[int, int, Tensor]]:
        """End, number of buckets and rotations."""
        levels = levels_of(self.length) if self.window == "bucket" else [(self.length, 2 * self.length // C)]
        return [(end, n, rotations_of(n, level)) for level, (end, n) in enumerate(levels)]

    def hash(self, q: Tensor) -> list[Tensor]:
        """Buckets of each level."""
        backend: Any = "torch" if self.backend == "reference" else self.backend
        return [
            lsh_hash(q[:, :, :end], of_level, factors(n), backend=backend) for end, n, of_level in self.levels
        ]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, buckets: list[Tensor]) -> Tensor:
        """What is left to do once the buckets are known."""
        if self.window == "bucket":
            return lsh_attention_by_level(q, k, v, buckets, chunk_length=C, backend=self.backend)
        return lsh_attention(q, k, v, buckets[0], chunk_length=C, window="chunk", backend=self.backend)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The whole op."""
        return self.attend(q, k, v, self.hash(q))


def measured(step: Step, length: int, dtype: torch.dtype = torch.float32) -> Run:
    """Seconds of a forward without gradients, and of a forward and backward."""
    inputs, grad = make_inputs(length, dtype)

    def run() -> dict[str, float]:
        start = time.perf_counter()
        with torch.no_grad():
            step(*inputs)
        middle = time.perf_counter()
        torch.autograd.grad(step(*inputs), inputs, grad, allow_unused=True)
        stop = time.perf_counter()
        return {"forward_seconds": middle - start, "forward_backward_seconds": stop - middle}

    return run


def error_against(expected: Step, actual: Step, dtype: torch.dtype = torch.float32) -> float:
    """Largest error of the output and of the gradients, against another step in float64."""
    inputs, grad = make_inputs(GATE_LENGTH, dtype)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    output, wanted = actual(*inputs), expected(*exact)
    pairs = [(output, wanted)]
    grads = torch.autograd.grad(output, inputs, grad, allow_unused=True)
    wanted_grads = torch.autograd.grad(wanted, exact, grad.double(), allow_unused=True)
    pairs += [pair for pair in zip(grads, wanted_grads, strict=True) if pair != (None, None)]  # type: ignore[misc]
    return max(largest_error(*pair) for pair in pairs)


def error_of_attention(op: Hashed, buckets: list[Tensor], dtype: torch.dtype) -> float:
    """Largest error of what is made of given buckets, against the reference in float64."""
    exact = replace(op, backend="reference")

    def expected(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return exact.attend(q, k, v, buckets)

    def actual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return op.attend(q, k, v, buckets)

    return error_against(expected, actual, dtype)


def ours(window: Window, backend: Backend, dtype: torch.dtype) -> Contender:
    """The op of ours, held to the reference in float64: its hashes, and what it makes of them."""

    def gate() -> float:
        op = Hashed(GATE_LENGTH, window, backend)
        q = make_inputs(GATE_LENGTH, dtype)[0][0].detach()
        buckets, exact = op.hash(q), replace(op, backend="reference").hash(q.double())
        for found, wanted in zip(buckets, exact, strict=True):
            if (found != wanted).double().mean() > OTHER_BUCKETS[dtype]:
                return math.inf
        return error_of_attention(op, buckets, dtype)

    def prepare(length: int) -> Run:
        return measured(Hashed(length, window, backend), length, dtype)

    note = None if backend == "cpu" else "plain torch, for any device"
    return Contender(prepare, gate, TOLERANCE[dtype], note=note)


def make_case() -> Case:
    """The case, with the peers that `peers.py` describes."""
    from reformer.bench.peers import PEERS

    contenders = {
        "chunk": ours("chunk", "cpu", torch.float32),
        "bucket": ours("bucket", "cpu", torch.float32),
        "chunk bfloat16": ours("chunk", "cpu", torch.bfloat16),
        "bucket bfloat16": ours("bucket", "cpu", torch.bfloat16),
        "chunk torch": ours("chunk", "torch", torch.float32),
        **PEERS,
    }
    return Case(
        title="LSH attention, the whole op",
        contenders=contenders,
        baselines=tuple(PEERS),
        lengths=tuple(1 << power for power in range(9, 17)),
        quick_lengths=(512, 2_048, 16_384),
        warm_up_length=512,
        settings={"batch": 1, "heads": H, "head_size": D, "chunk_length": C, "rounds": R, "causal": True},
    )
