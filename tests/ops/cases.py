"""Combinations of everything that the attention ops can be asked for, and inputs for them."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from reformer.ops import attention as ops_attention
from reformer.ops import local_attention, lsh_attention, reference, tiled

AXES: dict[str, tuple[Any, ...]] = {
    "window": ("bucket", "chunk", "local"),
    "T": (1, 2, 63, 64, 65, 127, 1000),
    "causal": (True, False),
    "padding": ("none", "left", "right", "middle"),
    "fewer_queries": (False, True),
    "R": (1, 3, 8),
    "D": (8, 64, 136),
    "look": ((0, 0), (1, 0), (1, 1), (2, 3)),
    "chunk_length": (5, 16, 64, 256),
    "buckets": ("one", "few", "many", "separate"),
    "heads_inside": (False, True),
    "penalize_self": (True, False),
    "correct_duplicates": (False, True),
    "dropout": (0.0, 0.3),
    "small_tiles": (False, True),
}
MUST_SHOW = ("window", "T", "causal", "padding", "fewer_queries", "R", "D")
"""The axes whose full product is run by the slow tests."""


@dataclass(frozen=True)
class Case:
    """What an attention op is asked for; see AXES."""

    window: str = "bucket"
    T: int = 65
    causal: bool = True
    padding: str = "none"
    fewer_queries: bool = False
    R: int = 3
    D: int = 8
    look: tuple[int, int] = (1, 0)
    chunk_length: int = 16
    buckets: str = "few"
    heads_inside: bool = False
    penalize_self: bool = True
    correct_duplicates: bool = False
    dropout: float = 0.0
    small_tiles: bool = False

    def possible(self) -> "Case":
        """The same without what its window does not have."""
        if self.window == "chunk":
            buckets = "few" if self.buckets == "separate" else self.buckets
            return replace(self, fewer_queries=False, buckets=buckets)
        if self.window == "local":
            return replace(self, R=1, buckets="one", penalize_self=False, correct_duplicates=False)
        return self

    def __str__(self) -> str:
        return "-".join(f"{f.name}={getattr(self, f.name)}".replace(" ", "") for f in fields(self))


@dataclass(frozen=True)
class Inputs:
    """Tensors for a case, float64 where they are floating."""

    q: Tensor
    k: Tensor
    v: Tensor
    grad_out: Tensor
    q_buckets: Tensor
    k_buckets: Tensor
    key_padding_mask: Tensor | None

    def to(self, dtype: torch.dtype) -> "Inputs":
        return replace(self, **{name: getattr(self, name).to(dtype) for name in ("q", "k", "v", "grad_out")})


def pairwise_cases(seed: int) -> list[Case]:
    """Cases that hold every possible pair of values of two axes, drawn greedily."""
    rng = random.Random(seed)
    missing: dict[Any, None] = {}  # a set with a fixed order
    for a, b in itertools.combinations(AXES, 2):
        missing.update(dict.fromkeys(((a, x), (b, y)) for x in AXES[a] for y in AXES[b]))
    cases = []
    while missing:
        wanted = dict(next(iter(missing)))
        drawn = [
            Case(**{a: wanted.get(a, rng.choice(values)) for a, values in AXES.items()}).possible()
            for _ in range(30)
        ]
        best = max(drawn, key=lambda case: sum(pair in missing for pair in _pairs(case)))
        for pair in _pairs(best):
            missing.pop(pair, None)
        missing.pop(tuple(wanted.items()), None)  # perhaps a pair that no window has
        cases.append(best)
    return cases


def all_cases(seed: int) -> list[Case]:
    """The full product of the axes in MUST_SHOW, the others drawn."""
    rng = random.Random(seed)
    drawn = (
        Case(
            **dict(zip(MUST_SHOW, values, strict=True)),
            **{a: rng.choice(v) for a, v in AXES.items() if a not in MUST_SHOW},
        )
        for values in itertools.product(*(AXES[a] for a in MUST_SHOW))
    )
    return [
        case.possible()
        for case in drawn
        if all(getattr(case.possible(), axis) == getattr(case, axis) for axis in MUST_SHOW)
    ]


def make_inputs(case: Case, seed: int) -> Inputs:
    """Random inputs: two rows of a batch of 2, or of 1 where T is 1000."""
    g = torch.Generator().manual_seed(seed)
    B, H, T = 1 if case.T > 500 else 2, 2, case.T
    Tq = max(1, T // 3) if case.fewer_queries else T
    q, grad_out = (_vectors(B, H, Tq, case, g) for _ in range(2))
    k, v = (_vectors(B, H, T, case, g) for _ in range(2))
    mask = _padding_mask(case.padding, B, T, g)
    num_buckets = {"one": 1, "few": 3}.get(case.buckets, T // 4 + 2)
    k_buckets = torch.randint(num_buckets, (B, H, case.R, T), generator=g)
    if mask is not None:
        k_buckets[:1] = k_buckets[:1].masked_fill(~mask[:1, None, None], num_buckets)
    q_buckets = k_buckets[..., T - Tq :]
    if case.buckets == "separate":
        q_buckets = torch.randint(num_buckets + 2, q_buckets.shape, generator=g)
    return Inputs(q, k / case.D**0.5, v, grad_out, q_buckets, k_buckets, mask)


def _vectors(B: int, H: int, T: int, case: Case, g: torch.Generator) -> Tensor:
    if case.heads_inside:
        x = torch.randn(B, T, H * case.D, generator=g, dtype=torch.float64)
        return x.unflatten(-1, (H, case.D)).transpose(1, 2)
    return torch.randn(B, H, T, case.D, generator=g, dtype=torch.float64)


def _padding_mask(padding: str, B: int, T: int, g: torch.Generator) -> Tensor | None:
    """Each row of the batch has its own amount of padding, from none to all."""
    if padding == "none":
        return None
    num_pad = torch.randint(T + 1, (B, 1), generator=g)
    place = torch.arange(T).expand(B, T)
    if padding == "right":
        place = place.flip(-1)
    elif padding == "middle":
        place = torch.stack([torch.randperm(T, generator=g) for _ in range(B)])
    return place >= num_pad


def attend(case: Case, inputs: Inputs, backend: str) -> Tensor:
    """The output of the case's op."""
    options: dict[str, Any] = {
        "chunk_length": case.chunk_length,
        "num_chunks_before": case.look[0],
        "num_chunks_after": case.look[1],
        "causal": case.causal,
        "key_padding_mask": inputs.key_padding_mask,
        "dropout": case.dropout,
        "dropout_seed": 12345,
        "backend": backend,
    }
    if case.window == "local":
        return local_attention(inputs.q, inputs.k, inputs.v, **options)
    return lsh_attention(
        inputs.q,
        inputs.k,
        inputs.v,
        inputs.q_buckets,
        inputs.k_buckets,
        window=case.window,
        penalize_self=case.penalize_self,
        correct_duplicates=case.correct_duplicates,
        **options,
    )


