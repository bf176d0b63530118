"""Whether and how the Triton kernels can run."""

import importlib.util
import os

import torch
from torch import Tensor

_IS_INSTALLED = importlib.util.find_spec("triton") is not None
_MAX_HEAD_SIZE = 256
_MAX_SLOTS = 1 << 30  # slots of sorted keys of one row, in all rounds: numbered by int32
_CAPABILITY = (8, 0)  # the first with bfloat16


def unsupported(*tensors: Tensor, num_slots: int = 0) -> str | None:
    """Why the Triton kernels cannot take these tensors `[B, H, T, D]`; None where they can.

    Args:
        tensors: of vectors, on one device.
        num_slots: key slots of a row in all rounds, and what a window reaches beyond them.
    """
    device = tensors[0].device
    if not _IS_INSTALLED:
        return "triton is not installed"
    kind = "cpu" if interpreted() else "cuda"
    if any(x.device.type != kind for x in tensors):
        return f"tensors are on {device}" + (
            ", and TRITON_INTERPRET=1 is for the CPU" if kind == "cpu" else ""
        )
    if kind == "cuda" and (reason := _lacks(device)) is not None:
        return reason
    if tensors[0].dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"tensors are {tensors[0].dtype}, not float32, bfloat16 or float16"
    for size in (x.shape[-1] for x in tensors):
        if not 0 < size <= _MAX_HEAD_SIZE:
            return f"head size {size} is not in 1 to {_MAX_HEAD_SIZE}"
    if num_slots > _MAX_SLOTS:
        return f"{num_slots} sorted keys are more than {_MAX_SLOTS}"
    return None


def interpreted() -> bool:
    """Whether the environment asks for Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def padded_size(size: int) -> int:
    """The power of two, at least 16 as tensor cores need, that holds a head size."""
    return max(16, 1 << (size - 1).bit_length())


def float32_precision() -> str:
    """How float32 products are made: exactly, or in tf32 where torch has been allowed the same.

    `torch.set_float32_matmul_precision("high")` or `"medium"` allows tf32 (10 bits of mantissa).
    """
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


@torch.compiler.assume_constant_result
def _lacks(device: torch.device) -> str | None:
    if torch.version.hip is not None:
        return "the kernels are written for NVIDIA's GPUs"
    if torch.cuda.get_device_capability(device) < _CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is older than compute capability 8.0"
    return None
