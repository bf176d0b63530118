"""Attention dropout whose mask is a function of positions, not of the order of computation."""

import torch
from torch import Tensor


def keep_mask(seed: Tensor, rate: float) -> Tensor:
    """Decide for each element, from its own seed alone, whether dropout keeps it.

    The same (round, row, query, key) gets the same answer in every tiling, in the backward pass and in
    the reference. The mixing is a 32-bit finalizer of the "triple shift, double multiply" kind
    (constants found by C. Wellons, "Prospecting for hash functions", 2018).

    Args:
        seed: int32, any shape: see `position_seed`.
        rate: probability of dropping, in [0, 1).

    Returns:
        bool, the shape of `seed`, True with probability 1 - rate.
    """
    x = seed.clone()
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x7FEB352D)
    x.bitwise_xor_((x >> 15).bitwise_and_(0x1FFFF)).mul_(0x846CA68B - (1 << 32))
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
    return x >= round(rate * 2**32) - 2**31


def position_seed(seed: int, round_index: int, row: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """Combine a seed, a hash round and integer tensors that broadcast (row = b * H + h) to int32."""
    mixed = (row * 1000003 + round_index) * 0x27D4EB2F + seed
    mixed = (mixed ^ (query * 0x165667B1)) * 0x2545F491
    return _low_32_bits(mixed) ^ _low_32_bits(key * 0x9E3779B1)


def _low_32_bits(x: Tensor) -> Tensor:
    return (((x & 0xFFFFFFFF) ^ (1 << 31)) - (1 << 31)).to(torch.int32)
