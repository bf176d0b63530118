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


def add_(stream: Tensor, update: Tensor, *, unit: float = 0.0, subtract: bool = False) -> bool:
    """Add to a stream in place; tells whether all sums are finite and in range.

    Args:
        stream: float32 or int32; see `can_add`.
        update: float32 or bfloat16.
        unit: of an int32 stream, how many of it make 1: the update is rounded to the nearest.
        subtract: take off what was added.
    """
    problem = AddProblem(
        update.numel(), update.dtype == torch.bfloat16, subtract, unit, stream.data_ptr(), update.data_ptr()
    )
    library.run("add", ctypes.byref(problem))
    return bool(problem.is_within)


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
        x, weight, bias = x.contiguous(), weight.contiguous(), bias.contiguous()
        moments = x.new_empty(*x.shape[:-1], 2)
        ctx.save_for_backward(x, weight, moments)
        ctx.dtype = dtype
        out = torch.empty_like(x, dtype=dtype)
        problem = _norm_problem(
            x, weight, moments, dtype, epsilon=eps, bias=bias.data_ptr(), out=out.data_ptr()
        )
        library.run("layer_norm", ctypes.byref(problem))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, moments = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_parameters = torch.empty_like(x), torch.empty(2, x.shape[-1])
        problem = _norm_problem(
            x, weight, moments, ctx.dtype,
            grad=grad.data_ptr(), grad_x=grad_x.data_ptr(), grad_parameters=grad_parameters.data_ptr(),
        )  # fmt: skip
        library.run("layer_norm", ctypes.byref(problem))
        return grad_x, *grad_parameters, None, None


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
