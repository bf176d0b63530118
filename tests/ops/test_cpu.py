"""The compiled kernels against the reference in float64: all gradients, on each instruction set."""

import ctypes
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from reformer.ops import attention as ops_attention
from reformer.ops import cpu, local_attention, lsh_attention, lsh_attention_by_level, lsh_hash
from reformer.ops.large_tensors import new_empty
from tests.ops.cases import (
    AXES,
    Case,
    all_cases,
    attend,
    attend_and_differentiate,
    make_inputs,
    pairwise_cases,
    window_counts,
)
from tests.ops.precision import rounding_budget

pytestmark = pytest.mark.skipif(not cpu.library.instruction_sets, reason=str(cpu.library.functions))

INSTRUCTION_SETS = list(range(len(cpu.library.instruction_sets)))
WINDOWS = ("bucket", "chunk", "local")
Q_BUCKETS = torch.zeros(1, 1, 1, 4, dtype=torch.int64)


@pytest.fixture(params=INSTRUCTION_SETS, ids=lambda i: cpu.library.instruction_sets[i])
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(cpu.library, "instruction_set", request.param)
    return cpu.library.instruction_sets[request.param]


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


def assert_as_exact_as_the_reference(
    case: Case, dtype: torch.dtype = torch.float32, seed: int = 3, *, any_case: bool = False
) -> None:
    """Against float64: no worse than the reference in the same dtype, but for a rounding budget.

    In bfloat16 some cases are less exact than most: weights may be rounded before they are multiplied, and a
    rounding of `delta` is multiplied by queries. `any_case` allows for both.
    """
    any_case = any_case and dtype == torch.bfloat16
    quantised = make_inputs(case, seed).to(dtype)
    promoted = quantised.to(torch.float64)
    truth = attend_and_differentiate(case, promoted, "reference")
    actual = attend_and_differentiate(case, quantised, "cpu")
    assert all(tensor.dtype == dtype for tensor in actual.values())
    if case.dropout:  # for which there is no budget: the question is whether the same weights are dropped
        tolerance = 2e-5 if dtype == torch.float32 else 2e-2
        for name in truth:  # gradients are differences of numbers as large as a score may be
            size = case.D**0.5 + truth[name].abs().max()
            if any_case and name in ("q", "k"):
                size *= 4
            assert (actual[name] - truth[name]).abs().max() <= tolerance * size, name
        return
    reference = attend_and_differentiate(case, quantised, "reference")
    instructions = cpu.library.instruction_sets[cpu.library.instruction_set]
    rounds_weights = any_case and instructions in ("avx512bf16", "amx")
    budget = rounding_budget(case, promoted, truth, dtype, rounds_weights=rounds_weights)
    for name in truth:
        allowed = (reference[name].double() - truth[name]).abs().max() + budget[name]
        assert ((actual[name].double() - truth[name]).abs() <= allowed).all(), name


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", pairwise_cases(seed=0), ids=str)
def test_float32_equals_reference(case: Case) -> None:
    assert_as_exact_as_the_reference(case)
    if case.dropout:
        assert_as_exact_as_the_reference(replace(case, dropout=0.0))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", pairwise_cases(seed=4)[::2], ids=str)
