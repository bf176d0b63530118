"""The reference against definitions in loops, finite differences and full attention."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from reformer.ops import local_attention, lsh_attention, reference
from tests.ops import definitions
from tests.ops.cases import Case, attend, make_inputs

windows = st.fixed_dictionaries(
    {
        "T": st.integers(1, 24),
        "R": st.integers(1, 3),
        "num_buckets": st.integers(1, 5),
        "chunk_length": st.integers(1, 7),
        "before": st.integers(0, 3),
        "after": st.integers(0, 3),
        "causal": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
        "num_real": st.integers(0, 24),
        "num_queries": st.integers(1, 24),
    }
)


def random_mask(T: int, num_real: int, g: torch.Generator) -> Tensor:
    return (torch.randperm(T, generator=g) < num_real)[None]


def counted(seen: definitions.Seen, num_keys: int) -> Tensor:
    """`[R, Tq, Tk]`."""
    return torch.tensor(
        [[[Counter(keys)[j] for j in range(num_keys)] for keys in of_round] for of_round in seen]
    )


@given(windows)
@settings(max_examples=150, deadline=None)
def test_bucket_counts_equal_definition(w: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    T, Tq = w["T"], min(w["T"], w["num_queries"])
    k_buckets = torch.randint(w["num_buckets"], (1, 1, w["R"], T), generator=g)
    q_buckets = torch.randint(w["num_buckets"] + 1, (1, 1, w["R"], Tq), generator=g)
    if w["seed"] % 2:
        q_buckets = k_buckets[..., T - Tq :]
    mask = random_mask(T, w["num_real"], g)
    reach = {"before": w["before"] * w["chunk_length"], "after": w["after"] * w["chunk_length"]}
    counts = reference.bucket_counts(q_buckets, k_buckets, mask, causal=w["causal"], **reach)
    seen = definitions.bucket_window(
        q_buckets[0, 0].tolist(), k_buckets[0, 0].tolist(), mask[0].tolist(), causal=w["causal"], **reach
    )
    assert torch.equal(counts[0, 0], counted(seen, T))


@given(windows)
@settings(max_examples=150, deadline=None)
def test_chunk_counts_equal_definition(w: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    buckets = torch.randint(w["num_buckets"], (1, 1, w["R"], w["T"]), generator=g)
    mask = random_mask(w["T"], w["num_real"], g)
    options = {name: w[name] for name in ("chunk_length", "before", "after", "causal")}
    counts = reference.chunk_counts(buckets, mask, **options)
    seen = definitions.chunk_window(buckets[0, 0].tolist(), mask[0].tolist(), **options)
    assert torch.equal(counts[0, 0], counted(seen, w["T"]))


@given(windows)
@settings(max_examples=150, deadline=None)
def test_local_counts_equal_definition(w: dict[str, Any]) -> None:
    g = torch.Generator().manual_seed(w["seed"])
    Tq, mask = min(w["T"], w["num_queries"]), random_mask(w["T"], w["num_real"], g)
    options = {name: w[name] for name in ("chunk_length", "before", "after", "causal")}
    counts = reference.local_counts(Tq, mask, **options)
    seen = definitions.local_window(Tq, mask[0].tolist(), **options)
    assert torch.equal(counts[0, 0], counted(seen, w["T"]))


SMALL_CASES = [
    Case(
        window=window,
        T=17,
        R=3 if window != "local" else 1,
        causal=causal,
        padding=padding,
        fewer_queries=fewer,
        look=look,
        chunk_length=4,
        buckets=buckets,
        penalize_self=penalize_self,
        correct_duplicates=correct_duplicates,
    ).possible()
    for window in ("bucket", "chunk", "local")
    for causal, padding, fewer, look, buckets, penalize_self, correct_duplicates in (
        (True, "none", False, (1, 0), "few", True, False),
        (True, "middle", True, (1, 0), "few", True, True),
        (False, "left", False, (1, 1), "separate", False, True),
        (False, "right", True, (2, 3), "one", True, True),
        (True, "left", False, (0, 0), "many", True, False),
    )
]


@pytest.mark.parametrize("case", SMALL_CASES, ids=str)
def test_attention_equals_definition(case: Case) -> None:
    inputs = make_inputs(case, seed=1)
    mask = inputs.key_padding_mask
    out = attend(case, inputs, "reference")
    before, after = case.look
    for b in range(2):
        real = [True] * case.T if mask is None else mask[b].tolist()
        for h in range(2):
            q_buckets, k_buckets = inputs.q_buckets[b, h].tolist(), inputs.k_buckets[b, h].tolist()
            if case.window == "bucket":
                C = case.chunk_length
                seen = definitions.bucket_window(
                    q_buckets, k_buckets, real, before=before * C, after=after * C, causal=case.causal
                )
            else:
                options: dict[str, Any] = {
                    "chunk_length": case.chunk_length,
                    "before": before,
                    "after": after,
                    "causal": case.causal,
                }
                seen = (
                    definitions.chunk_window(k_buckets, real, **options)
                    if case.window == "chunk"
                    else definitions.local_window(inputs.q.shape[2], real, **options)
                )
            expected = definitions.attention(
                inputs.q[b, h],
                inputs.k[b, h],
                inputs.v[b, h],
                seen,
                penalize_self=case.penalize_self,
                correct_duplicates=case.correct_duplicates,
            )
            assert (out[b, h] - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-10


@pytest.mark.parametrize("correct_duplicates", [False, True])
@pytest.mark.parametrize("penalize_self", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
def test_lsh_attention_passes_gradcheck(
    window: Any, causal: bool, penalize_self: bool, correct_duplicates: bool
) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 1, 6, 2, generator=g, dtype=torch.float64).requires_grad_() for _ in range(3))
    buckets = torch.randint(3, (2, 1, 2, 6), generator=g)
    mask = torch.tensor([[True] * 6, [False, True, True, False, True, False]])

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return lsh_attention(
            q,
            k,
            v,
            buckets,
            chunk_length=2,
            num_chunks_after=1,
            window=window,
            causal=causal,
            penalize_self=penalize_self,
            key_padding_mask=mask,
            correct_duplicates=correct_duplicates,
            dropout=0.3 if causal == penalize_self else 0.0,
            dropout_seed=7,
            backend="reference",
        )

    assert torch.autograd.gradcheck(function, (q, k, v))


@pytest.mark.parametrize("num_queries", [3, 7])
@pytest.mark.parametrize("causal", [False, True])
def test_local_attention_passes_gradcheck(causal: bool, num_queries: int) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(2, 1, T, 3, generator=g, dtype=torch.float64).requires_grad_()
        for T in (num_queries, 7, 7)
    )
    mask = torch.tensor([[True] * 7, [False, True, True, False, True, True, False]])

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return local_attention(
            q,
            k,
            v,
            chunk_length=2,
            num_chunks_after=1,
            causal=causal,
            key_padding_mask=mask,
            backend="reference",
        )

    assert torch.autograd.gradcheck(function, (q, k, v))


def test_weights_sum_to_one_or_nothing_is_seen() -> None:
    case = Case(padding="left", correct_duplicates=True)
    inputs = make_inputs(case, seed=2)
    counts = reference.bucket_counts(
        inputs.q_buckets, inputs.k_buckets, inputs.key_padding_mask, before=16, after=0, causal=True
    )
    P = reference.weights(inputs.q, inputs.k, counts, penalize_self=True, correct_duplicates=True)
    sums = P.sum((2, 4))
    real = inputs.key_padding_mask[:, None].expand_as(sums)
    assert (sums[real] - 1).abs().max() < 1e-12
    assert (sums[~real] == 0).all()
    assert real.any()
    assert (~real).any()
