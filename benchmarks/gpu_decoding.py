"""Decoding on a GPU: a token at a time, and by replaying a CUDA graph."""

import time
from typing import Any

import torch
from torch import Tensor

from reformer import ReformerConfig, ReformerForCausalLM
from reformer.models.cache import ReformerCache
from reformer.models.replay import Replay

CONTEXT, NUM_TOKENS = 32_768, 400
MODEL: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 256,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "feed_forward_size": 512,
    "attn_layers": ["local", "lsh"] * 3,
    "max_num_buckets": 256,
    "position_embedding_type": "rotary",
    "is_decoder": True,
}


def decoding() -> dict[str, Any]:
    """Milliseconds per token, and how far apart the logits of the two ways are."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = ReformerForCausalLM(ReformerConfig(**MODEL)).eval()
    ids = torch.randint(256, (1, CONTEXT + NUM_TOKENS), device="cuda")
    cache = ReformerCache(model.reformer.encoder)
    with torch.no_grad():
        model(ids[:, :CONTEXT], past_key_values=cache, logits_to_keep=1)
        forks = {"plain": cache.forked(1), "replayed": cache.forked(1)}
        forks["replayed"].replay = replay = Replay()
        logits, milliseconds = {}, {}
        for name, fork in forks.items():
            logits[name], milliseconds[name] = _decode(model, fork, ids[:, CONTEXT:])
    error = float((logits["plain"] - logits["replayed"]).abs().max())
    print(f"decoding: {milliseconds} ms per token, logits differ by {error:.1e}", flush=True)
    return {
        "milliseconds_per_token": milliseconds,
        "logits_differ_by": error,
        "num_recorded": replay.num_recorded,
        "context": CONTEXT,
    }


def _decode(model: ReformerForCausalLM, cache: ReformerCache, ids: Tensor) -> tuple[Tensor, float]:
    logits = []
    for i, token in enumerate(ids.unbind(1)):
        if i == 16:  # the first tokens compile, and record
            torch.cuda.synchronize()
            start = time.perf_counter()
        logits.append(model(token[:, None], past_key_values=cache).logits[:, 0])
    torch.cuda.synchronize()
    return torch.stack(logits, dim=1), (time.perf_counter() - start) * 1e3 / (ids.shape[1] - 16)