def test_bfloat16_equals_reference(case: Case) -> None:
    assert_as_exact_as_the_reference(case, torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", all_cases(seed=0), ids=str)
def test_the_whole_grid_equals_reference(case: Case, dtype: torch.dtype) -> None:
    assert_as_exact_as_the_reference(case, dtype, any_case=True)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("chunk_length", [256, 700])
def test_windows_longer_than_what_is_gathered_at_once(window: str, chunk_length: int) -> None:
    """Several runs of keys for each tile, and groups of many tiles."""
    case = Case(
        window=window, T=1900, chunk_length=chunk_length, look=(2, 1), D=16, R=2, causal=False, buckets="few"
    )
    assert_as_exact_as_the_reference(case.possible())


@pytest.mark.parametrize("buckets", ["one", "separate", "each"])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
def test_skewed_buckets(window: str, buckets: str) -> None:
    """All tokens in one bucket; every token in its own, far apart and negative."""
    case = Case(window=window, T=300, D=16, buckets=buckets).possible()
    inputs = make_inputs(case, seed=0)
    if buckets == "each":
        ids = (torch.arange(300) * 977 % 300 - 150) << 40
        inputs = replace(inputs, q_buckets=ids.expand(2, 2, 3, 300), k_buckets=ids.expand(2, 2, 3, 300))
    expected = attend_and_differentiate(case, inputs, "reference")
    actual = attend_and_differentiate(case, inputs.to(torch.float32), "cpu")
    for name in expected:
        assert (actual[name] - expected[name]).abs().max() < 1e-5 * (1 + expected[name].abs().max()), name


@pytest.mark.parametrize("num_rounds", [1, 3])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_what_new_memory_holds(
    window: str, dtype: torch.dtype, num_rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding leaves queries that see nothing."""
    case = Case(window=window, T=700, D=16, R=num_rounds, chunk_length=64, padding="middle").possible()
    inputs = make_inputs(case, seed=0).to(dtype)
    expected = attend_and_differentiate(case, inputs, "cpu")
    monkeypatch.setattr(cpu, "new_empty", lambda *args: new_empty(*args).fill_(torch.nan))
    actual = attend_and_differentiate(case, inputs, "cpu")
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(
    window: str, dtype: torch.dtype, set_threads: Callable[[int], None]
) -> None:
    """One row, so that threads share out its groups of queries."""
    case = Case(window=window, T=1000, D=16, look=(1, 1), chunk_length=64, buckets="many", dropout=0.1)
    inputs = make_inputs(replace(case, padding="middle").possible(), seed=0).to(dtype)
    results = []
    for num_threads in (1, 2, 3, 2):
        set_threads(num_threads)
        results.append(attend_and_differentiate(case.possible(), inputs, "cpu"))
    for other in results[1:]:
        assert all(torch.equal(results[0][name], other[name]) for name in other)


@pytest.mark.parametrize("window", WINDOWS)
def test_rows_that_wait_for_memory_have_the_same_results(
    window: str, set_threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(case := Case(window=window, T=700, D=16, R=2).possible(), seed=0).to(torch.bfloat16)
    set_threads(3)
    at_once = attend_and_differentiate(case, inputs, "cpu")
    monkeypatch.setattr(cpu, "_LARGE_SUMS", 1)
    one_by_one = attend_and_differentiate(case, inputs, "cpu")
    assert all(torch.equal(at_once[name], one_by_one[name]) for name in at_once)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("which", ["q", "k", "v"])
@pytest.mark.parametrize("window", WINDOWS)
def test_nan_poisons_only_queries_that_see_it(window: str, which: str) -> None:
    case = Case(window=window, T=200, chunk_length=8, penalize_self=False, padding="right").possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    inputs = replace(inputs, key_padding_mask=torch.ones(2, 200, dtype=torch.bool))
    getattr(inputs, which)[0, 1, 90] = torch.nan
    poisoned = torch.zeros(inputs.q.shape[:3], dtype=torch.bool)
    if which == "q":
        poisoned[0, 1, 90] = True
    else:
        poisoned[0, 1] = (window_counts(case, inputs)[0, -1, :, :, 90] > 0).any(0)
    assert 0 < poisoned.sum() < 100
    assert torch.equal(attend(case, inputs, "cpu").isnan().any(-1), poisoned)


@pytest.mark.parametrize("window", WINDOWS)
def test_nan_poisons_only_gradients_of_what_it_meets(window: str) -> None:
    """A NaN in the gradient of one output reaches that query's gradient and those of the keys it sees."""
    case = Case(window=window, T=200, chunk_length=8, penalize_self=False).possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    inputs.grad_out[0, 1, 90] = torch.nan
    seen = torch.zeros(2, 2, 200, dtype=torch.bool)
    seen[0, 1] = (window_counts(case, inputs)[0, -1, :, 90] > 0).any(0)
    result = attend_and_differentiate(case, inputs, "cpu")
    own = torch.zeros_like(seen)
    own[0, 1, 90] = True
    for name, expected in (("q", own), ("k", seen), ("v", seen)):
        assert torch.equal(result[name].isnan().any(-1), expected), name


@pytest.mark.parametrize("value", [torch.inf, 1e38], ids=str)
@pytest.mark.parametrize("which", ["q", "k", "v", "grad_out"])
@pytest.mark.parametrize("window", WINDOWS)
def test_huge_and_infinite_inputs_reach_only_their_row(window: str, which: str, value: float) -> None:
    case = Case(window=window, T=100, chunk_length=8).possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    plain = attend_and_differentiate(case, inputs, "cpu")
    getattr(inputs, which)[0, 0, 50] = value
    result = attend_and_differentiate(case, inputs, "cpu")
    assert all(torch.equal(result[name][1], plain[name][1]) for name in plain)


@pytest.mark.parametrize("window", WINDOWS)
def test_takes_any_strides_and_values_of_another_size(window: str) -> None:
    case = Case(window=window, T=40).possible()
    inputs = make_inputs(case, seed=0)
    wide = torch.randn(2, 2, 90, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    strided = replace(
        inputs,
        q=wide[:, :, 5:45, :8],
        k=wide[:, :1, ::2, 1::2][:, :, :40].expand(2, 2, 40, 8),
        v=wide[:, :, 50:].flip(1),
        grad_out=wide[:, :, 50:51].expand(2, 2, 40, 16),
    )
    expected = attend_and_differentiate(case, strided, "reference")
    for name, tensor in attend_and_differentiate(case, strided.to(torch.float32), "cpu").items():
        assert (tensor - expected[name]).abs().max() < 1e-4, name


@pytest.mark.parametrize("heads_inside", [False, True])
def test_output_and_gradients_have_the_layout_of_the_inputs(heads_inside: bool) -> None:
    case = Case(heads_inside=heads_inside)
    inputs = make_inputs(case, seed=0).to(torch.float32)
    for name, tensor in attend_and_differentiate(case, inputs, "cpu").items():
        assert tensor.stride() == (inputs.q if name == "out" else getattr(inputs, name)).stride()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)], ids=str)
