"""What one would use instead of LSH attention of ours, each held to what it is meant to compute."""

import math
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reformer.bench.case import Contender, Run, Unavailable, largest_error
from reformer.bench.op import (
    GATE_LENGTH,
    C,
    D,
    H,
    R,
    Step,
    error_against,
    factors,
    make_inputs,
    measured,
)
from reformer.layers.shared_keys import shared_keys
from reformer.ops import local_attention, lsh_attention, lsh_hash

EXACT = 1e-4
ALONE = 2e-2  # a score of -1e5 in float32 rounds the weights of a query that sees only itself
WINDOW = R * C  # chunks of the sliding window: with the chunk before, as many keys a query as R rounds show


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention by torch."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)


def dense_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Full attention by its definition."""
    T = q.shape[2]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    return (q @ k.mT).masked_fill(later, -math.inf).softmax(-1) @ v


def sliding_window(length: int) -> Step:
    """Chunks that see themselves and the chunk before, by torch's full attention on overlapping pieces."""
    chunk = min(WINDOW, length)
    position = torch.arange(chunk)[:, None] + chunk
    seen = torch.arange(2 * chunk) <= position
    first = seen & (torch.arange(2 * chunk) >= chunk)
    mask = torch.cat([first[None], seen[None].expand(length // chunk - 1, -1, -1)])[:, None]

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries = q[0].unflatten(1, (-1, chunk)).transpose(0, 1)  # [chunks, H, chunk, D]
        keys, values = (
            torch.nn.functional.pad(x[0], (0, 0, chunk, 0)).unfold(1, 2 * chunk, chunk).permute(1, 0, 3, 2)
            for x in (k, v)
        )
        out = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
        return out.transpose(0, 1).flatten(1, 2)[None]

    return step


def transformers_layer(length: int) -> Any:
    """The layer of transformers with the rotations of seed 0."""
    from transformers import ReformerConfig
    from transformers.models.reformer.modeling_reformer import LSHSelfAttention

    num_buckets = list(factors(2 * length // C))
    config = ReformerConfig(
        hidden_size=H * D,
        num_attention_heads=H,
        attention_head_size=D,
        num_hashes=R,
        lsh_attn_chunk_length=C,
        num_buckets=num_buckets if len(num_buckets) > 1 else num_buckets[0],
        is_decoder=True,
        lsh_attention_probs_dropout_prob=0.0,
        hash_seed=0,
        max_position_embeddings=length,
    )
    return LSHSelfAttention(config).train()


def transformers_step(layer: Any) -> Step:
    """Takes the queries for the layer's input, and makes keys and values of it."""

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        hidden = q.transpose(1, 2).flatten(2)
        return layer(hidden).hidden_states.unflatten(-1, (H, D)).transpose(1, 2)

    return step


def gate_transformers() -> float:
    """With projections that change nothing it is LSH attention with values that are the queries."""
    layer = transformers_layer(GATE_LENGTH)
    for linear in (layer.query_key, layer.value):
        torch.nn.init.eye_(linear.weight)
    num_buckets = 2 * GATE_LENGTH // C
    torch.manual_seed(0)
    rotations = torch.randn(H, D, R, num_buckets // 2)
    (q, _, _), _ = make_inputs(GATE_LENGTH)
    buckets = lsh_hash(q, rotations, num_buckets, backend="torch")

    def expected(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return lsh_attention(
            q, shared_keys(q), q, buckets, chunk_length=C, window="chunk", backend="reference"
        )

    return error_against(expected, transformers_step(layer))


def prepare_reformer_pytorch(length: int) -> Step:
    """Its attention without the layer around it: T / C buckets, not factorised, the same for all heads."""
    from reformer_pytorch import LSHAttention

    attention = LSHAttention(bucket_size=C, n_hashes=R, causal=True)

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(q.flatten(0, 1), v.flatten(0, 1))[0].unflatten(0, (1, H))

    return step


def gate_reformer_pytorch() -> float:
    """Scores are divided by the root of the head size once more, and one rotation serves all heads."""
    num_buckets = GATE_LENGTH // C
    step = prepare_reformer_pytorch(GATE_LENGTH)
    (q, _, _), _ = make_inputs(GATE_LENGTH)
    torch.manual_seed(0)
    rotations = torch.randn(1, D, R, num_buckets // 2).expand(H, -1, -1, -1)
    buckets = lsh_hash(q, rotations, num_buckets, backend="torch")

    def expected(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys = shared_keys(q) / D**0.5
        return lsh_attention(q, keys, v, buckets, chunk_length=C, window="chunk", backend="reference")

    def actual(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        torch.manual_seed(0)
        return step(q, k, v)

    return error_against(expected, actual)


def prepare_flex(length: int) -> Run:
    """FlexAttention: full causal attention, compiled. On a CPU it has no backward pass."""
    step = flex_step(length)
    inputs = [x.detach() for x in make_inputs(length)[0]]

    def run() -> dict[str, float]:
        start = time.perf_counter()
        step(*inputs)
        return {"forward_seconds": time.perf_counter() - start}

    return run


def flex_step(length: int) -> Step:
    """Compiled at its first call."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    compiled = torch.compile(flex_attention)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, length, length, device="cpu")

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        try:
            return compiled(q, k, v, block_mask=mask, scale=1.0)
        except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
            raise Unavailable(f"FlexAttention does not compile here: {str(error).splitlines()[0]}") from error

    return step


@torch.no_grad()
def gate_flex() -> float:
    """Against full attention by its definition."""
    q, k, v = (x.detach() for x in make_inputs(GATE_LENGTH)[0])
    return largest_error(flex_step(GATE_LENGTH)(q, k, v), dense_attention(q.double(), k.double(), v.double()))


def _gate_window() -> float:
    expected = partial(local_attention, chunk_length=WINDOW, backend="reference")
    return error_against(expected, sliding_window(GATE_LENGTH))


PEERS = {
    "sdpa": Contender(
        lambda length: measured(full_attention, length),
        lambda: error_against(dense_attention, full_attention),
        EXACT,
        note="full attention; given keys and values, as ours",
    ),
    "flex": Contender(
        prepare_flex, gate_flex, EXACT, note="full attention; forward alone: no backward pass on a CPU"
    ),
    "window": Contender(
        lambda length: measured(sliding_window(length), length),
        _gate_window,
        EXACT,
        note=f"a sliding window, no hashing: SDPA on chunks of {WINDOW} and the chunk before",
    ),
    "transformers": Contender(
        lambda length: measured(transformers_step(transformers_layer(length)), length),
        gate_transformers,
        ALONE,
        note="its layer also projects the input to queries and values, and scales the keys",
    ),
    "reformer-pytorch": Contender(
        lambda length: measured(prepare_reformer_pytorch(length), length),
        gate_reformer_pytorch,
        ALONE,
        package="reformer_pytorch",
        note="its LSHAttention also scales the keys, and has T / C buckets that are not factorised",
    ),
}
