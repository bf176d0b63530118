"""The tiled path against the reference: forward and every gradient, in every combination."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import local_attention, lsh_attention
from tests.ops.cases import (
    Case,
    all_cases,
    attend,
    attend_and_differentiate,
    make_inputs,
    pairwise_cases,
    window_counts,
)
from tests.ops.precision import rounding_budget

FLOAT64_TOLERANCE = 1e-10


def assert_tiled_equals_reference(case: Case) -> None:
    inputs = make_inputs(case, seed=case.T)
    expected = attend_and_differentiate(case, inputs, "reference")
    for name, tensor in attend_and_differentiate(case, inputs, "torch").items():
        error = (tensor - expected[name]).abs().max().item()
        assert error < FLOAT64_TOLERANCE, f"{name} is off by {error}"


@pytest.mark.parametrize("case", pairwise_cases(seed=0), ids=str)
def test_float64_equals_reference(case: Case) -> None:
    assert_tiled_equals_reference(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", all_cases(seed=0), ids=str)
def test_float64_equals_reference_on_the_whole_grid(case: Case) -> None:
    assert_tiled_equals_reference(case)


def test_pairwise_cases_hold_what_must_be_shown() -> None:
    """Each length with each window, each padding, each number of rounds and each head size."""
    cases = pairwise_cases(seed=0)
    lengths = (1, 2, 63, 64, 65, 127, 1000)
    for axis, values in {
        "window": ("bucket", "chunk", "local"),
        "causal": (True, False),
        "padding": ("none", "left", "right", "middle"),
        "R": (1, 3, 8),
        "D": (8, 64, 136),
    }.items():
        assert {(c.T, getattr(c, axis)) for c in cases} == {(T, value) for T in lengths for value in values}
    assert {(c.T, c.padding) for c in cases if c.fewer_queries} >= {(1000, "left"), (65, "none")}


LOW_PRECISION_CASES = [
    *(replace(case, dropout=0.0) for case in pairwise_cases(seed=1) if case.T < 127),
    Case(T=127, R=8, D=64),
    Case(T=1000, R=1, D=64, chunk_length=64, buckets="many"),
]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in LOW_PRECISION_CASES),
        *((case, torch.bfloat16) for case in LOW_PRECISION_CASES[::2]),
        *((case, torch.float16) for case in LOW_PRECISION_CASES[1::2]),
    ],
    ids=str,
)
def test_low_precision_is_as_exact_as_the_reference(case: Case, dtype: torch.dtype) -> None:
    quantised = make_inputs(case, seed=3).to(dtype)
    promoted = quantised.to(torch.float64)
    truth = attend_and_differentiate(case, promoted, "reference")
    reference = attend_and_differentiate(case, quantised, "reference")
    tiled = attend_and_differentiate(case, quantised, "torch")
    budget = rounding_budget(case, promoted, truth, dtype)
    for name in truth:
        assert tiled[name].dtype == dtype
        allowed = (reference[name].double() - truth[name]).abs().max() + budget[name]
        assert ((tiled[name].double() - truth[name]).abs() <= allowed).all(), name


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_output_has_the_layout_of_the_queries(window: str) -> None:
    for heads_inside in (False, True):
        case = Case(window=window, heads_inside=heads_inside).possible()
        inputs = make_inputs(case, seed=0)
        assert attend(case, inputs, "torch").stride() == inputs.q.stride()


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_takes_any_strides_and_wider_values(window: str) -> None:
    """Slices and expanded tensors; values with a head size of their own."""
    case = Case(window=window, T=40).possible()
    inputs = make_inputs(case, seed=0)
    wide = torch.randn(2, 2, 90, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    strided = replace(
        inputs,
        q=wide[:, :, 5:45, :8],
        k=wide[:, :1, ::2, 1::2][:, :, :40].expand(2, 2, 40, 8),
        v=wide[:, :, 50:].flip(1),
        grad_out=wide[:, :, 50:],
    )
    expected = attend_and_differentiate(case, strided, "reference")
    for name, tensor in attend_and_differentiate(case, strided, "torch").items():
        assert (tensor - expected[name]).abs().max() < FLOAT64_TOLERANCE, name
    assert expected["out"].shape == (2, 2, 40, 16)


def test_shared_tensors_add_their_gradients() -> None:
    """q, k and v may be one tensor."""
    case = Case(T=70)
    inputs = make_inputs(case, seed=0)
    gradients = []
    for backend in ("reference", "torch"):
        x = inputs.q.clone().requires_grad_()
        out = attend(case, replace(inputs, q=x, k=x, v=x), backend)
        gradients += torch.autograd.grad(out, x, inputs.grad_out)
    assert (gradients[0] - gradients[1]).abs().max() < FLOAT64_TOLERANCE


def test_second_derivatives_are_refused() -> None:
    case = Case(T=9)
    inputs = make_inputs(case, seed=0)
    q = inputs.q.requires_grad_()
    out = attend(case, inputs, "torch")
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_inputs_are_left_as_they_were(window: str) -> None:
    case = Case(window=window, padding="middle", correct_duplicates=True).possible()
    inputs, untouched = make_inputs(case, seed=0), make_inputs(case, seed=0)
    attend_and_differentiate(case, inputs, "torch")
    for name in ("q", "k", "v", "grad_out", "q_buckets", "k_buckets", "key_padding_mask"):
        assert torch.equal(getattr(inputs, name), getattr(untouched, name))


class TestDeterminism:
    """With PyTorch's ordinary, faster algorithms."""

    @pytest.fixture(autouse=True)
    def _ordinary_algorithms(self, _poisoned_memory: None) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.use_deterministic_algorithms(False)
        yield
        torch.set_num_threads(threads)

    @pytest.mark.parametrize(
        ("window", "dtype"),
        [
            ("bucket", torch.float32),
            ("chunk", torch.bfloat16),
            ("local", torch.float32),
        ],
        ids=str,
    )
    def test_runs_and_thread_counts_agree_bit_for_bit(self, window: str, dtype: torch.dtype) -> None:
        case = Case(
            window=window, T=150, R=2, D=64, chunk_length=16, buckets="many", padding="left", dropout=0.1
        ).possible()
        inputs = make_inputs(case, seed=0).to(dtype)
        results = []
        for num_threads in (1, 1, 2):
            torch.set_num_threads(num_threads)
            results.append(attend_and_differentiate(case, inputs, "torch"))
        for other in results[1:]:
            assert all(torch.equal(results[0][name], other[name]) for name in other)