@pytest.mark.parametrize("own", [True, False], ids=["own buckets", "buckets of keys"])
@pytest.mark.parametrize("correct_duplicates", [False, True])
@pytest.mark.parametrize(("B", "H", "num_pad"), [(2, 2, ()), (2, 2, (0, 30)), (1, 1, ())])
def test_levels_equal_the_reference(
    B: int,
    H: int,
    num_pad: tuple[int, ...],
    correct_duplicates: bool,
    own: bool,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(B, H, 150, 24, generator=g, dtype=torch.float64).to(dtype) for _ in range(4))
    buckets, others = (
        [torch.randint(i + 1, (B, H, 3, end), generator=g) for i, end in enumerate((16, 32, 64, 150))]
        for _ in range(2)
    )
    mask = torch.arange(150) < 150 - torch.tensor(num_pad)[:, None] if num_pad else None
    results = []
    for as_dtype, backend in ((torch.float64, "reference"), (dtype, "cpu")):
        leaves = [x.to(as_dtype).requires_grad_() for x in (q, k, v)]
        out = lsh_attention_by_level(
            *leaves,
            buckets,
            None if own else others,
            chunk_length=16,
            penalize_self=own,
            key_padding_mask=mask,
            correct_duplicates=correct_duplicates,
            dropout=0.2,
            dropout_seed=7,
            backend=backend,
        )
        results.append([out, *torch.autograd.grad(out, leaves, grad.to(as_dtype))])
    for expected, actual in zip(*results, strict=True):
        assert (actual - expected).abs().max() < tolerance * expected.abs().max()


@pytest.mark.parametrize("window", WINDOWS)
def test_empty_batch_and_padding_alone(window: str) -> None:
    q = torch.zeros(0, 2, 9, 8, requires_grad=True)
    inputs = make_inputs(Case(window=window, T=20).possible(), seed=0).to(torch.float32)
    alone = replace(inputs, key_padding_mask=torch.zeros(2, 20, dtype=torch.bool))
    for tensor in attend_and_differentiate(Case(window=window, T=20).possible(), alone, "cpu").values():
        assert (tensor == 0).all()
    buckets = torch.zeros(0, 2, 3, 9, dtype=torch.int64)
    if window == "local":
        out = local_attention(q, q, q, backend="cpu")
    else:
        out = lsh_attention(q, q, q, buckets, window=window, backend="cpu")
    assert torch.autograd.grad(out.sum(), q)[0].shape == (0, 2, 9, 8)


