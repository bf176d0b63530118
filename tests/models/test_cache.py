"""The decode cache against the parallel forward, which is the definition."""

import functools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

import reformer.layers.attention as attention_module
import reformer.layers.bucket_cache as bucket_cache_module
import reformer.layers.decoding as decoding_module
from reformer import ReformerForCausalLM
from reformer.models.cache import ReformerCache
from tests.models.small_models import build, tokens

LAYERS = [["local", "lsh"], ["lsh", "lsh"], ["lsh", "full"], ["lsh", "local", "lsh"], ["full", "local"]]


def _random_model(rng: random.Random, seed: int, **fixed: Any) -> ReformerForCausalLM:
    """Of any configuration; chunks are short, so that a few hundred tokens cross several levels."""
    choices = {
        "attn_layers": rng.choice(LAYERS),
        "num_attention_heads": rng.choice([1, 2, 3]),
        "lsh_attn_chunk_length": rng.choice([4, 8, 16, 64]),
        "local_attn_chunk_length": rng.choice([4, 8, 16]),
        "num_hashes": rng.choice([1, 2, 3]),
        "num_buckets": rng.choice([None, None, None, 8, [4, 6]]),
        "max_num_buckets": rng.choice([1, 4, 16, 16384]),
        "lsh_num_chunks_before": rng.choice([0, 1, 2]),
        "lsh_induction_length": rng.choice([0, 0, 2, 5]),
        "local_num_chunks_before": rng.choice([0, 1, 2]),
        "position_embedding_type": rng.choice(["rotary", "axial", "learned", "none"]),
        "axial_pos_shape": [32, 20],
        "max_position_embeddings": 640,
        "hash_seed": rng.randrange(1000),
        "residual": rng.choice(["int32", "float32"]),
    }
    return build(ReformerForCausalLM, seed=seed, **(choices | fixed))


