"""Kinds of attention as modules: levels, rotations, weights, padding."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.layers.attention import (
    MAX_ATTENTIONS_LENGTH,
    Attention,
    AttentionShape,
    FullSelfAttention,
    LSHSelfAttention,
    SelfAttention,
    factors,
    orthonormal,
)
from tests.layers.stacks import ALL_KINDS, attention_kind, lsh_attention_layer

D = 8


def _shape(*, causal: bool = True, rope_theta: float | None = None, dropout: float = 0.0) -> AttentionShape:
    return AttentionShape(16, 2, D, causal=causal, dropout=dropout, rope_theta=rope_theta)


def _input(length: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, length, 16, generator=generator, dtype=torch.float64)


def _attention(kind: SelfAttention, *, dropout: float = 0.0) -> Attention:
    torch.manual_seed(0)
    attention = Attention(kind, dropout=dropout, layer_norm_eps=1e-12).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


class TestLevels:
    @staticmethod
    def _num_buckets_by_definition(position: int, chunk_length: int, bound: int) -> int:
        """`C * 2^j <= p < C * 2^(j+1)` has `2^(j+1)` buckets, one below C, never more than the bound."""
        if position < chunk_length:
            return 1
        level = 0
        while chunk_length * 2 ** (level + 1) <= position:
            level += 1
        return min(2 ** (level + 1), bound)

    @pytest.mark.parametrize("chunk_length", [1, 3, 16, 64])
    @pytest.mark.parametrize("bound", [1, 2, 8, 16384])
    def test_are_those_of_the_definition(self, chunk_length: int, bound: int) -> None:
        layer = lsh_attention_layer(_shape(), chunk_length=chunk_length, max_num_buckets=bound)
        wanted = [self._num_buckets_by_definition(p, chunk_length, bound) for p in range(1100)]
        for length in [*range(1, 70), *range(120, 140), 191, 192, 193, 255, 256, 257, 1000, 1024, 1025, 1100]:
            begin, found = 0, []
            for end, num_buckets in layer.levels(length):
                assert end > begin
                found += [num_buckets] * (end - begin)
                begin = end
            assert found == wanted[:length], length

    def test_a_million_tokens(self) -> None:
        layer = lsh_attention_layer(_shape(), chunk_length=64, max_num_buckets=16384)
        levels = layer.levels(1 << 20)
        assert levels[0] == (64, 1)
        assert levels[-1] == (1 << 20, 1 << 14)
        assert sum(end for end, _ in levels) < 2 << 20  # keys sorted over all levels
        assert layer.levels((1 << 22) + 1)[-2:] == [(1 << 19, 1 << 13), ((1 << 22) + 1, 1 << 14)]

    def test_a_prefix_has_the_levels_of_the_whole(self) -> None:
        layer = lsh_attention_layer(_shape(), chunk_length=16)
        whole = layer.levels(1000)
        for length in range(1, 1000):
            *inner, (end, num_buckets) = layer.levels(length)
            assert inner == whole[: len(inner)]
            assert end == length
            assert num_buckets == whole[len(inner)][1]


def test_lsh_attention_by_level_equals_a_loop_over_queries() -> None:
    layer = lsh_attention_layer(_shape(), chunk_length=8, num_hashes=3).double()
    T, window = 90, 8
    q, v = (torch.randn(1, 2, T, D, dtype=torch.float64, generator=_generator(i)) for i in range(2))
    k = q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(D)
    found = layer.attend([q, k, v], None, None)

    levels = layer.levels(T)
    assert len(levels) == 5
    begin = 0
    for level, (end, num_buckets) in enumerate(levels):
        found_factors = factors(num_buckets, D)
        buckets = layer._hash(q[:, :, :end], found_factors, level, None, None)
        assert len(buckets.unique()) == math.prod(found_factors)
        for h in range(2):
            for p in range(begin, end):
                seen = []
                for r in range(3):
                    own = buckets[0, h, r, p]
                    members = [s for s in range(p + 1) if buckets[0, h, r, s] == own]
                    seen += members[-1 - window :]
                scores = torch.stack(
                    [torch.tensor(-1e5) if s == p else q[0, h, p] @ k[0, h, s] for s in seen]
                )
                wanted = scores.double().softmax(0) @ v[0, h, seen]
                torch.testing.assert_close(found[0, h, p], wanted, rtol=1e-9, atol=1e-11)
        begin = end


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("head_size", [16, 48, 64, 65, 128])
@pytest.mark.parametrize("power", range(15))
def test_factors_are_even_and_multiply_to_about_the_number(power: int, head_size: int) -> None:
    found = factors(1 << power, head_size)
    assert 0.65 * 2**power <= math.prod(found) <= 1.125 * 2**power
    assert all(n % 2 == 0 for n in found) or found == (1,)
    assert max(found) <= 144


@pytest.mark.parametrize(("head_size", "largest"), [(48, 13), (64, 16), (128, 14)])
def test_factors_of_large_heads_take_hardly_more_columns_than_are_orthonormal(
    head_size: int, largest: int
) -> None:
    for power in range(1, largest + 1):
        assert sum(factors(1 << power, head_size)) <= 2 * head_size + 10


class TestRotations:
    def test_in_evaluation_are_those_of_the_hash_seed(self) -> None:
        x = _input(50)
        outputs = []
        for seed in (0, 0, 1):
            attention = _attention(lsh_attention_layer(_shape(), num_buckets=8, hash_seed=seed))
            outputs.append(attention(x, None))
        assert torch.equal(outputs[0], outputs[1])
        assert not torch.equal(outputs[0], outputs[2])

    def test_in_training_are_those_of_the_seed(self) -> None:
        attention = _attention(lsh_attention_layer(_shape(), num_buckets=8))
        x = _input(50)
        assert torch.equal(attention(x, 1), attention(x, 1))
        assert not torch.equal(attention(x, 1), attention(x, 2))
        assert not torch.equal(attention(x, 1), attention(x, None))

    @pytest.mark.parametrize("width", [1, 5, 8, 13, 24])
    def test_have_orthonormal_columns_as_many_at_a_time_as_there_are_features(self, width: int) -> None:
        rotations = orthonormal(torch.randn(2, D, 3, width, generator=_generator(0)))
        assert rotations.shape == (2, D, 3, width)
        assert rotations.dtype == torch.float32
        columns = rotations.transpose(1, 2)
        for block in columns.split(D, dim=-1):
            wanted = torch.eye(block.shape[-1]).expand(2, 3, -1, -1)
            torch.testing.assert_close(block.mT @ block, wanted, rtol=0, atol=1e-6)

    def test_of_a_level_do_not_depend_on_the_length(self) -> None:
        layer = lsh_attention_layer(_shape(), chunk_length=8).double()
        q = torch.randn(1, 2, 200, D, dtype=torch.float64, generator=_generator(0))
        k = q * (q.square().mean(-1, keepdim=True) + 1e-6).rsqrt() / math.sqrt(D)
        whole = layer.attend([q, k, q], None, None)
        for length in (1, 15, 16, 17, 63, 64, 65, 130):
            part = layer.attend([x[:, :, :length] for x in (q, k, q)], None, None)
            torch.testing.assert_close(part, whole[:, :, :length], rtol=1e-9, atol=1e-12)

    def test_numbers_of_buckets_follow_the_real_tokens(self) -> None:
        for window, wanted in (("bucket", [1, 1, 2, 8, 64]), ("chunk", [1, 2, 4, 16, 128])):
            layer = lsh_attention_layer(_shape(causal=False), window=window, max_num_buckets=1 << 14)
            assert [layer._choose_num_buckets(n * 16) for n in (0, 1, 2, 8, 64)] == wanted
            layer.max_num_buckets = 4
            assert layer._choose_num_buckets(1000) == 4


@pytest.mark.parametrize("causal", [True, False])
def test_keys_are_queries_of_unit_length(causal: bool) -> None:
    layer = lsh_attention_layer(_shape(causal=causal)).double()
    q, k, _ = layer.project(_input(30))
    q, k = (x.view(2, 30, 2, D) for x in (q, k))
    torch.testing.assert_close(k.norm(dim=-1), torch.ones(2, 30, 2, dtype=torch.float64), rtol=1e-3, atol=0)
    torch.testing.assert_close(torch.cosine_similarity(q, k, dim=-1), torch.ones_like(k[..., 0]))


def test_keys_of_large_float16_queries_have_unit_length() -> None:
    layer = lsh_attention_layer(_shape()).half()
    torch.nn.init.constant_(layer.query_key.weight, 50.0)
    _, k, _ = layer.project(torch.ones(1, 3, 16, dtype=torch.float16))
    torch.testing.assert_close(k.view(3, 2, D).float().norm(dim=-1), torch.ones(3, 2), rtol=1e-2, atol=0)


def _kinds(causal: bool, rope_theta: float | None = None) -> list[Any]:
    shape = _shape(causal=causal, rope_theta=rope_theta)
    kinds = [attention_kind(kind, shape) for kind in ALL_KINDS]
    for window in ("bucket", "chunk"):
        kinds.append(lsh_attention_layer(shape, window=window, num_buckets=[2, 4]))
    return kinds


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("index", range(5))
class TestWeights:
    def test_sum_to_one_and_give_the_output(self, index: int, causal: bool) -> None:
        attention = _attention(_kinds(causal, 100.0)[index])
        x = _input(70)
        weights = attention.weights(x, None)
        assert weights.shape == (2, 2, 70, 70)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 70, dtype=torch.float64))
        assert (weights >= 0).all()
        mixed = (weights @ attention.heads(attention.project_in(x, None))[2]).transpose(1, 2).flatten(2)
        torch.testing.assert_close(attention.output(mixed), attention(x, None), rtol=1e-9, atol=1e-11)

    def test_are_zero_where_nothing_may_be_seen(self, index: int, causal: bool) -> None:
        attention = _attention(_kinds(causal)[index])
        mask = torch.arange(70) < torch.tensor([[70], [33]])
        weights = attention.weights(_input(70), None, mask)
        assert not weights[1, :, :33, 33:].any()
        if causal:
            assert not weights.triu(1).any()
        else:
            assert weights[0].triu(1).any()

    def test_in_training_are_those_of_the_forward(self, index: int, causal: bool) -> None:
        kind = _kinds(causal)[index]
        kind.shape = _shape(causal=causal, dropout=0.3)
        attention = _attention(kind)
        x = _input(40)
        mixed = (
            (attention.weights(x, 5) @ attention.heads(attention.project_in(x, None))[2])
            .transpose(1, 2)
            .flatten(2)
        )
        torch.testing.assert_close(attention.output(mixed), attention(x, 5), rtol=1e-9, atol=1e-11)
        assert not torch.allclose(attention(x, 5), attention(x, 6))


def test_weights_of_long_inputs_are_an_error() -> None:
    attention = _attention(FullSelfAttention(_shape()))
    with pytest.raises(ValueError, match=f"T must be at most {MAX_ATTENTIONS_LENGTH}, got 2049"):
        attention.weights(torch.zeros(1, MAX_ATTENTIONS_LENGTH + 1, 16, dtype=torch.float64), None)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("index", range(5))
def test_padding_behind_changes_nothing(index: int, causal: bool) -> None:
    attention = _attention(_kinds(causal, 100.0)[index])
    lengths = [60, 33, 1]
    x = _input(60, batch=3)
    mask = torch.arange(60) < torch.tensor(lengths)[:, None]
    together = attention(x, None, mask)
    for row, length in enumerate(lengths):
        alone = attention(x[row : row + 1, :length], None)
        torch.testing.assert_close(together[row, :length], alone[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("index", range(3))
def test_growing_resolution_does_not_look_ahead(index: int) -> None:
    attention = _attention(_kinds(True)[index])
    x = _input(150)
    before = attention(x, None)
    x[:, 100] += 1
    after = attention(x, None)
    assert torch.equal(before[:, :100], after[:, :100])
    assert not torch.equal(before[:, 100:], after[:, 100:])


def test_hashing_looks_at_queries_before_rotary_positions() -> None:
    """The same vector at two places shares its bucket."""
    layer = lsh_attention_layer(_shape(rope_theta=10.0), num_buckets=16, num_hashes=4).double()
    assert isinstance(layer, LSHSelfAttention)
    x = _input(1)[:1].expand(1, 40, 16)
    attention = _attention(layer)
    weights = attention.weights(x, None)
    assert bool((weights[0, 0, 39, 23:39] > 0).all())
