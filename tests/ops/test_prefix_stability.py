"""Causal outputs of window "bucket" never depend on later tokens (DESIGN.md, section 3, point 4)."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import local_attention, lsh_attention, lsh_attention_by_level
from tests.ops.cases import Case, Inputs, attend, make_inputs
from tests.ops.precision import rounding_budget


def random_case(rng: random.Random, window: str) -> Case:
    return Case(
        window=window,
        T=rng.randint(2, 48),
        causal=True,
        padding=rng.choice(("none", "left", "right", "middle")),
        R=rng.randint(1, 3),
        D=8,
        look=rng.choice(((0, 0), (1, 0), (1, 1), (2, 3))),
        chunk_length=rng.choice((2, 5, 16)),
        buckets=rng.choice(("one", "few", "many")),
        penalize_self=rng.random() < 0.5,
        correct_duplicates=rng.random() < 0.5,
        dropout=rng.choice((0.0, 0.3)),
    ).possible()


def edited(inputs: Inputs, s: int, stop: int, g: torch.Generator) -> Inputs:
    """Other tokens at the positions from s to before stop: queries, keys, values and buckets."""
    new: dict[str, Any] = {}
    for name in ("q", "k", "v"):
        new[name] = getattr(inputs, name).clone()
        x = new[name][:, :, s:stop]
        x += torch.randn(x.shape, generator=g, dtype=x.dtype)
    buckets = inputs.k_buckets.clone()
    part = buckets[..., s:stop]
    part[:] = torch.randint(int(buckets.max()) + 2, part.shape, generator=g)
    return replace(inputs, q_buckets=buckets, k_buckets=buckets, **new)


def num_changed(window: str, num_edits: int, *, whole_suffix: bool) -> tuple[int, int]:
    """Edits of random configurations that change any bit of the reference's output before and after."""
    seed = int(whole_suffix)
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    before = after = 0
    for i in range(num_edits):
        case = random_case(rng, window)
        inputs = make_inputs(case, seed=i)
        s = rng.randrange(1, case.T)
        edit = edited(inputs, s, case.T if whole_suffix else s + 1, g)
        old, new = (attend(case, x, "reference") for x in (inputs, edit))
        before += not torch.equal(old[:, :, :s], new[:, :, :s])
        after += not torch.equal(old[:, :, s:], new[:, :, s:])
    return before, after


@pytest.mark.parametrize(("num_edits", "whole_suffix"), [(1000, False), (300, True)])
def test_a_thousand_edits_change_no_earlier_output(num_edits: int, whole_suffix: bool) -> None:
    before, after = num_changed("bucket", num_edits, whole_suffix=whole_suffix)
    assert before == 0
    assert after > 0.7 * num_edits  # the others edit padding


@pytest.mark.parametrize("whole_suffix", [False, True])
def test_the_same_edits_change_earlier_outputs_of_chunks(whole_suffix: bool) -> None:
    """So that the test above can fail."""
    before, _ = num_changed("chunk", 100, whole_suffix=whole_suffix)
    assert before > 10


def test_edits_change_no_earlier_output_of_local_attention() -> None:
    before, after = num_changed("local", 200, whole_suffix=True)
    assert before == 0
    assert after > 140


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("s", [1, 30, 100, 149])
@pytest.mark.parametrize("buckets", ["few", "many"])
def test_edits_change_no_earlier_tiled_output_beyond_rounding(
    buckets: str, s: int, dtype: torch.dtype
) -> None:
    case = Case(T=150, chunk_length=8, buckets=buckets)
    g = torch.Generator().manual_seed(s)
    before = make_inputs(case, seed=s).to(dtype)
    after = edited(before, s, case.T, g)
    old, new = (attend(case, x, "torch")[:, :, :s].double() for x in (before, after))
    promoted = before.to(torch.float64)
    truth = {name: torch.zeros_like(promoted.q) for name in ("q", "k", "v")}
    truth["out"] = attend(case, promoted, "reference")
    budget = rounding_budget(case, promoted, truth, dtype)["out"][:, :, :s]
    assert ((old - new).abs() <= budget).all()
    later = attend(case, before, "torch")[:, :, s:] - attend(case, after, "torch")[:, :, s:]
    assert later.abs().max() > 0.1


def test_edits_change_earlier_tiled_outputs_of_chunks() -> None:
    case = Case(window="chunk", T=150, chunk_length=8)
    before = make_inputs(case, seed=0)
    after = edited(before, 100, case.T, torch.Generator().manual_seed(0))
    difference = attend(case, before, "torch") - attend(case, after, "torch")
    assert difference[:, :, :100].abs().max() > 0.1


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_a_suffix_more_or_less_changes_nothing(backend: Any) -> None:
    """The output of a prefix alone is the prefix of the output: what a cached decode relies on."""
    case = Case(T=150, chunk_length=8)
    inputs = make_inputs(case, seed=0)

    def bucket(n: int) -> Tensor:
        q, k, v = (x[:, :, :n] for x in (inputs.q, inputs.k, inputs.v))
        return lsh_attention(q, k, v, inputs.k_buckets[..., :n], chunk_length=8, backend=backend)

    def by_level(n: int) -> Tensor:
        q, k, v = (x[:, :, :n] for x in (inputs.q, inputs.k, inputs.v))
        levels = [inputs.k_buckets[..., : min(n, end)] for end in (16, 32, 64, 150)]
        needed = sum(end < n for end in (16, 32, 64)) + 1
        return lsh_attention_by_level(q, k, v, levels[:needed], chunk_length=8, backend=backend)

    def local(n: int) -> Tensor:
        q, k, v = (x[:, :, :n] for x in (inputs.q, inputs.k, inputs.v))
        return local_attention(q, k, v, chunk_length=8, backend=backend)

    functions: list[Callable[[int], Tensor]] = [bucket, by_level, local]
    for function in functions:
        whole = function(150)
        for n in (1, 16, 17, 63, 64, 65, 149):
            assert (function(n) - whole[:, :, :n]).abs().max() < 1e-12


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_the_last_queries_alone_equal_the_last_of_all(backend: Any) -> None:
    """Chunked prefill: fewer queries than keys."""
    case = Case(T=150, chunk_length=8, padding="left", correct_duplicates=True, dropout=0.2)
    inputs = make_inputs(case, seed=0)
    whole = attend(case, inputs, backend)
    for n in (1, 7, 64, 149):
        last = replace(inputs, q=inputs.q[:, :, -n:], q_buckets=inputs.q_buckets[..., -n:])
        assert (attend(case, last, backend) - whole[:, :, -n:]).abs().max() < 1e-12
