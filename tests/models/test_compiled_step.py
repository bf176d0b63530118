"""The compiled step of the decode cache against the one in torch's operations."""

from typing import Any

import pytest
import torch
from torch import Tensor

from reformer import ReformerForCausalLM
from reformer.models.cache import ReformerCache
from reformer.ops import cpu, cpu_decoding
from tests.models.small_models import build, tokens

pytestmark = pytest.mark.skipif(not cpu.library.instruction_sets, reason=str(cpu.library.functions))

CASES: dict[str, dict[str, Any]] = {
    "levels": {"num_hashes": 3, "lsh_attn_chunk_length": 8, "position_embedding_type": "rotary"},
    "one level": {"num_buckets": [4, 6], "num_hashes": 2, "lsh_attn_chunk_length": 4},
    "several factors": {"num_buckets": [34, 4, 2], "lsh_num_chunks_before": 2, "lsh_attn_chunk_length": 4},
    "only itself": {"num_buckets": 32, "lsh_num_chunks_before": 0, "local_num_chunks_before": 0},
    "induction": {"num_hashes": 2, "lsh_attn_chunk_length": 8, "lsh_induction_length": 5},
    "heads of 8": {"attention_head_size": 8, "num_attention_heads": 3, "position_embedding_type": "rotary"},
    "heads of 136": {"attention_head_size": 136, "num_attention_heads": 1},
}


@pytest.fixture(
    params=range(len(cpu.library.instruction_sets)), ids=lambda i: cpu.library.instruction_sets[i]
)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.library, "instruction_set", request.param)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", CASES)
def test_gives_the_same_and_leaves_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of different lengths, and so in different levels; induction's scores are large, and its errors."""
    tolerance = 1e-3 if case == "induction" else 1e-4
    model = build(ReformerForCausalLM, attn_layers=["local", "lsh", "lsh"], **CASES[case])
    ids, mask = tokens(3, 60, seed=1), torch.ones(3, 60).long()
    mask[1, :37], mask[2, :59] = 0, 0
    compiled = _read(model, ids, mask)
    in_torch = compiled.forked(1)
    calls = _count_calls(monkeypatch)
    found = _decode(model, compiled, 200)
    assert {"window_step", "bucket_step"} == set(calls)
    monkeypatch.setattr(cpu_decoding, "runs_on", lambda q: False)
    calls.clear()
    torch.testing.assert_close(found, _decode(model, in_torch, 200), rtol=0, atol=tolerance)
    assert not calls
    for one, other in zip(compiled.layers, in_torch.layers, strict=True):
        assert one.numbers == other.numbers
        for name, x in one.state.items():
            torch.testing.assert_close(x, other.state[name], rtol=0, atol=tolerance)


def test_threads_change_nothing() -> None:
    """A step that is large enough for two threads, against one row at a time, which is not."""
    threads = torch.get_num_threads()
    random = torch.Generator().manual_seed(0)
    B, H, D, L, C = 16, 8, 64, 256, 128
    q, k, v = torch.randn(3, B, H, D, generator=random)
    kv = torch.randn(B, H, L, 2 * D, generator=random)
    token = cpu_decoding.Token(q, k, v, torch.arange(B) * 100, None)
    torch.set_num_threads(2)
    try:
        whole = cpu_decoding.window_step(token, kv, chunk_length=C, chunks_before=1)
    finally:
        torch.set_num_threads(threads)
    for b in range(B):
        rows = slice(b, b + 1)
        alone = cpu_decoding.window_step(token.of(rows), kv[rows], chunk_length=C, chunks_before=1)
        assert torch.equal(whole[rows], alone)


def test_nan_is_found() -> None:
    model = build(ReformerForCausalLM, attn_layers=["lsh"])
    cache = _read(model, tokens(1, 20), torch.ones(1, 20).long())
    cache.layers[0].map_rows(lambda x: torch.full_like(x, torch.nan) if x.is_floating_point() else x)
    with pytest.raises(FloatingPointError, match="position 20"):
        _decode(model, cache, 1)


@torch.no_grad()
def _read(model: ReformerForCausalLM, ids: Tensor, mask: Tensor) -> ReformerCache:
    cache = ReformerCache(model.reformer.encoder)
    model(ids, mask, past_key_values=cache)
    return cache


@torch.no_grad()
def _decode(model: ReformerForCausalLM, cache: ReformerCache, num_tokens: int) -> Tensor:
    ids = tokens(len(cache.lengths), num_tokens, seed=2)
    return torch.stack([model(x[:, None], past_key_values=cache).logits[:, 0] for x in ids.unbind(1)], dim=1)


def _count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("window_step", "bucket_step"):
        step = getattr(cpu_decoding, name)

        def count(*args: Any, name: str = name, step: Any = step, **options: Any) -> Tensor:
            calls.append(name)
            return step(*args, **options)

        monkeypatch.setattr(cpu_decoding, name, count)
    return calls
