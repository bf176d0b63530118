"""Attention to what followed the like of the last tokens, and the convolution that makes contexts."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from reformer import ReformerConfig, ReformerForCausalLM
from reformer.layers import causal_convolution as convolution
from reformer.layers.attention import AttentionShape, factors
from reformer.layers.causal_convolution import causal_convolution
from reformer.layers.induction import InductionSelfAttention
from reformer.training.mutated_copies import MutatedCopies

H, D = 2, 8


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _config(induction_length: int) -> ReformerConfig:
    """Of one LSH layer that reads four letters."""
    return ReformerConfig(
        vocab_size=4,
        hidden_size=64,
        num_attention_heads=2,
        attention_head_size=32,
        feed_forward_size=64,
        attn_layers=["lsh"],
        num_hashes=2,
        position_embedding_type="rotary",
        is_decoder=True,
        hidden_dropout_prob=0.0,
        lsh_induction_length=induction_length,
    )


def _layer(induction_length: int, *, num_buckets: int | None = None) -> InductionSelfAttention:
    layer = InductionSelfAttention(
        AttentionShape(16, H, D, causal=True, dropout=0.0),
        window="bucket",
        chunk_length=8,
        num_chunks_before=1,
        num_chunks_after=0,
        num_hashes=2,
        num_buckets=num_buckets,
        max_num_buckets=64,
        hash_seed=3,
        induction_length=induction_length,
    ).double()
    layer.taps.data = _random(induction_length, H, D, seed=7)
    return layer


class TestConvolution:
    @staticmethod
    def _by_definition(x: Tensor, weight: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for t in range(x.shape[2]):
            for i in range(min(len(weight), t + 1)):
                out[:, :, t] += weight[i] * x[:, :, t - i]
        return out

    @pytest.mark.parametrize("in_memory", ["heads first", "positions first"])
    @pytest.mark.parametrize("chunk_numel", [1, 200, 1 << 18])
    @pytest.mark.parametrize("T", [1, 3, 4, 5, 30])
    def test_is_the_definition(
        self, T: int, chunk_numel: int, in_memory: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Output and gradients, in chunks of one position, of several and of all."""
        monkeypatch.setattr(convolution, "_CHUNK_NUMEL", chunk_numel)
        weight = _random(4, H, D, seed=1).requires_grad_()
        x = _random(3, H, T, D)
        if in_memory == "positions first":
            x = x.transpose(1, 2).contiguous().transpose(1, 2)
        x.requires_grad_()
        found, wanted = causal_convolution(x, weight), self._by_definition(x, weight)
        assert (found - wanted).abs().max() < 1e-12
        grad = _random(3, H, T, D, seed=2)
        leaves = (x, weight)
        for one, other in zip(
            torch.autograd.grad(found, leaves, grad), torch.autograd.grad(wanted, leaves, grad), strict=True
        ):
            assert (one - other).abs().max() < 1e-12
        of_transforms = convolution._by_conv1d(x.transpose(1, 2), weight).transpose(1, 2)
        assert (of_transforms - wanted).abs().max() < 1e-12

    def test_16_bits_are_summed_in_float32(self) -> None:
        weight = _random(24, H, D).float()
        x = _random(1, H, 50, D, seed=1).bfloat16()
        found = causal_convolution(x, weight)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, causal_convolution(x.float(), weight).bfloat16())