def poisoned(case: Case, which: str, position: int) -> tuple[Any, Tensor]:
    """Inputs with NaN in one key (or value) of one row, and the queries `[B, H, Tq]` that see it."""
    inputs = make_inputs(case, seed=0)
    getattr(inputs, which)[0, 1, position] = torch.nan
    sees = torch.zeros(inputs.q.shape[:3], dtype=torch.bool)
    sees[0, 1] = (window_counts(case, inputs)[0, -1, :, :, position] > 0).any(0)
    assert 0 < sees.sum() < case.T // 2
    return inputs, sees


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("which", ["k", "v"])
@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_nan_is_never_hidden(window: str, which: str, backend: str) -> None:
    case = Case(window=window, T=200, chunk_length=8, penalize_self=False).possible()
    inputs, sees = poisoned(case, which, position=90)
    assert attend(case, inputs, backend).isnan().all(-1)[sees].all()


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_nan_key_poisons_only_queries_that_see_it_in_the_reference(window: str) -> None:
    case = Case(window=window, T=200, chunk_length=8, penalize_self=False).possible()
    inputs, sees = poisoned(case, "k", position=90)
    assert torch.equal(attend(case, inputs, "reference").isnan().any(-1), sees)


@pytest.mark.xfail(strict=True, reason="0 * NaN is NaN: a tile's queries share their keys and values")
@pytest.mark.parametrize(
    ("backend", "which"), [("torch", "k"), ("torch", "v"), ("reference", "v")], ids=lambda x: x
)
@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_nan_poisons_only_queries_that_see_it(window: str, backend: str, which: str) -> None:
    case = Case(window=window, T=200, chunk_length=8, penalize_self=False).possible()
    inputs, sees = poisoned(case, which, position=90)
    assert torch.equal(attend(case, inputs, backend).isnan().any(-1), sees)


