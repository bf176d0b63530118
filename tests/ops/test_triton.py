"""The Triton kernels, run by Triton's interpreter, against the reference in float64."""

import json
import logging
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from reformer.ops import attention as ops_attention
from reformer.ops import local_attention, lsh_attention, lsh_attention_by_level, lsh_hash
from reformer.ops.triton import attention as operators
from reformer.ops.triton import hashing, support
from reformer.ops.triton.plan import bucket_plan, chunk_plan, local_plan
from tests.ops.cases import (
    Case,
    Inputs,
    attend,
    attend_and_differentiate,
    make_inputs,
    pairwise_cases,
    window_counts,
)
from tests.ops.precision import rounding_budget

pytest.importorskip("triton")

WINDOWS = ("bucket", "chunk", "local")
Q_BUCKETS = torch.zeros(1, 1, 1, 4, dtype=torch.int64)
SHORTER = {63: 31, 64: 32, 65: 33, 127: 65, 1000: 70}
ROOT = Path(__file__).parents[2]


def shrink(case: Case) -> Case:
    """A case for the interpreter, which takes a millisecond for each operation on a tile."""
    D = 40 if case.D == 136 else case.D
    return replace(case, T=SHORTER.get(case.T, case.T), R=min(case.R, 2), D=D, small_tiles=False)


def assert_as_exact_as_the_reference(case: Case, dtype: torch.dtype = torch.float32, seed: int = 3) -> None:
    """Against float64: no worse than the reference in the same dtype, but for a rounding budget."""
    quantised = make_inputs(case, seed).to(dtype)
    promoted = quantised.to(torch.float64)
    truth = attend_and_differentiate(case, promoted, "reference")
    actual = attend_and_differentiate(case, quantised, "triton")
    assert all(tensor.dtype == dtype for tensor in actual.values())
    if case.dropout:  # for which there is no budget: the question is whether the same weights are dropped
        tolerance = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        for name in truth:  # gradients are differences of numbers as large as a score may be
            size = case.D**0.5 + truth[name].abs().max()
            assert (actual[name] - truth[name]).abs().max() <= tolerance * size, name
        return
    reference = attend_and_differentiate(case, quantised, "reference")
    budget = rounding_budget(case, promoted, truth, dtype, rounds_weights=dtype != torch.float32)
    for name in truth:
        allowed = (reference[name].double() - truth[name]).abs().max() + budget[name]
        assert ((actual[name].double() - truth[name]).abs() <= allowed).all(), name


CASES = [shrink(case) for case in pairwise_cases(seed=0)]
LONGER_VECTORS = [replace(shrink(case), D=136) for case in pairwise_cases(seed=4) if case.D == 136]


@pytest.mark.parametrize("case", CASES[::6], ids=str)
def test_float32_equals_reference(case: Case) -> None:
    assert_as_exact_as_the_reference(case)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES[2::16], ids=str)