def test_second_derivatives_are_refused() -> None:
    case = Case(T=9)
    inputs = make_inputs(case, seed=0).to(torch.float32)
    q = inputs.q.requires_grad_()
    (grad,) = torch.autograd.grad(attend(case, inputs, "cpu").square().sum(), q, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match="autograd"):
        grad.sum().backward()


class TestHash:
    """Against the portable path; ids may differ only where two products are as good as equal."""

    @pytest.mark.usefixtures("instruction_set")
    @pytest.mark.parametrize("num_buckets", [2, 8, 66, (4, 6), (2, 10, 130), 1])
    @pytest.mark.parametrize("T", [1, 31, 33, 1500])
    def test_equals_portable_path(self, T: int, num_buckets: int | tuple[int, ...]) -> None:
        g = torch.Generator().manual_seed(T)
        factors = (num_buckets,) if isinstance(num_buckets, int) else num_buckets
        width = 0 if factors == (1,) else sum(factors) // 2
        x = torch.randn(2, T, 3 * 24, generator=g).unflatten(-1, (3, 24)).transpose(1, 2)
        rotations = torch.randn(3, 24, 2, width, generator=g)
        mask = torch.rand(2, T, generator=g) > 0.3
        expected = lsh_hash(x, rotations, num_buckets, padding_mask=mask, backend="torch")
        actual = lsh_hash(x, rotations, num_buckets, padding_mask=mask, backend="cpu")
        assert actual.dtype == expected.dtype
        assert (actual != expected).float().mean() < 1e-3

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
    def test_small_integers_are_exact_and_ties_go_to_the_first(self, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(0)
        x = torch.randint(-2, 3, (1, 2, 500, 8), generator=g).to(dtype)
        rotations = torch.randint(-1, 2, (2, 8, 3, 20), generator=g).float()
        for factors in (40, (10, 30)):
            expected = lsh_hash(x, rotations, factors, backend="torch")
            assert torch.equal(lsh_hash(x, rotations, factors, backend="cpu"), expected)

    def test_nan_gets_some_bucket(self) -> None:
        x = torch.full((1, 1, 3, 8), torch.nan)
        buckets = lsh_hash(x, torch.randn(1, 8, 2, 4), 8, backend="cpu")
        assert ((buckets >= 0) & (buckets < 8)).all()


class TestChoice:
    """Nothing is tried and silently replaced."""

    @pytest.mark.parametrize(
        ("q", "reason"),
        [
            (torch.zeros(1, 1, 4, 8, dtype=torch.float64), "float64"),
            (torch.zeros(1, 1, 4, 12), "head size 12"),
            (torch.zeros(1, 1, 4, 264), "head size 264"),
            (torch.zeros(1, 1, 4, 8, device="meta"), "on meta"),
        ],
    )
    def test_says_why_it_cannot_run(self, q: Tensor, reason: str) -> None:
        with pytest.raises(NotImplementedError, match=reason):
            lsh_attention(q, q, q, Q_BUCKETS, backend="cpu")
        with pytest.raises(NotImplementedError, match=reason):
            lsh_hash(q, torch.zeros(1, q.shape[-1], 1, 2), 4, backend="cpu")

    def test_auto_takes_what_it_can(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = []
        kernel = cpu.attention
        monkeypatch.setattr(cpu, "attention", lambda *a, **k: calls.append(1) or kernel(*a, **k))
        lsh_attention(*[torch.zeros(1, 1, 4, 8)] * 3, Q_BUCKETS)
        lsh_attention(*[torch.zeros(1, 1, 4, 12)] * 3, Q_BUCKETS)
        assert len(calls) == 1

    def test_auto_logs_its_choice_once(self, caplog: pytest.LogCaptureFixture) -> None:
        ops_attention._log_choice.cache_clear()
        with caplog.at_level(logging.INFO, logger="reformer"):
            for _ in range(2):
                local_attention(*[torch.zeros(1, 1, 4, 8)] * 3)
        assert [record.message.count('backend "cpu"') for record in caplog.records] == [1]

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bare = cpu._Library()
        bare.functions = "the kernels were not compiled"
        monkeypatch.setattr(cpu, "library", bare)
        case = Case(T=20)
        inputs = make_inputs(case, seed=0).to(torch.float32)
        assert torch.equal(attend(case, inputs, "auto"), attend(case, inputs, "torch"))
        with pytest.raises(NotImplementedError, match="were not compiled"):
            attend(case, inputs, "cpu")

    def test_structures_are_those_of_the_library(self) -> None:
        functions = cpu.library.functions
        assert not isinstance(functions, str)
        assert functions.reformer_problem_size() == ctypes.sizeof(cpu._Problem)


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
class TestCompile:
    @pytest.fixture(autouse=True)
    def _fresh(self) -> None:
        torch.compiler.reset()

    @pytest.mark.parametrize("op", ["bucket", "chunk", "local", "level"])
    def test_one_graph_and_the_same_results(self, op: str) -> None:
        g = torch.Generator().manual_seed(0)
        q, k, v, grad = (torch.randn(1, 2, 70, 8, generator=g) for _ in range(4))
        rotations = torch.randn(2, 8, 2, 4, generator=g)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if op == "local":
                return local_attention(q, k, v, chunk_length=16)
            if op == "level":
                ends = (32, 70)
                buckets = [lsh_hash(q[:, :, :end], rotations, 8) for end in ends]
                return lsh_attention_by_level(q, k, v, buckets, chunk_length=16)
            return lsh_attention(q, k, v, lsh_hash(q, rotations, 8), chunk_length=16, window=op)

        results = []
        for function in (attend, torch.compile(attend, fullgraph=True, backend="aot_eager")):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            out = function(*leaves)
            results.append([out, *torch.autograd.grad(out, leaves, grad)])
        for eager, compiled in zip(*results, strict=True):
            assert torch.equal(eager, compiled)

    def test_operators_are_well_defined(self) -> None:
        g = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, 2, 20, 8, generator=g, requires_grad=True) for _ in range(3))
        buckets = [torch.randint(3, (1, 2, 2, 20), generator=g)]
        options = (0, 8, 8, 0, True, True, False, 0.1, 5)
        torch.library.opcheck(cpu._attention, (q, k, v, buckets, buckets, None, *options))
        x, rotations = torch.randn(1, 2, 20, 8, generator=g), torch.randn(2, 8, 2, 4, generator=g)
        torch.library.opcheck(cpu.hash_vectors, (x, rotations, [8], None))


