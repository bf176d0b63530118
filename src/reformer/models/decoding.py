"""The layers of a causal model over new tokens only, with a cache of those before: no gradients, no seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from reformer.layers.attention import Attention
from reformer.layers.chunking import fill_by_chunks, row_chunks
from reformer.layers.decoding import LayerCache, NextToken
from reformer.layers.feed_forward import FeedForward
from reformer.layers.residuals import FRACTION_BITS, LIMIT, FixedPoint
from reformer.layers.reversible import ReversibleStack
from reformer.models.cache import ReformerCache


def run_with_cache(
    stack: ReversibleStack, x: Tensor, mask: Tensor | None, cache: ReformerCache, num_last: int
) -> Tensor:
    """Pass new tokens through the layers, and put them into the cache.

    Args:
        stack: of a causal model, in evaluation mode.
        x: embeddings `[B, S, d]` of the new tokens.
        mask: bool `[B, S]`, True where a real token is; real tokens come first.
        cache: of what was read before; changed in place.
        num_last: how many positions to return, from the last; 0 for all.

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
            hidden = _read_one(stack, x[:, 0], cache)[:, None]
        else:
            hidden = _read_many(stack, x, mask, cache, num_last)
    read = [S] * B if mask is None else mask.sum(1).tolist()
    cache.lengths = [n + m for n, m in zip(cache.lengths, read, strict=True)]
    cache.columns += S
    return hidden.clone()  # an ordinary tensor again


def _read_many(
    stack: ReversibleStack, x: Tensor, mask: Tensor | None, cache: ReformerCache, num_last: int
) -> Tensor:
    """Layer by layer; what is position-wise goes chunk by chunk."""
    residual, dtype, size = stack.residual, x.dtype, stack.chunk_length
    stream1, stream2 = residual.encode(x), residual.encode(x)
    del x
    rows1, rows2 = stream1.flatten(0, 1), stream2.flatten(0, 1)
    overflows = []
    for layer, layer_cache in zip(stack.layers, cache.layers, strict=True):
        attention, feed_forward = _branches(layer)
        mixed = _mix(attention, layer_cache, stream2, mask, cache.lengths, stack, dtype).flatten(0, 1)
        for _, chunk in row_chunks(len(rows1), size):
            overflows.append(residual.add_(rows1[chunk], attention.project_out(mixed[chunk], None)))
        del mixed
        for _, chunk in row_chunks(len(rows1), size):
            update = feed_forward(residual.decode(rows1[chunk], dtype), None)
            overflows.append(residual.add_(rows2[chunk], update))
        _raise_if(torch.stack(overflows).any(), layer_cache, cache)
        overflows = []
    streams = [stream[:, -num_last:] if num_last else stream for stream in (stream1, stream2)]
    return torch.cat([residual.decode(stream, dtype) for stream in streams], dim=-1)


def _mix(
    attention: Attention,
    layer_cache: LayerCache,
    stream2: Tensor,
    mask: Tensor | None,
    lengths: list[int],
    stack: ReversibleStack,
    dtype: torch.dtype,
) -> Tensor:
    """What a layer's attention makes of the second stream `[B, S, d]`: `[B, S, H * D]`."""
    rows = stream2.flatten(0, 1)
    projections = fill_by_chunks(
        len(rows),
        stack.chunk_length,
        lambda _, chunk: attention.project_in(stack.residual.decode(rows[chunk], dtype), None),
    )
    q, k, v = attention._heads(*(p.view(*stream2.shape[:2], -1) for p in projections))
    del projections
    return layer_cache.extend(q, k, v, mask, lengths).transpose(1, 2).flatten(2)


def _read_one(stack: ReversibleStack, x: Tensor, cache: ReformerCache) -> Tensor:
    """One token `[B, d]` of each row.

    Streams of int32 are kept as whole numbers in float64 here: the same numbers, in fewer operations.
    """
    token = NextToken(cache.lengths, x.device)
    exact, dtype = isinstance(stack.residual, FixedPoint), x.dtype
    wide = torch.promote_types(dtype, torch.float32)
    scale = 2.0**FRACTION_BITS

    def units(update: Tensor) -> Tensor:
        return update.to(wide).mul(scale).round_() if exact else update

    def value(stream: Tensor) -> Tensor:
        return stream.to(wide).mul(1 / scale).to(dtype) if exact else stream.to(dtype)

    stream1 = units(x).to(torch.float64 if exact else wide)
    stream2 = stream1.clone()
    B = len(x)
    for layer, layer_cache in zip(stack.layers, cache.layers, strict=True):
        attention, feed_forward = _branches(layer)
        H = attention.self_attention.num_heads
        q, k, v = (p.view(B, H, -1) for p in attention.project_in(value(stream2), None))
        mixed = layer_cache.step(q, k, v, token)
        stream1 += units(attention.project_out(mixed.flatten(1), None))
        stream2 += units(feed_forward(value(stream1), None))
    hidden = torch.cat([stream1, stream2], dim=-1)
    if not hidden.abs().amax() < (LIMIT * scale if exact else torch.inf):
        raise FloatingPointError(
            f"position {max(cache.lengths)}: a residual stream left [-{LIMIT:g}, {LIMIT:g}), or is NaN"
        )
    return value(hidden)


def _branches(layer: torch.nn.Module) -> tuple[Attention, FeedForward]:
    return layer.attention, layer.feed_forward  # type: ignore[return-value]


def _raise_if(overflow: Tensor, layer_cache: LayerCache, cache: ReformerCache) -> None:
    if overflow:
        raise FloatingPointError(
            f"layer {cache.layers.index(layer_cache)}: a residual stream left [-{LIMIT:g}, {LIMIT:g}), "
            "or a branch gave NaN"
        )
