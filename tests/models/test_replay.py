"""Steps that are recorded once and replayed: what a CUDA graph does, here with operations that fx traces."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from reformer import ReformerForCausalLM
from reformer.models.cache import ReformerCache
from reformer.models.replay import Replay
from reformer.ops import cpu_decoding
from tests.models.small_models import build, tokens


@pytest.fixture(autouse=True)
def in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_decoding, "runs_on", lambda q: False)


def traced(cache: ReformerCache) -> Callable[[Callable[[], Tensor]], Callable[[], Tensor]]:
    """A recorder for the steps of a cache, which tracing changes and this puts back."""

    def record(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        tensors = [tensor for layer in cache.layers for tensor in layer.tensors()]
        before = [tensor.clone() for tensor in tensors]
        graph = make_fx(function)()
        for tensor, value in zip(tensors, before, strict=True):
            tensor.copy_(value)
        return graph

    return record


def read(model: ReformerForCausalLM, ids: Tensor, mask: Tensor) -> ReformerCache:
    cache = ReformerCache(model.reformer.encoder)
    model(ids, mask, past_key_values=cache)
    return cache


def decode(model: ReformerForCausalLM, cache: ReformerCache, ids: Tensor) -> Tensor:
    return torch.stack([model(x[:, None], past_key_values=cache).logits[:, 0] for x in ids.unbind(1)], dim=1)


@torch.no_grad()
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"num_hashes": 3, "lsh_attn_chunk_length": 8, "position_embedding_type": "rotary"},
        {"num_buckets": [4, 6], "num_hashes": 2, "lsh_attn_chunk_length": 4},
        {"max_num_buckets": 4, "lsh_attn_chunk_length": 4},
        {"max_num_buckets": 4, "lsh_attn_chunk_length": 4, "lsh_induction_length": 5},
    ],
    ids=["levels", "factors", "last level", "induction"],
)
def test_replayed_steps_are_those_that_are_not(num_rows: int, options: dict[str, Any]) -> None:
    """Rows of different lengths, over levels, hashing for later levels, and making room."""
    model = build(ReformerForCausalLM, attn_layers=["local", "lsh", "lsh"], **options)
    ids, mask = tokens(num_rows, 60, seed=1), torch.ones(num_rows, 60).long()
    if num_rows > 1:
        mask[1, :37], mask[2, :59] = 0, 0
    cache = read(model, ids, mask)
    other = cache.forked(1)
    cache.replay = Replay(traced(cache))
    new = tokens(num_rows, 700, seed=2)
    torch.testing.assert_close(decode(model, cache, new), decode(model, other, new), rtol=0, atol=1e-6)
    assert 0 < cache.replay.num_recorded < 40
    for layer, plain in zip(cache.layers, other.layers, strict=True):
        assert layer.numbers == plain.numbers
        for name, x in layer.state.items():
            torch.testing.assert_close(x, plain.state[name], rtol=0, atol=1e-6)


@torch.no_grad()
def test_other_rows_are_recorded_anew() -> None:
    model = build(ReformerForCausalLM, attn_layers=["local", "lsh"])
    cache = read(model, tokens(2, 20), torch.ones(2, 20).long())
    cache.replay = Replay(traced(cache))
    decode(model, cache, tokens(2, 5))
    other = cache.forked(1)
    other.replay = None
    order = torch.tensor([1, 0])
    cache.reorder_cache(order)
    found = decode(model, cache, tokens(2, 5, seed=3))
    torch.testing.assert_close(found, decode(model, other, tokens(2, 5, seed=3)[order])[order])
    assert cache.replay.num_recorded == 2


@torch.no_grad()
def test_layers_that_grow_go_without() -> None:
    model = build(ReformerForCausalLM, attn_layers=["full", "lsh"])
    cache = read(model, tokens(1, 20), torch.ones(1, 20).long())
    cache.replay = Replay(traced(cache))
    decode(model, cache, tokens(1, 5))
    assert cache.replay.num_recorded == 0
