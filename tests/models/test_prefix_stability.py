"""A causal model with window "bucket" never looks ahead, and the paper's chunks do."""

import functools
import random
from collections.abc import Iterator

import pytest
import torch

import reformer.layers.attention as attention_module
from reformer import ReformerForCausalLM
from tests.models.small_models import VOCAB_SIZE, build, tokens

LAYERS = [["local", "lsh"], ["lsh", "lsh"], ["lsh", "full"], ["lsh", "local", "lsh"]]


def _random_models(
    count: int, seed: int, dtype: torch.dtype = torch.float32, **fixed: object
) -> Iterator[tuple[ReformerForCausalLM, random.Random]]:
    """Models of all kinds of configurations."""
    rng = random.Random(seed)
    for number in range(count):
        model = build(
            ReformerForCausalLM,
            seed=number,
            **{
                "attn_layers": rng.choice(LAYERS),
                "lsh_attn_chunk_length": rng.choice([4, 8, 16]),
                "local_attn_chunk_length": rng.choice([4, 8, 16]),
                "num_hashes": rng.choice([1, 2, 3]),
                "lsh_num_chunks_before": rng.choice([1, 2]),
                "lsh_induction_length": rng.choice([0, 0, 2, 6]),
                "local_num_chunks_before": rng.choice([0, 1, 2]),
                "position_embedding_type": rng.choice(["rotary", "axial", "learned", "none"]),
                "hash_seed": rng.randrange(1000),
                **fixed,
            },
        )
        yield model.to(dtype), rng


@torch.no_grad()
def _edits_that_show_before(model: ReformerForCausalLM, rng: random.Random, num_edits: int) -> int:
    """Change one token at a time; count the edits that change a bit of an earlier position's logits."""
    length = rng.choice([40, 80, 110])  # up to five levels
    x = tokens(1, length, seed=rng.randrange(1000))
    before = model(x).logits
    shown = 0
    for _ in range(num_edits):
        where = rng.randrange(1, length)
        edited = x.clone()
        edited[0, where] = (edited[0, where] + rng.randrange(1, VOCAB_SIZE)) % VOCAB_SIZE
        after = model(edited).logits
        assert not torch.equal(after[:, where], before[:, where])
        shown += not torch.equal(after[:, :where], before[:, :where])
    return shown


@pytest.mark.parametrize(
    ("num_models", "num_edits"), [(40, 5), pytest.param(100, 10, marks=pytest.mark.slow)], ids=["200", "1000"]
)
def test_no_edit_changes_an_earlier_output(num_models: int, num_edits: int) -> None:
    """Bitwise, in float32: a query's tile of keys holds nothing that comes after the query."""
    models = _random_models(num_models, seed=0)
    assert sum(_edits_that_show_before(model, rng, num_edits) for model, rng in models) == 0


@pytest.mark.parametrize("num_buckets", [8, [4, 6]])
def test_with_a_fixed_number_of_buckets(num_buckets: int | list[int]) -> None:
    """Bitwise in float64, where rounding to the streams' fixed point hides the order of summation.

    In float32 it does not: a tile may hold several buckets, and where a bucket begins in it depends on
    later tokens.
    """
    models = _random_models(8, seed=1, dtype=torch.float64, num_buckets=num_buckets)
    assert sum(_edits_that_show_before(model, rng, 4) for model, rng in models) == 0


def test_with_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lsh_attention", "lsh_attention_by_level", "local_attention"):
        op = getattr(attention_module, name)
        monkeypatch.setattr(attention_module, name, functools.partial(op, backend="reference"))
    for num_buckets in (None, 8):
        models = _random_models(4, seed=2, num_buckets=num_buckets)
        assert sum(_edits_that_show_before(model, rng, 4) for model, rng in models) == 0


def test_the_chunk_window_does_look_ahead() -> None:
    """What the tests above would see if the bucket window did: rotations are fixed in evaluation."""
    models = _random_models(6, seed=3, lsh_window="chunk", num_buckets=8, lsh_induction_length=0)
    assert sum(_edits_that_show_before(model, rng, 4) for model, rng in models) > 12


@torch.no_grad()
def test_a_prefix_alone_gives_what_it_gives_in_the_whole() -> None:
    """Within rounding: products of other shapes may sum in another order."""
    for model, rng in _random_models(6, seed=4, dtype=torch.float64):
        x = tokens(1, 200, seed=rng.randrange(1000))
        whole = model(x).logits
        for length in (1, 2, 15, 16, 33, 64, 100, 129):
            torch.testing.assert_close(model(x[:, :length]).logits, whole[:, :length], rtol=0, atol=1e-11)
