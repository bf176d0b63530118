"""Random numbers that can be drawn again: every draw belongs to a seed.

A forward pass in training draws one number from torch's global generator; all that is random in it
derives from that number, so that the backward pass can repeat it without touching any global state.
Evaluation has no seed (None) and draws nothing.
"""

import torch
from torch import Tensor

_MASK_63 = (1 << 63) - 1


def draw_seed() -> int:
    """Draw a seed from torch's global generator."""
    return int(torch.randint(_MASK_63, ()))


def derive(seed: int, *labels: int) -> int:
    """A seed of its own for everything that has labels of its own, in [0, 2^63)."""
    for label in labels:
        seed = seed * 0xD6E8FEB86659FD93 + label + 1 & _MASK_63
        seed = (seed ^ seed >> 31) * 0xBF58476D1CE4E5B9 & _MASK_63
        seed = (seed ^ seed >> 31) * 0x94D049BB133111EB & _MASK_63
    return seed ^ seed >> 31


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for a seed."""
    return torch.Generator(device).manual_seed(seed)


def dropout(x: Tensor, rate: float, seed: int | None) -> Tensor:
    """Zero elements with probability `rate` and scale up the rest; the identity without a seed."""
    if seed is None or rate == 0:
        return x
    kept = torch.empty_like(x).bernoulli_(1 - rate, generator=generator(seed, x.device))
    return x * kept.div_(1 - rate)


def move(x: Tensor, device: torch.device) -> Tensor:
    """Copy a new tensor from the CPU to a device, without waiting for what the device is busy with."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)
