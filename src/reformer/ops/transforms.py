"""Whether one of torch.func's transforms is at work."""

import torch


def inside_transform() -> bool:
    """Whether torch.func.grad or the like is at work.

    Functions whose backward pass calls autograd again, and operators with registered gradients, cannot run
    inside of it: what would use them stores activations, and runs in plain torch.
    """
    return torch._C._are_functorch_transforms_active()