@pytest.mark.parametrize("num_buckets", [None, 4])
@pytest.mark.parametrize("n", [2, 3])
def test_equals_a_loop_over_queries(n: int, num_buckets: int | None) -> None:
    """A query sees the last keys of its own bucket; the key of a token is the query of the one before."""
    layer, T, window = _layer(n, num_buckets=num_buckets), 90, 8
    parts, v = _random(1, H, T, D), _random(1, H, T, D, seed=1)
    found = layer.attend([parts, v], None, None)
    q = TestConvolution._by_definition(parts, layer.taps - layer.taps.mean(0))
    before = torch.cat([torch.zeros_like(q[:, :, :1]), q[:, :, :-1]], dim=2)
    k = before * (before.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(D)

    num_alone = 0
    for p in range(T):
        level = 0 if num_buckets else layer.level_of(p)
        of_level = (num_buckets,) if num_buckets else factors(1 << level, D)
        ids = layer._hash(torch.cat([q, before], dim=2), of_level, level, None, None)
        for h in range(H):
            logits, values = [], []
            for r in range(2):
                own, keys = ids[0, h, r, p], ids[0, h, r, T : T + p + 1]
                for j in [j for j in range(p + 1) if keys[j] == own][-window - 1 :]:
                    logits.append(q[0, h, p] @ k[0, h, j])
                    values.append(v[0, h, j])
            num_alone += not logits
            wanted = torch.zeros(D, dtype=torch.float64)
            if logits:
                wanted = torch.stack(logits).softmax(0) @ torch.stack(values)
            assert (found[0, h, p] - wanted).abs().max() < 1e-10, (p, h)
    assert num_alone < T


def test_what_all_tokens_have_in_common_plays_no_part() -> None:
    layer = _layer(3)
    parts, common = _random(1, H, 40, D), _random(1, H, 1, D, seed=1)
    found, wanted = layer.contexts(parts + common), layer.contexts(parts)
    assert (found - wanted)[:, :, 2:].abs().max() < 1e-12


def test_nothing_alike_gives_nothing() -> None:
    """In a bucket of its own, a query sees no key, not even the one at its place."""
    layer = _layer(2, num_buckets=4)
    parts = torch.zeros(1, H, 2, D, dtype=torch.float64)
    parts[:, :, 1] = _random(D)
    ids = layer._buckets(layer.contexts(parts), None, None)
    assert (ids[..., 1] != 0).any(), "some query must be told from nothing"
    mixed = layer.attend([parts, torch.ones_like(parts)], None, None)
    seen = (ids[..., 1] == 0).any(2)  # the key of the second token is that of zeros, in bucket 0
    assert torch.equal(mixed[:, :, 1, 0], seen.double())
    assert not seen.all(), "some head must see nothing"


def test_new_models_find_what_followed() -> None:
    """Before any training, most of the weight is on the token behind the last occurrence of the context."""
    torch.manual_seed(0)
    model = ReformerForCausalLM(_config(16)).eval()
    ids = torch.randint(4, (1, 500))
    ids = torch.cat([ids, torch.randint(4, (1, 300)), ids], dim=1)
    with torch.no_grad():
        weights = model(ids, output_attentions=True).attentions[0][0]
    here = torch.arange(820, 1299)  # the context was read once before, 800 tokens ago
    assert weights[:, here, here - 799].mean() > 0.9
    assert weights[:, torch.arange(400, 800)].max(-1).values.mean() < 0.8


@pytest.mark.parametrize(("n", "lowest", "highest"), [(12, 0.8, 1.6), (0, 1.95, 2.1)])
def test_is_learnt_from_changed_copies(n: int, lowest: float, highest: float) -> None:
    """Bits per token of copies of random bases, 2 each by themselves; the paper's attention cannot copy."""
    torch.manual_seed(0)
    model = ReformerForCausalLM(_config(n)).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    copies, bases, bits = MutatedCopies(1.0, seed=0), np.random.default_rng(0), []
    for step in range(30):
        rows = [bases.integers(4, size=512).astype(np.uint8) for _ in range(4)]
        rows = [copies.for_training(row, 4 * step + i) for i, row in enumerate(rows)]
        ids = torch.from_numpy(np.stack(rows).astype(np.int64))
        nats = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, :-1].mT, ids[:, 1:], reduction="none"
        )
        nats.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        bits.append(nats[:, 280:].mean().item() / math.log(2))
    assert lowest < sum(bits[-15:]) / 15 < highest


def test_is_kept_when_saved(tmp_path: object) -> None:
    config = ReformerConfig(
        vocab_size=8, attn_layers=["lsh", "local"], hidden_size=32, num_attention_heads=2,
        attention_head_size=16, feed_forward_size=32, position_embedding_type="rotary", is_decoder=True,
        lsh_induction_length=6,
    )  # fmt: skip
    model = ReformerForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    again = ReformerForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.randint(8, (1, 200))
    with torch.no_grad():
        assert torch.equal(model(ids).logits, again(ids).logits)
