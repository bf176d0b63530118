"""What is position-wise, by the compiled kernels, next to torch in float64."""

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from reformer.layers.residuals import FRACTION_BITS, FixedPoint, FloatingPoint
from reformer.ops import position_wise
from reformer.ops.cpu import library
from reformer.ops.position_wise import add_, can_add, layer_norm

UNIT = 2.0**FRACTION_BITS
SHAPES = [(1, 16), (3, 32), (1_000, 48), (2, 301, 256), (517, 1_024)]
DTYPES = [torch.float32, torch.bfloat16]
instruction_sets = pytest.mark.parametrize("instruction_set", range(len(library.instruction_sets)))
needs_kernels = pytest.mark.skipif(not library.instruction_sets, reason="the kernels are not compiled")


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(position_wise, "_kernels_take", lambda *_: False)


def norm_inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weight, bias = torch.randn(2, shape[-1])
    return torch.randn(shape) * 3 + torch.randn((*shape[:-1], 1)) * 10, weight, bias


def gradients(out: Tensor, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(out, inputs, grad.to(out.dtype))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@needs_kernels
@instruction_sets
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_next_to_float64(
    shape: tuple[int, ...], dtype: torch.dtype, instruction_set: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "instruction_set", instruction_set)
    inputs = tuple(x.requires_grad_() for x in norm_inputs(shape))
    out = layer_norm(*inputs, 1e-5, dtype)
    assert type(out.grad_fn).__name__ == "_LayerNormBackward", "the kernels were not used"
    wide = tuple(x.detach().double().requires_grad_() for x in inputs)
    wanted = F.layer_norm(wide[0], shape[-1:], *wide[1:], 1e-5)
    assert out.dtype == dtype
    assert relative_error(out.detach(), wanted.detach()) < (1e-6 if dtype == torch.float32 else 4e-3)
    grad = torch.randn(shape).to(dtype)
    for found, of_wanted in zip(gradients(out, inputs, grad), gradients(wanted, wide, grad), strict=True):
        assert found.dtype == torch.float32
        assert relative_error(found, of_wanted) < 2e-6


@needs_kernels
def test_bfloat16_is_float32_rounded_once() -> None:
    inputs = norm_inputs((300, 64))
    wide, narrow = (layer_norm(*inputs, 1e-5, dtype) for dtype in DTYPES)
    assert torch.equal(narrow, wide.bfloat16())


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_the_number_of_threads(dtype: torch.dtype) -> None:
    inputs = tuple(x.requires_grad_() for x in norm_inputs((3_001, 96)))
    grad = torch.randn(3_001, 96)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            out = layer_norm(*inputs, 1e-5, dtype)
            results.append((out, *gradients(out, inputs, grad)))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], result, strict=True))


@needs_kernels
def test_nan_stays_in_its_row() -> None:
    x, weight, bias = norm_inputs((9, 32))
    x[4, 7] = torch.nan
    out = layer_norm(x, weight, bias, 1e-5, torch.bfloat16)
    assert out[4].isnan().all()
    assert out[torch.arange(9) != 4].isfinite().all()


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 24), torch.float32), ((0, 32), torch.float32), ((5, 32), torch.float64)]
)
def test_what_kernels_do_not_take_goes_to_torch(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias = torch.randn(shape, dtype=dtype), *torch.randn(2, shape[-1], dtype=dtype)
    wanted = F.layer_norm(x, shape[-1:], weight, bias, 1e-12)
    assert torch.equal(layer_norm(x, weight, bias, 1e-12, dtype), wanted)


def test_functional_transforms_go_through() -> None:
    x, weight, bias = norm_inputs((4, 32))
    found = torch.func.grad(lambda x: layer_norm(x, weight, bias, 1e-5, torch.float32).square().sum())(x)
    (wanted,) = gradients(
        layer_norm(x.requires_grad_(), weight, bias, 1e-5, torch.float32).square().sum(),
        (x,),
        torch.ones(()),
    )
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)