def test_16_bits_equal_reference(case: Case, dtype: torch.dtype) -> None:
    assert_as_exact_as_the_reference(case, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", [*CASES, *LONGER_VECTORS], ids=str)
def test_every_dtype_equals_reference_in_more_cases(case: Case, dtype: torch.dtype) -> None:
    assert_as_exact_as_the_reference(case, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("D", [16, 256])
@pytest.mark.parametrize("chunk_length", [32, 256])
def test_longer_inputs_equal_reference(window: str, D: int, chunk_length: int) -> None:
    case = Case(window=window, T=700, R=2, D=D, chunk_length=chunk_length, look=(1, 1), padding="right")
    assert_as_exact_as_the_reference(case.possible())


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("correct_duplicates", [False, True])
def test_rounds_merge(window: str, correct_duplicates: bool) -> None:
    """Rounds beyond the first two, and in window "chunk" keys seen across the ends of rounds."""
    case = Case(window=window, T=20, R=3, chunk_length=8, causal=False, look=(1, 1), heads_inside=True)
    assert_as_exact_as_the_reference(replace(case, correct_duplicates=correct_duplicates).possible())


@pytest.mark.parametrize("buckets", ["one", "each", "beyond 32 bits"])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
def test_skewed_buckets(window: str, buckets: str) -> None:
    """All tokens in one bucket; every token in its own, far apart and negative."""
    case = Case(window=window, T=40, R=2, D=16, buckets="one").possible()
    inputs = make_inputs(case, seed=0)
    if buckets != "one":
        ids = (torch.arange(40) * 7 % 40 - 20) << (40 if buckets == "beyond 32 bits" else 0)
        inputs = replace(inputs, q_buckets=ids.expand(2, 2, 2, 40), k_buckets=ids.expand(2, 2, 2, 40))
    assert_close(inputs, case)


def test_few_queries_far_apart() -> None:
    """A tile of queries skips the keys between what they see."""
    case = Case(T=400, fewer_queries=True, R=1, buckets="separate", chunk_length=5)
    inputs = make_inputs(case, seed=0)
    inputs = replace(inputs, q=inputs.q[:, :, -20:], grad_out=inputs.grad_out[:, :, -20:])
    assert_close(replace(inputs, q_buckets=inputs.q_buckets[..., -20:]), case)


def assert_close(inputs: Inputs, case: Case) -> None:
    expected = attend_and_differentiate(case, inputs, "reference")
    actual = attend_and_differentiate(case, inputs.to(torch.float32), "triton")
    for name in expected:
        assert (actual[name] - expected[name]).abs().max() < 1e-5 * (1 + expected[name].abs().max()), name


@pytest.mark.parametrize("window", WINDOWS)
def test_the_same_bits_at_every_call(window: str) -> None:
    case = Case(window=window, T=20, R=2, dropout=0.1, padding="middle").possible()
    inputs = make_inputs(case, seed=0).to(torch.bfloat16)
    first, second = (attend_and_differentiate(case, inputs, "triton") for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("heads_together", [1, 2, 6])
def test_heads_in_parts(heads_together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs float32 sums is worked on a few heads or batch elements at a time."""
    g = torch.Generator().manual_seed(0)
    q, k, v, grad_out = (torch.randn(2, 3, 20, 8, generator=g, dtype=torch.float64) for _ in range(4))
    buckets = torch.randint(3, (2, 3, 2, 20), generator=g)
    mask = torch.arange(20) < torch.tensor([[20], [13]])
    inputs = Inputs(q, k, v, grad_out, buckets, buckets, mask)
    monkeypatch.setattr(operators, "_SUMS_NUMEL", heads_together * 20 * 8)
    case = Case(T=20, R=2, chunk_length=8, dropout=0.3, correct_duplicates=True)
    assert_close(inputs, case)


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, in the interpreter
def test_not_a_number_reaches_only_its_row(value: float) -> None:
    case = Case(T=40, R=1, penalize_self=False)
    inputs = make_inputs(case, seed=0).to(torch.float32)
    plain = attend_and_differentiate(case, inputs, "triton")
    inputs.k[0, 0, 10] = value
    result = attend_and_differentiate(case, inputs, "triton")
    for name in plain:
        assert torch.equal(result[name].flatten(0, 1)[1:], plain[name].flatten(0, 1)[1:])
    seen = window_counts(case, inputs)[0, 0, 0, :, 10] > 0
    if value != value:
        assert torch.equal(result["out"][0, 0].isnan().any(-1), seen)


@pytest.mark.parametrize("window", WINDOWS)
def test_takes_any_strides_and_values_of_another_size(window: str) -> None:
    case = Case(window=window, T=40, R=2).possible()
    inputs = make_inputs(case, seed=0)
    wide = torch.randn(2, 2, 90, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    strided = replace(
        inputs,
        q=wide[:, :, 5:45, :8],
        k=wide[:, :1, ::2, 1:17:2][:, :, :40].expand(2, 2, 40, 8),
        v=wide[:, :, 50:].flip(1),
        grad_out=wide[:, :, 50:51].expand(2, 2, 40, 20),
    )
    assert_close(strided, case)


@pytest.mark.parametrize("heads_inside", [False, True])
def test_output_and_gradients_have_the_layout_of_the_inputs(heads_inside: bool) -> None:
    case = Case(heads_inside=heads_inside, T=20, R=1)
    inputs = make_inputs(case, seed=0).to(torch.float32)
    for name, tensor in attend_and_differentiate(case, inputs, "triton").items():
        assert tensor.stride() == (inputs.q if name == "out" else getattr(inputs, name)).stride()


@pytest.mark.parametrize(("num_pad", "correct_duplicates"), [((), False), ((0, 20), False), ((), True)])
@pytest.mark.parametrize("own", [True, False], ids=["own buckets", "buckets of keys"])
def test_levels_equal_the_reference(num_pad: tuple[int, ...], correct_duplicates: bool, own: bool) -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(2, 1, 41, 24, generator=g, dtype=torch.float64) for _ in range(4))
    buckets, others = (
        [torch.randint(i + 1, (2, 1, 2, end), generator=g) for i, end in enumerate((8, 16, 41))]
        for _ in range(2)
    )
    mask = torch.arange(41) < 41 - torch.tensor(num_pad)[:, None] if num_pad else None
    results = []
    for dtype, backend in (
        (torch.float64, "reference"),
        (torch.float32, "triton"),
        (torch.bfloat16, "triton"),
    ):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = lsh_attention_by_level(
            *leaves,
            buckets,
            None if own else others,
            chunk_length=8,
            penalize_self=own,
            key_padding_mask=mask,
            correct_duplicates=correct_duplicates,
            dropout=0.2,
            dropout_seed=7,
            backend=backend,
        )
        results.append([out, *torch.autograd.grad(out, leaves, grad.to(dtype))])
    for expected, exact, coarse in zip(*results, strict=True):
        assert (exact - expected).abs().max() < 1e-5 * expected.abs().max()
        assert (coarse - expected).abs().max() < 3e-2 * expected.abs().max()


@pytest.mark.parametrize("window", WINDOWS)
def test_empty_batch_and_padding_alone(window: str) -> None:
    q = torch.zeros(0, 2, 9, 8, requires_grad=True)
    case = Case(window=window, T=20, R=2).possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    alone = replace(inputs, key_padding_mask=torch.zeros(2, 20, dtype=torch.bool))
    for tensor in attend_and_differentiate(case, alone, "triton").values():
        assert (tensor == 0).all()
    buckets = torch.zeros(0, 2, 3, 9, dtype=torch.int64)
    mask = torch.ones(0, 9, dtype=torch.bool)
    if window == "local":
        out = local_attention(q, q, q, key_padding_mask=mask, backend="triton")
    else:
        out = lsh_attention(q, q, q, buckets, window=window, key_padding_mask=mask, backend="triton")
    assert torch.autograd.grad(out.sum(), q)[0].shape == (0, 2, 9, 8)


def test_second_derivatives_are_refused() -> None:
    case = Case(T=9, R=1)
    inputs = make_inputs(case, seed=0).to(torch.float32)
    q = inputs.q.requires_grad_()
    (grad,) = torch.autograd.grad(attend(case, inputs, "triton").square().sum(), q, create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match="autograd"):
        grad.sum().backward()


@pytest.mark.parametrize("window", WINDOWS)
def test_offsets_beyond_32_bits(window: str) -> None:
    """Vectors 2^30 elements apart, in memory that is never touched in between."""
    T, D, step, MAP_NORESERVE = 5, 8, 1 << 30, 0x4000
    case = Case(window=window, T=T, R=1, chunk_length=8).possible()
    inputs = make_inputs(case, seed=0).to(torch.float32)
    near = {name: getattr(inputs, name)[:1, :1] for name in ("q", "k", "v", "grad_out")}
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    far = {}
    for name, tensor in near.items():
        memory = mmap.mmap(-1, 4 * (step * (T - 1) + D), flags=flags)
        storage = torch.frombuffer(memory, dtype=torch.float32)
        far[name] = storage.as_strided((1, 1, T, D), (0, 0, step, 1)).copy_(tensor)
    buckets = {name: getattr(inputs, name)[:1, :1] for name in ("q_buckets", "k_buckets")}
    expected, actual = (
        attend_and_differentiate(case, replace(inputs, **x, **buckets), "triton") for x in (near, far)
    )
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


class TestPlan:
    """Ranges of slots, against the reference's counts."""

    @pytest.mark.parametrize("case", [shrink(case) for case in pairwise_cases(seed=1)], ids=str)
    def test_queries_see_what_the_reference_says(self, case: Case) -> None:
        inputs = make_inputs(case, seed=0)
        C, (before, after), mask = case.chunk_length, case.look, inputs.key_padding_mask
        tile = 16
        (B, H, Tq), Tk = inputs.q.shape[:3], case.T
        if case.window == "bucket":
            plan = bucket_plan(
                [(inputs.q_buckets, inputs.k_buckets)],
                mask,
                own=case.buckets != "separate",
                before=before * C,
                after=after * C,
                causal=case.causal,
                tile=tile,
            )
        elif case.window == "chunk":
            plan = chunk_plan(inputs.k_buckets, mask, chunk_length=C, before=before, after=after, tile=tile)
        else:
            plan = local_plan(
                Tq,
                Tk,
                B * H,
                mask,
                chunk_length=C,
                before=before,
                after=after,
                causal=case.causal,
                tile=tile,
                device=inputs.q.device,
            )
        expected = window_counts(replace(case, causal=case.causal and case.window != "chunk"), inputs)
        expected = expected.expand(B, H, *expected.shape[2:]).flatten(0, 1)
        for n, r, i in torch.cartesian_prod(*map(torch.arange, plan.queries.shape)).tolist():
            counts = torch.zeros(Tk, dtype=torch.int64)
            num_real = int(plan.num_real[n])
            for slot in range(int(plan.lo[n, r, i]), int(plan.hi[n, r, i])):
                turn, place = divmod(slot, num_real) if plan.wraps else (r, slot)
                counts[plan.keys[n, turn % case.R, place]] += 1
                if not plan.wraps:
                    assert plan.first_viewer[n, r, slot // tile] <= i < plan.stop_viewer[n, r, slot // tile]
            assert torch.equal(counts, expected[n, r, plan.queries[n, r, i]])
        assert (plan.first_viewer <= plan.stop_viewer).all()
        for x in (plan.keys, plan.queries):
            everything = torch.arange(x.shape[2], dtype=torch.int32).expand_as(x)
            assert torch.equal(x.sort().values, everything)


class TestHash:
    """Against the portable path; ids may differ only where two products are as good as equal."""

    @pytest.mark.parametrize("num_buckets", [66, (2, 10, 130), 1])
    @pytest.mark.parametrize("D", [24, 200])
    def test_equals_portable_path(self, D: int, num_buckets: int | tuple[int, ...]) -> None:
        g = torch.Generator().manual_seed(D)
        factors = (num_buckets,) if isinstance(num_buckets, int) else num_buckets
        width = 0 if factors == (1,) else sum(factors) // 2
        x = torch.randn(2, 70, 3 * D, generator=g).unflatten(-1, (3, D)).transpose(1, 2)
        rotations = torch.randn(3, D, 2, width, generator=g)
        mask = torch.rand(2, 70, generator=g) > 0.3
        expected = lsh_hash(x, rotations, num_buckets, padding_mask=mask, backend="torch")
        actual = lsh_hash(x, rotations, num_buckets, padding_mask=mask, backend="triton")
        assert actual.dtype == expected.dtype
        assert (actual != expected).float().mean() < 2e-3

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_small_integers_are_exact_and_ties_go_to_the_first(self, dtype: torch.dtype) -> None:
        g = torch.Generator().manual_seed(0)
        x = torch.randint(-2, 3, (1, 2, 100, 8), generator=g).to(dtype)
        rotations = torch.randint(-1, 2, (2, 8, 3, 50), generator=g).float()
        for factors in (100, (20, 80)):
            expected = lsh_hash(x, rotations, factors, backend="torch")
            assert torch.equal(lsh_hash(x, rotations, factors, backend="triton"), expected)

    @pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
    def test_nan_gets_some_bucket(self) -> None:
        x = torch.full((1, 1, 3, 8), torch.nan)
        buckets = lsh_hash(x, torch.randn(1, 8, 2, 4), 8, backend="triton")
        assert ((buckets >= 0) & (buckets < 8)).all()


class TestChoice:
    """Nothing is tried and silently replaced."""

    @pytest.mark.parametrize(
        ("q", "reason"),
        [
            (torch.zeros(1, 1, 4, 8, dtype=torch.float64), "float64"),
            (torch.zeros(1, 1, 4, 264), "head size 264"),
            (torch.zeros(1, 1, 4, 8, device="meta"), "on meta"),
        ],
    )
    def test_says_why_it_cannot_run(self, q: Tensor, reason: str) -> None:
        with pytest.raises(NotImplementedError, match=reason):
            lsh_attention(q, q, q, Q_BUCKETS, backend="triton")
        with pytest.raises(NotImplementedError, match=reason):
            lsh_hash(q, torch.zeros(1, q.shape[-1], 1, 2), 4, backend="triton")

    def test_on_a_cpu_only_the_interpreter_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("TRITON_INTERPRET")
        q = torch.zeros(1, 1, 4, 8)
        with pytest.raises(NotImplementedError, match='backend "triton" cannot run here: tensors are on cpu'):
            local_attention(q, q, q, backend="triton")

    def test_without_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(support, "_IS_INSTALLED", False)
        q = torch.zeros(1, 1, 4, 8)
        with pytest.raises(NotImplementedError, match="triton is not installed"):
            local_attention(q, q, q, backend="triton")

    def test_auto_leaves_cpu_tensors_to_the_cpu(self, caplog: pytest.LogCaptureFixture) -> None:
        ops_attention._log_choice.cache_clear()
        with caplog.at_level(logging.INFO, logger="reformer"):
            local_attention(*[torch.zeros(1, 1, 4, 8)] * 3)
        assert ["triton" in record.message for record in caplog.records] == [False]

    @pytest.mark.parametrize(("lacks", "expected"), [(None, "triton"), ("too old", "torch")])
    def test_auto_gives_gpu_tensors_to_triton(
        self, lacks: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Tensors that pretend to be on a GPU, of which nothing but the capability is asked."""
        monkeypatch.delenv("TRITON_INTERPRET")
        monkeypatch.setattr(support, "_lacks", lambda device: lacks)
        with FakeTensorMode():
            q = torch.empty(1, 1, 4, 12, device="cuda", dtype=torch.bfloat16)
            assert ops_attention._choose("auto", q, q, q, num_slots=8) == expected
            q = q.double()
            assert ops_attention._choose("auto", q, q, q, num_slots=8) == "torch"

    def test_the_package_does_not_import_triton(self) -> None:
        code = "import sys, reformer.ops.triton.attention, reformer.ops.triton.hashing\n"
        code += "assert not any(name.startswith('reformer.ops.triton.kernels.') for name in sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)

    @pytest.mark.parametrize(("precision", "expected"), [("highest", "ieee"), ("high", "tf32")])
    def test_tf32_only_where_torch_is_allowed_it(self, precision: str, expected: str) -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(precision)
        try:
            assert support.float32_precision() == expected
        finally:
            torch.set_float32_matmul_precision(before)


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
class TestCompile:
    @pytest.fixture(autouse=True)
    def _fresh(self) -> Iterator[None]:
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("op", ["bucket", "chunk", "local", "level"])
    def test_one_graph_and_the_same_results(self, op: str) -> None:
        g = torch.Generator().manual_seed(0)
        q, k, v, grad = (torch.randn(1, 1, 40, 8, generator=g) for _ in range(4))
        rotations = torch.randn(1, 8, 2, 4, generator=g)

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if op == "local":
                return local_attention(q, k, v, chunk_length=16, backend="triton")
            if op == "level":
                buckets = [lsh_hash(q[:, :, :end], rotations, 8, backend="triton") for end in (32, 40)]
                return lsh_attention_by_level(q, k, v, buckets, chunk_length=16, backend="triton")
            buckets = lsh_hash(q, rotations, 8, backend="triton")
            return lsh_attention(q, k, v, buckets, chunk_length=16, window=op, backend="triton")

        results = []
        for function in (attend, torch.compile(attend, fullgraph=True, backend="aot_eager")):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            out = function(*leaves)
            results.append([out, *torch.autograd.grad(out, leaves, grad)])
        for eager, compiled in zip(*results, strict=True):
            assert torch.equal(eager, compiled)

    def test_operators_are_well_defined(self) -> None:
        g = torch.Generator().manual_seed(0)
        q, k, v = (torch.randn(1, 1, 20, 8, generator=g, requires_grad=True) for _ in range(3))
        buckets = torch.randint(3, (1, 1, 2, 20), generator=g)
        plan = chunk_plan(buckets, None, chunk_length=8, before=1, after=0, tile=32)
        options = (plan.level_keys, plan.wraps, 32, True, True, False, 0.1, 5)
        torch.library.opcheck(operators._attention, (q, k, v, *operators._tensors_of(plan), *options))
        x, rotations = torch.randn(1, 2, 20, 8, generator=g), torch.randn(2, 8, 2, 4, generator=g)
        torch.library.opcheck(hashing.hash_vectors, (x, rotations, [8], None))


def compiled_kernels(
    dtype: str, D: int, options: dict[str, bool], precision: str = "ieee"
) -> list[dict[str, int]]:
    """What the compiler says of each kernel, with the tiles and warps that it is launched with."""
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    q = torch.zeros(1, 1, 1, D, dtype=torch_dtype)
    attention = {
        "dtype": dtype,
        "num_warps": operators._num_warps(q, q),
        "D": D,
        "DV": D,
        "PADDED_D": support.padded_size(D),
        "PADDED_DV": support.padded_size(D),
        "TILE": operators._tile_length(q, q, 64),
        "PRECISION": precision,
        **options,
    }
    tile, columns = hashing._tile_of(D)
    hash_options = {"TILE": tile, "COLUMNS": columns, "WIDEST": 128, "MASKED": True, "PRECISION": "tf32x3"}
    jobs = [attention | {"kernel": k} for k in ("forward", "backward of queries", "backward of keys")]
    size = {"D": D, "PADDED_D": support.padded_size(D)}
    jobs.append({"kernel": "hash", "dtype": dtype, "num_warps": 4, **size, **hash_options})
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.ops.compile_kernels", *map(json.dumps, jobs)]
    output = subprocess.run(command, check=True, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    return json.loads(output.stdout.splitlines()[-1])


PLAIN = {"WRAPS": False, "CHECK_CAUSAL": False, "PENALIZE_SELF": False, "DUPLICATES": False, "DROPOUT": False}
ALL = dict.fromkeys(PLAIN, True)
SHARED_BYTES = 227 * 1024  # that a block may have on an H100


class TestCompiler:
    """The compiler refuses much that the interpreter takes; both kernels and their resources are checked."""

    @pytest.mark.parametrize(("dtype", "D", "options"), [("bf16", 64, PLAIN), ("fp32", 24, ALL)])
    def test_compiles_for_a_gpu(self, dtype: str, D: int, options: dict[str, bool]) -> None:
        self.check(dtype, D, options, "ieee")

    @pytest.mark.slow
    @pytest.mark.parametrize("options", [PLAIN, ALL], ids=["plain", "all"])
    @pytest.mark.parametrize("D", [16, 128, 256])
    @pytest.mark.parametrize(
        ("dtype", "precision"), [("fp32", "ieee"), ("fp32", "tf32"), ("bf16", "ieee"), ("fp16", "ieee")]
    )
    def test_compiles_for_a_gpu_in_every_size(
        self, dtype: str, precision: str, D: int, options: dict[str, bool]
    ) -> None:
        self.check(dtype, D, options, precision)

    def check(self, dtype: str, D: int, options: dict[str, bool], precision: str) -> None:
        for kernel in compiled_kernels(dtype, D, options, precision):
            assert kernel["shared_bytes"] <= SHARED_BYTES
            assert kernel["tensor_cores"] or (dtype == "fp32" and precision == "ieee")
            assert not kernel["atomics"]