def _left_padded(rng: random.Random, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
    ids, mask = tokens(batch_size, length, seed=rng.randrange(1000)), torch.ones(batch_size, length).long()
    for b in range(1, batch_size):
        mask[b, : rng.randrange(length)] = 0
    return ids, mask


@torch.no_grad()
def _largest_difference(
    model: ReformerForCausalLM, rng: random.Random, num_tokens: int = 256
) -> tuple[float, bool]:
    """Of the logits of a greedy decode from those of one parallel forward; and whether all tokens agree."""
    ids, mask = _left_padded(rng, rng.choice([1, 2, 3, 4]), rng.choice([1, 20, 90, 200]))
    found = model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=num_tokens,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    mask = torch.cat([mask, torch.ones(len(ids), num_tokens).long()], dim=1)
    whole = model(found.sequences, mask).logits[:, ids.shape[1] - 1 : -1]
    cached = torch.stack(found.logits, dim=1)
    same = torch.equal(whole.argmax(-1), found.sequences[:, ids.shape[1] :])
    return (cached - whole.float()).abs().max().item(), same


@pytest.mark.parametrize(
    ("first", "last"), [(0, 6), pytest.param(6, 200, marks=pytest.mark.slow)], ids=["6", "194"]
)
def test_decoding_is_the_parallel_forward(first: int, last: int) -> None:
    for number in range(first, last):
        rng = random.Random(number)
        model = _random_model(rng, number, lsh_induction_length=0)
        difference, same = _largest_difference(model, rng)
        assert difference < 1e-4, (number, model.config)
        assert same, (number, model.config)


@pytest.mark.parametrize(
    ("first", "last"), [(0, 6), pytest.param(6, 200, marks=pytest.mark.slow)], ids=["6", "194"]
)
def test_decoding_with_induction_is_the_parallel_forward(first: int, last: int) -> None:
    """In float64: the sharp scores of new contexts, and which bucket they fall in, show rounding."""
    for number in range(first, last):
        rng = random.Random(number)
        model = _random_model(
            rng, number, attn_layers=["lsh", "local", "lsh"], lsh_induction_length=2 + number % 7
        )
        difference, same = _largest_difference(model.double(), rng)
        assert difference < 1e-4, (number, model.config)
        assert same, (number, model.config)


@torch.no_grad()
def _read_in_pieces(
    model: ReformerForCausalLM, ids: Tensor, mask: Tensor | None, sizes: list[int]
) -> tuple[Tensor, ReformerCache]:
    """Logits of all tokens, read piece by piece."""
    cache, logits, start = ReformerCache(model.reformer.encoder), [], 0
    for size in sizes:
        piece = slice(start, start + size)
        out = model(ids[:, piece], None if mask is None else mask[:, piece], past_key_values=cache)
        logits.append(out.logits)
        start += size
    return torch.cat(logits, dim=1), cache


def _sizes(rng: random.Random, total: int) -> list[int]:
    """Of pieces: many of one token, some longer."""
    sizes: list[int] = []
    while sum(sizes) < total:
        sizes.append(min(rng.choice([1, 1, 1, 2, 7, 40]), total - sum(sizes)))
    return sizes


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_on_the_reference_in_float64(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (attention_module, bucket_cache_module, decoding_module):
        for name in ("lsh_attention", "lsh_attention_by_level", "local_attention"):
            if hasattr(module, name):
                op = functools.partial(getattr(module, name), backend="reference")
                monkeypatch.setattr(module, name, op)
    for number in range(count):
        rng = random.Random(1000 + number)
        model = _random_model(rng, number, residual="float32").double()
        ids, mask = _left_padded(rng, rng.choice([1, 3]), 200)
        found, _ = _read_in_pieces(model, ids, mask, _sizes(rng, 200))
        with torch.no_grad():
            wanted = model(ids, mask).logits
        assert (found - wanted)[mask.bool()].abs().max() < 1e-10, (number, model.config)


def test_padding_may_come_between_the_pieces() -> None:
    """Rows read different numbers of tokens in each piece."""
    for number in range(4):
        rng = random.Random(2000 + number)
        model = _random_model(rng, number, residual="float32").double()
        ids = tokens(3, 240, seed=number)
        mask = (torch.rand(3, 240, generator=torch.Generator().manual_seed(number)) < 0.7).long()
        found, cache = _read_in_pieces(model, ids, mask, [80, 1, 50, 1, 8, 100])
        with torch.no_grad():
            wanted = model(ids, mask).logits
        assert (found - wanted)[mask.bool()].abs().max() < 1e-10, (number, model.config)
        assert cache.lengths == mask.sum(1).tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"max_num_buckets": 4},
        {"num_buckets": 8, "num_hashes": 3},
        {"num_buckets": 8, "lsh_induction_length": 5},
    ],
)
def test_memory_is_bounded(options: dict[str, Any]) -> None:
    """The store of keys is used again, and what is in it stays right."""
    model = build(
        ReformerForCausalLM,
        attn_layers=["lsh", "local"],
        lsh_attn_chunk_length=4,
        residual="float32",
        **options,
    ).double()
    ids = tokens(2, 2500)
    _, early = _read_in_pieces(model, ids, None, [1] * 1000)
    found, late = _read_in_pieces(model, ids, None, [1] * 2500)
    assert late.num_bytes == early.num_bytes
    with torch.no_grad():
        torch.testing.assert_close(found, model(ids).logits, rtol=0, atol=1e-10)
    num_rings = model.config.num_hashes * (options.get("num_buckets") or 4) * (4 + 1)
    entries = late.layers[0].state["kv"].shape[2]
    assert entries <= num_rings + max(256, num_rings // 8)


@pytest.mark.parametrize("induction_length", [0, 4])
def test_rows_are_selected_and_repeated(induction_length: int) -> None:
    model = build(ReformerForCausalLM, residual="float32", lsh_induction_length=induction_length).double()
    ids, more = tokens(3, 50), tokens(6, 30, seed=2)
    with torch.no_grad():
        for prompt in (50, 3):
            _, cache = _read_in_pieces(model, ids[:, :prompt], None, [prompt])
            cache.batch_repeat_interleave(2)
            assert cache.batch_size == 6
            model(more[:, :10], past_key_values=cache)
            cache.reorder_cache(torch.tensor([5, 1, 1, 0, 2, 4]))
            order = [5, 1, 1, 0, 2, 4]
            rows = torch.cat([ids[:, :prompt].repeat_interleave(2, 0), more[:, :10]], dim=1)[order]
            found = [model(more[:, i : i + 1], past_key_values=cache).logits for i in range(10, 30)]
            wanted = model(torch.cat([rows, more[:, 10:]], dim=1)).logits[:, -20:]
            torch.testing.assert_close(torch.cat(found, dim=1), wanted, rtol=0, atol=1e-10)
            cache.batch_select_indices(torch.tensor([4]))
            assert (cache.batch_size, cache.lengths) == (1, [prompt + 30])
            cache.reset()
            assert (cache.batch_size, cache.num_bytes, cache.get_seq_length()) == (-1, 0, 0)


@pytest.mark.parametrize("induction_length", [0, 4])
@torch.no_grad()
def test_a_fork_goes_on_by_itself(induction_length: int) -> None:
    model = build(ReformerForCausalLM, lsh_induction_length=induction_length).double()
    ids, more = tokens(2, 40), tokens(4, 30, seed=2)
    cache = ReformerCache(model.reformer.encoder)
    model(ids, past_key_values=cache)
    fork = cache.forked(2)
    found = torch.cat([model(part, past_key_values=fork).logits for part in more.split([20, 1, 9], 1)], 1)
    model(more[:2, :1], past_key_values=cache)
    after = model(more[:2, 1:2], past_key_values=cache).logits
    whole = torch.cat([ids.repeat_interleave(2, 0), more], 1)
    torch.testing.assert_close(found, model(whole).logits[:, 40:])
    assert (cache.columns, fork.columns) == (42, 70)
    torch.testing.assert_close(after, model(torch.cat([ids, more[:2, :2]], 1)).logits[:, -1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_one_token_in_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    model = build(ReformerForCausalLM).to(dtype)
    ids, cache = tokens(1, 41), ReformerCache(model.reformer.encoder)
    model(ids[:, :40], past_key_values=cache)
    found = model(ids[:, 40:], past_key_values=cache).logits
    torch.testing.assert_close(found, model(ids).logits[:, 40:])


@pytest.mark.parametrize(
    ("num_buckets", "as_transformers"), [(None, False), (8, False), (None, True), (6, True)]
)
def test_window_chunk_gives_what_the_parallel_attention_gives_the_last_token(
    num_buckets: int | None, as_transformers: bool
) -> None:
    """In one layer: earlier outputs matter to no later one there."""
    model = build(
        ReformerForCausalLM,
        attn_layers=["lsh"],
        lsh_window="chunk",
        num_buckets=num_buckets,
        max_num_buckets=8,
        as_transformers=as_transformers,
        residual="float32",
    ).double()
    ids = tokens(2, 100)
    with torch.no_grad():
        for length in (70, 77, 99):
            read, cache = _read_in_pieces(model, ids[:, :length], None, [length - 6, 1, 5])
            prompt = model(ids[:, : length - 6]).logits
            torch.testing.assert_close(read[:, : length - 6], prompt, rtol=0, atol=1e-10)
            found = model(ids[:, length : length + 1], past_key_values=cache).logits[:, -1]
            wanted = model(ids[:, : length + 1]).logits[:, -1]
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_what_a_cache_cannot_do() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(2, 20)
    _, cache = _read_in_pieces(model, ids, None, [20])
    with pytest.raises(NotImplementedError, match="cannot forget"):
        cache.crop(-1)
    with pytest.raises(ValueError, match="past_key_values has 2 rows, the new tokens 3"):
        model(tokens(3, 1), past_key_values=cache)
    with pytest.raises(ValueError, match="need use_cache=False"):
        model(ids, labels=ids, use_cache=True)
    with pytest.raises(ValueError, match="stateful"):
        model.generate(ids[:1], assistant_model=model, max_new_tokens=3, do_sample=False)
    model.train()
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        model(ids[:, :1], past_key_values=cache)


def test_an_overflow_is_an_error() -> None:
    model = build(ReformerForCausalLM)
    _, cache = _read_in_pieces(model, tokens(1, 20), None, [20])
    with torch.no_grad():
        model.reformer.encoder.layers[1].feed_forward.output.dense.bias.fill_(3000.0)
        with pytest.raises(FloatingPointError, match="position 20"):
            model(tokens(1, 1), past_key_values=cache)
        with pytest.raises(FloatingPointError, match="layer 1"):
            model(tokens(1, 20), use_cache=True)
