"""The layers of a causal model over new tokens only, with a cache of those before: no gradients, no seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from reformer.layers.attention import Attention
from reformer.layers.chunking import fill_by_chunks, row_chunks
from reformer.layers.cross_attention import CrossAttention
from reformer.layers.decoding import LayerCache, NextToken
from reformer.layers.residuals import FRACTION_BITS, LIMIT, FixedPoint
from reformer.layers.reversible import ReversibleStack
from reformer.models.cache import ReformerCache


@dataclass(frozen=True)
class Memory:
    """What cross-attention is over: `states` `[B, S, m]`, and bool `mask` `[B, S]` of real tokens or None."""

    states: Tensor
    mask: Tensor | None


def run_with_cache(
    stack: ReversibleStack,
    x: Tensor,
    mask: Tensor | None,
    cache: ReformerCache,
    num_last: int,
    memory: Memory | None = None,
) -> Tensor:
    """Pass new tokens through the layers, and put them into the cache.

    Args:
        stack: of a causal model, in evaluation mode.
        x: embeddings `[B, S, d]` of the new tokens.
        mask: bool `[B, S]`, True where a real token is; real tokens come first.
        cache: of what was read before; changed in place.
        num_last: how many positions to return, from the last; 0 for all.
        memory: the same at every call; its keys and values are kept in the cache.

    Returns:
        The two streams side by side `[B, S or num_last, 2d]`, as `ReversibleStack.run` gives them.

    Raises:
        FloatingPointError: a stream left its range.
    """
    B, S, _ = x.shape
    if not cache.columns:
        cache.lengths = [0] * B
    with torch.inference_mode():  # an operation then costs less, and a step is made of many small ones
        if S == 1 and mask is None and cache.columns:
            hidden = _read_one(stack, x[:, 0], cache, memory)[:, None]
        else:
            hidden = _read_many(stack, x, mask, cache, num_last, memory)
    read = [S] * B if mask is None else mask.sum(1).tolist()
    cache.lengths = [n + m for n, m in zip(cache.lengths, read, strict=True)]
    cache.columns += S
    return hidden.clone()  # an ordinary tensor again


def _half_steps(stack: ReversibleStack, cache: ReformerCache) -> Iterator[tuple[int, LayerCache[Any], Any]]:
    """The number of a layer, its cache, a branch; branch n is added to stream n % 2 and reads the other."""
    for index, (layer, layer_cache) in enumerate(zip(stack.layers, cache.layers, strict=True)):
        for branch in layer.children():
            yield index, layer_cache, branch


def _read_many(
    stack: ReversibleStack,
    x: Tensor,
    mask: Tensor | None,
    cache: ReformerCache,
    num_last: int,
    memory: Memory | None,
) -> Tensor:
    """Branch by branch; what is position-wise goes chunk by chunk."""
    residual, dtype = stack.residual, x.dtype
    streams = residual.encode(x), residual.encode(x)
    del x

    def read(rows: Tensor) -> Tensor:
        return residual.decode(rows, dtype)

    for number, (index, layer_cache, branch) in enumerate(_half_steps(stack, cache)):
        source, target = streams[1 - number % 2], streams[number % 2].flatten(0, 1)
        mixed = None
        if isinstance(branch, Attention):
            projections = branch.heads(_projected(stack, branch.project_in, source, read))
            mixed = layer_cache.extend(projections, mask, cache.lengths).transpose(1, 2).flatten(2)
            del projections
        elif isinstance(branch, CrossAttention):
            (q,) = _projected(stack, branch.project_in, source, read)
            mixed = _attend_to_memory(branch, index, q, cache, memory)
        overflow = []
        rows = (source if mixed is None else mixed).flatten(0, 1)
        for _, chunk in row_chunks(len(rows), stack.chunk_length):
            update = (
                branch(read(rows[chunk]), None) if mixed is None else branch.project_out(rows[chunk], None)
            )
            overflow.append(residual.add_(target[chunk], update))
        if torch.stack(overflow).any():
            raise FloatingPointError(
                f"layer {index}: a residual stream left [-{LIMIT:g}, {LIMIT:g}), or a branch gave NaN"
            )
    return torch.cat([read(stream[:, -num_last:] if num_last else stream) for stream in streams], dim=-1)


def _projected(
    stack: ReversibleStack,
    project: Callable[[Tensor, None], tuple[Tensor, ...]],
    source: Tensor,
    read: Callable[[Tensor], Tensor],
) -> list[Tensor]:
    """What a branch projects of a stream `[B, S, d]`: `[B, S, H * D]` each."""
    rows = source.flatten(0, 1)
    projections = fill_by_chunks(
        len(rows), stack.chunk_length, lambda _, chunk: project(read(rows[chunk]), None)
    )
    return [p.view(*source.shape[:2], -1) for p in projections]


def _attend_to_memory(
    branch: CrossAttention, index: int, q: Tensor, cache: ReformerCache, memory: Memory | None
) -> Tensor:
    """What cross-attention makes of queries `[B, S, H * D]`; keys and values are projected once."""
    assert memory is not None
    if index not in cache.memory:
        cache.memory[index] = branch.project_memory(memory.states, None)
    return branch.attend([q, *cache.memory[index]], None, memory.mask)


def _read_one(stack: ReversibleStack, x: Tensor, cache: ReformerCache, memory: Memory | None) -> Tensor:
    """One token `[B, d]` of each row."""

    def step(x: Tensor, token: NextToken) -> Tensor:
        return _step(stack, x, token, cache, memory)

    for layer_cache in cache.layers:
        layer_cache.before_step()
    if cache.replay is None or not all(layer_cache.can_replay for layer_cache in cache.layers):
        hidden = step(x, NextToken(cache.lengths, x.device))
    else:
        tensors = [tensor for layer_cache in cache.layers for tensor in layer_cache.tensors()]
        tensors += [tensor for pair in cache.memory.values() for tensor in pair]
        hidden = cache.replay(step, x, cache.lengths, tensors)
    if not hidden.abs().amax() < (LIMIT if isinstance(stack.residual, FixedPoint) else torch.inf):
        raise FloatingPointError(
            f"position {max(cache.lengths)}: a residual stream left [-{LIMIT:g}, {LIMIT:g}), or is NaN"
        )
    for layer_cache in cache.layers:
        layer_cache.after_step([n + 1 for n in cache.lengths])
    return hidden.to(torch.promote_types(x.dtype, torch.float32)).to(x.dtype)


def _step(
    stack: ReversibleStack, x: Tensor, token: NextToken, cache: ReformerCache, memory: Memory | None
) -> Tensor:
    """Both streams `[B, 2d]` of one token `[B, d]` of each row, by operations that are the same for each.

    Streams of int32 are kept in float64 here, which holds their values exactly, in fewer operations.
    """
    exact, dtype, B = isinstance(stack.residual, FixedPoint), x.dtype, len(x)
    wide = torch.promote_types(dtype, torch.float32)
    scale = 2.0**FRACTION_BITS

    def add(stream: Tensor, update: Tensor) -> None:
        if exact:
            stream.add_(update.to(wide).mul(scale).round_(), alpha=1 / scale)
        else:
            stream.add_(update)

    stream = torch.zeros(x.shape, dtype=torch.float64 if exact else wide, device=x.device)
    add(stream, x)
    streams = stream, stream.clone()
    for number, (index, layer_cache, branch) in enumerate(_half_steps(stack, cache)):
        source = streams[1 - number % 2].to(wide).to(dtype)
        if isinstance(branch, Attention):
            H = branch.self_attention.num_heads
            projections = [p.view(B, H, -1) for p in branch.project_in(source, None)]
            update = branch.project_out(layer_cache.step(projections, token).flatten(1), None)
        elif isinstance(branch, CrossAttention):
            (q,) = branch.project_in(source[:, None], None)
            update = branch.project_out(_attend_to_memory(branch, index, q, cache, memory)[:, 0], None)
        else:
            update = branch(source, None)
        add(streams[number % 2], update)
    return torch.cat(streams, dim=-1)