UPDATES = {
    "small": lambda shape: torch.randn(shape) * 2**-19,
    "ordinary": lambda shape: torch.randn(shape),
    "large": lambda shape: torch.randn(shape) * 300,
    "halves": lambda shape: (torch.arange(shape[0] * shape[1]).view(shape) - 500 + 0.5) / UNIT,
    "above": lambda shape: torch.full(shape, 2047.99),
    "at the end": lambda shape: torch.full(shape, 2048.0),
    "at the beginning": lambda shape: torch.full(shape, -2048.0),
    "not a number": lambda shape: torch.full(shape, torch.nan),
    "infinite": lambda shape: torch.full(shape, -torch.inf),
}


@needs_kernels
@instruction_sets
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_point_adds_what_torch_adds(
    name: str, dtype: torch.dtype, instruction_set: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    update = UPDATES[name]((700, 64)).to(dtype)
    begin = torch.randint(-(2**20), 2**20, update.shape, dtype=torch.int32)
    monkeypatch.setattr(library, "instruction_set", instruction_set)
    found, wanted = begin.clone(), begin.clone()
    assert can_add(found, update)
    overflow = FixedPoint().add_(found, update)
    with monkeypatch.context() as patch:
        patch.setattr(position_wise, "can_add", lambda *_: False)
        assert torch.equal(FixedPoint().add_(wanted, update), overflow)
    assert overflow or torch.equal(found, wanted)
    FixedPoint().subtract_(found, update)
    assert torch.equal(found, begin)


@needs_kernels
@pytest.mark.parametrize(("value", "wraps"), [(1.0, True), (1.0 - 2.0**-10, True), (-1.0, False)])
def test_a_sum_that_leaves_the_range_of_int32_is_told(value: float, wraps: bool) -> None:
    stream = torch.full((40, 32), 2**31 - 2**19, dtype=torch.int32)
    stream[:39] = 0
    assert bool(add_(stream, torch.full((40, 32), value), unit=UNIT)) is not wraps


@needs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_floating_point_adds_and_takes_off(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    stream, update = torch.randn(333, 48), torch.randn(333, 48).to(dtype)
    found = stream.clone()
    assert not FloatingPoint().add_(found, update)
    assert torch.equal(found, stream + update)
    FloatingPoint().subtract_(found, update)
    assert torch.equal(found, stream + update - update)
    update[-1, -1] = torch.inf
    assert FloatingPoint().add_(found, update)


@needs_kernels
def test_streams_that_kernels_do_not_take() -> None:
    stream = torch.zeros(4, 32)
    assert not can_add(stream.double(), torch.ones(4, 32))
    assert not can_add(stream, torch.ones(4, 32).double())
    assert not can_add(stream[:, ::2], torch.ones(4, 16))
    assert not can_add(stream, torch.ones(32))


@pytest.mark.usefixtures("without_kernels")
def test_streams_without_kernels() -> None:
    stream = torch.zeros(4, 32, dtype=torch.int32)
    assert not FixedPoint().add_(stream, torch.full((4, 32), 1.5))
    assert (stream == 1.5 * UNIT).all()


@needs_kernels
def test_tracing_sees_what_is_done() -> None:
    x, weight, bias = norm_inputs((6, 32))
    stream = torch.zeros(6, 32)

    def step() -> Tensor:
        update = layer_norm(x, weight, bias, 1e-5, torch.float32)
        add_(stream, update)
        return update

    graph = make_fx(step)()
    stream.zero_()
    x.neg_()
    wanted = F.layer_norm(x, (32,), weight, bias, 1e-5)
    torch.testing.assert_close(graph(), wanted)
    torch.testing.assert_close(stream, wanted)


@needs_kernels
def test_operators_are_what_torch_demands() -> None:
    x, weight, bias = norm_inputs((6, 32))
    out, moments = torch.ops.reformer.cpu_layer_norm(x, weight, bias, 1e-5, torch.bfloat16)
    for name, arguments in {
        "cpu_layer_norm": (x, weight, bias, 1e-5, torch.bfloat16),
        "cpu_layer_norm_backward": (out, x, weight, moments),
        "cpu_add_": (torch.zeros(6, 32, dtype=torch.int32), x, UNIT, False),
    }.items():
        torch.library.opcheck(
            getattr(torch.ops.reformer, name), arguments, test_utils=("test_schema", "test_faketensor")
        )