def attend_and_differentiate(case: Case, inputs: Inputs, backend: str) -> dict[str, Tensor]:
    """The output of the case's op and the gradients of q, k and v."""
    leaves = {name: getattr(inputs, name).detach().requires_grad_() for name in ("q", "k", "v")}
    with tile_sizes(small=case.small_tiles):
        out = attend(case, replace(inputs, **leaves), backend)
        gradients = torch.autograd.grad(out, list(leaves.values()), inputs.grad_out)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}


def window_counts(case: Case, inputs: Inputs) -> Tensor:
    """The reference's description of what is seen, `[B, H, R, Tq, Tk]`."""
    mask = inputs.key_padding_mask
    if mask is None:
        mask = torch.ones(inputs.k.shape[0], inputs.k.shape[2], dtype=torch.bool)
    C, (before, after), causal = case.chunk_length, case.look, case.causal
    if case.window == "bucket":
        return reference.bucket_counts(
            inputs.q_buckets, inputs.k_buckets, mask, before=before * C, after=after * C, causal=causal
        )
    options: dict[str, Any] = {"chunk_length": C, "before": before, "after": after, "causal": causal}
    if case.window == "chunk":
        return reference.chunk_counts(inputs.k_buckets, mask, **options)
    return reference.local_counts(inputs.q.shape[2], mask, **options)


@contextmanager
def tile_sizes(*, small: bool) -> Iterator[None]:
    """Sizes so small that every input needs several tiles, runs and blocks of rows; or the usual ones."""
    if not small:
        yield
        return
    with (
        patch.object(tiled, "_TILE_NUMEL", 1 << 14),
        patch.object(tiled, "_MAX_RUN", 24),
        patch.object(ops_attention, "_ROW_TOKENS", 1),
    ):
        yield


def _pairs(case: Case) -> Iterator[Any]:
    return itertools.combinations([(a, getattr(case, a)) for a in AXES], 2)