axes = {name: st.sampled_from(values) for name, values in AXES.items() if name not in ("T", "D")}
cases = st.builds(
    Case,
    T=st.integers(1, 400),
    D=st.integers(1, 32).map(lambda n: 8 * n),
    **axes | {"chunk_length": st.integers(1, 130), "look": st.tuples(st.integers(0, 4), st.integers(0, 4))},
)


def assert_any_case_equals_the_reference(
    case: Case, dtype: torch.dtype, seed: int, instruction_set: int
) -> None:
    chosen, cpu.library.instruction_set = cpu.library.instruction_set, instruction_set
    try:
        assert_as_exact_as_the_reference(case.possible(), dtype, seed, any_case=True)
    finally:
        cpu.library.instruction_set = chosen


def fuzz(num_cases: int, *, derandomize: bool = False) -> None:
    options = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
    dtypes = st.sampled_from([torch.float32, torch.bfloat16])
    test = given(cases, dtypes, st.integers(0, 1000), st.sampled_from(INSTRUCTION_SETS))(
        assert_any_case_equals_the_reference
    )
    settings(max_examples=num_cases, derandomize=derandomize, **options)(test)()


def test_any_case_equals_the_reference() -> None:
    fuzz(25, derandomize=True)


@pytest.mark.slow
def test_ten_minutes_of_cases() -> None:
    stop = time.monotonic() + 600
    while time.monotonic() < stop:
        fuzz(200)