@pytest.mark.parametrize("value", [torch.inf, 1e38], ids=str)
@pytest.mark.parametrize("which", ["q", "k", "v", "grad_out"])
@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_huge_and_infinite_inputs_do_not_crash(window: str, which: str, value: float) -> None:
    case = Case(window=window, T=100, chunk_length=8, padding="right").possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    getattr(inputs, which)[0, 0, 50] = value
    result = attend_and_differentiate(case, inputs, "torch")
    assert result["out"].shape == inputs.q.shape


@pytest.mark.parametrize("scale", [30.0, 1e4], ids=str)
def test_large_scores_are_exact(scale: float) -> None:
    """Far beyond what exp can hold."""
    for window in ("bucket", "chunk", "local"):
        case = Case(window=window, T=100, penalize_self=False).possible()
        inputs = make_inputs(case, seed=0)
        inputs = replace(inputs, q=inputs.q * scale)
        expected, actual = (attend_and_differentiate(case, inputs, b) for b in ("reference", "torch"))
        for name in expected:
            assert (expected[name] - actual[name]).abs().max() < 1e-10 * scale, name


def scores_like_the_self_score(name: str) -> tuple[Tensor, Tensor]:
    """A result of the reference and of the tiled path where other keys score about as low as one's own."""
    case = Case(T=100, look=(3, 0))
    inputs = make_inputs(case, seed=0)
    q = inputs.q.clone()
    q[..., 0] = -1e5 - q[..., 0]
    k = inputs.k.clone()
    k[..., 0] = 1 + 1e-5 * k[..., 0]
    inputs = replace(inputs, q=q, k=k)
    expected, actual = (attend_and_differentiate(case, inputs, b) for b in ("reference", "torch"))
    return expected[name], actual[name]


@pytest.mark.parametrize("name", ["out", "v"])
def test_self_score_is_replaced_and_not_lowered(name: str) -> None:
    expected, actual = scores_like_the_self_score(name)
    assert (expected - actual).abs().max() < 1e-8  # of scores of 1e5, float64 keeps 1e-11


@pytest.mark.parametrize("name", ["q", "k"])
def test_self_score_has_no_gradient(name: str) -> None:
    expected, actual = scores_like_the_self_score(name)
    assert (expected - actual).abs().max() < 1e-8 * expected.abs().max()


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_autocast_changes_nothing_in_the_forward(window: str, backend: str) -> None:
    case = Case(window=window).possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    plain = attend(case, inputs, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attend(case, inputs, backend), plain)


def test_autocast_changes_nothing_in_the_backward() -> None:
    case = Case()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    plain = attend_and_differentiate(case, inputs, "torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attend_and_differentiate(case, inputs, "torch")
    assert all(torch.equal(plain[name], inside[name]) for name in plain)


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
@pytest.mark.parametrize("num_real", [0, 1])
def test_rows_of_padding_alone(window: str, num_real: int) -> None:
    case = Case(window=window, T=20, padding="left", correct_duplicates=True, causal=False).possible()
    inputs = make_inputs(case, seed=0)
    mask = torch.zeros(2, 20, dtype=torch.bool)
    mask[:, 20 - num_real :] = True
    inputs = replace(inputs, key_padding_mask=mask)
    for backend in ("reference", "torch"):
        result = attend_and_differentiate(case, inputs, backend)
        assert all((tensor[:, :, : 20 - num_real] == 0).all() for tensor in result.values())
        if num_real:
            assert (result["out"][:, :, -1] - inputs.v[:, :, -1]).abs().max() < 1e-12


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_empty_batch(window: str) -> None:
    q = torch.zeros(0, 2, 9, 8, requires_grad=True)
    buckets = torch.zeros(0, 2, 3, 9, dtype=torch.int64)
    if window == "local":
        out = local_attention(q, q, q, backend="torch")
    else:
        out = lsh_attention(q, q, q, buckets, window=window, backend="torch")
    assert out.shape == (0, 2, 9, 8)
    assert torch.autograd.grad(out.sum(), q)[0].shape == (0, 2, 9, 8)
