"""What a layer does to each vector by itself, besides matrix products, in one pass over memory.

On a CPU with compiled kernels; elsewhere in torch.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from reformer.ops.cpu import AddProblem, NormProblem, library
from reformer.ops.transforms import inside_transform

_LANES = 16  # the kernels take whole vectors of any instruction set


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer normalisation (Ba et al. 2016), computed in the dtype of x and rounded once.

    Args:
        x: `[..., d]`, floating.
        weight: `[d]`.
        bias: `[d]`.
        eps: added to the variance.
        dtype: of the result.

    Returns:
        `[..., d]`.
    """
    if _kernels_take(x, dtype) and x.dtype == weight.dtype == bias.dtype == torch.float32:
        return _LayerNorm.apply(x, weight, bias, eps, dtype)  # type: ignore[no-any-return]
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps).to(dtype)


def can_add(stream: Tensor, update: Tensor) -> bool:
    """Whether `add_` takes these: contiguous, of the same shape."""
    return (
        _kernels_take(update, torch.float32)
        and stream.dtype in (torch.float32, torch.int32)
        and stream.is_contiguous()
        and update.is_contiguous()
        and stream.shape == update.shape
    )


def add_(stream: Tensor, update: Tensor, *, unit: float = 0.0, subtract: bool = False) -> Tensor:
    """Add to a stream in place; tells as a bool scalar whether all sums are finite and in range.

    Args:
        stream: float32 or int32; see `can_add`.
        update: float32 or bfloat16, without gradient.
        unit: of an int32 stream, how many of it make 1: the update is rounded to the nearest.
        subtract: take off what was added.
    """
    return _OPS.cpu_add_(stream, update, unit, subtract)  # type: ignore[no-any-return]


def _kernels_take(x: Tensor, dtype: torch.dtype) -> bool:
    floats = torch.float32, torch.bfloat16
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in floats
        and dtype in floats
        and x.shape[-1] % _LANES == 0
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not inside_transform()
        and not isinstance(library.functions, str)
    )


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        out, moments = _OPS.cpu_layer_norm(x, weight, bias.contiguous(), eps, dtype)
        ctx.save_for_backward(x, weight, moments)
        return out  # type: ignore[no-any-return]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_x, grad_parameters = _OPS.cpu_layer_norm_backward(grad.contiguous(), *ctx.saved_tensors)
        return grad_x, *grad_parameters, None, None


# Operators that tracing sees. By torch.library.custom_op, which takes less code, a call would take as long
# as the work on a chunk.
_library = torch.library.Library("reformer", "FRAGMENT")
_library.define(
    "cpu_layer_norm(Tensor x, Tensor weight, Tensor bias, float eps, ScalarType dtype) -> (Tensor, Tensor)"
)
_library.define(
    "cpu_layer_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor moments) -> (Tensor, Tensor)"
)
_library.define("cpu_add_(Tensor(a!) stream, Tensor update, float unit, bool subtract) -> Tensor")
_OPS = torch.ops.reformer


def _layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The result, and of each vector its mean and 1 / its standard deviation."""
    out, moments = _layer_norm_results(x, weight, bias, eps, dtype)
    problem = _norm_problem(x, weight, moments, dtype, epsilon=eps, bias=bias.data_ptr(), out=out.data_ptr())
    library.run("layer_norm", ctypes.byref(problem))
    return out, moments


def _layer_norm_backward(grad: Tensor, x: Tensor, weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of weight and bias `[2, d]`."""
    grad_x, grad_parameters = _layer_norm_gradients(grad, x, weight, moments)
    problem = _norm_problem(
        x, weight, moments, grad.dtype,
        grad=grad.data_ptr(), grad_x=grad_x.data_ptr(), grad_parameters=grad_parameters.data_ptr(),
    )  # fmt: skip
    library.run("layer_norm", ctypes.byref(problem))
    return grad_x, grad_parameters


def _add(stream: Tensor, update: Tensor, unit: float, subtract: bool) -> Tensor:
    problem = AddProblem(
        update.numel(), update.dtype == torch.bfloat16, subtract, unit, stream.data_ptr(), update.data_ptr()
    )
    library.run("add", ctypes.byref(problem))
    return torch.tensor(bool(problem.is_within))


def _layer_norm_results(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x, dtype=dtype), x.new_empty(*x.shape[:-1], 2)


def _layer_norm_gradients(grad: Tensor, x: Tensor, weight: Tensor, moments: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(2, x.shape[-1])


for _name, _function, _fake in (
    ("cpu_layer_norm", _layer_norm, _layer_norm_results),
    ("cpu_layer_norm_backward", _layer_norm_backward, _layer_norm_gradients),
    ("cpu_add_", _add, lambda stream, *_: stream.new_empty((), dtype=torch.bool)),
):
    _library.impl(_name, _function, "CPU")
    torch.library.register_fake(f"reformer::{_name}", _fake, lib=_library)


def _norm_problem(
    x: Tensor, weight: Tensor, moments: Tensor, dtype: torch.dtype, **others: float
) -> NormProblem:
    return NormProblem(
        moments.numel() // 2,
        x.shape[-1],
        dtype == torch.bfloat16,
        x=x.data_ptr(),
        weight=weight.data_ptr(),
        moments=moments.data_ptr(),
        **others,
    )
