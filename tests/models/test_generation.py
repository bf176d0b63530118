"""transformers' generate on the causal model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from reformer import ReformerForCausalLM
from reformer.generation.loop import decode
from reformer.models.cache import ReformerCache
from tests.models.small_models import build, tokens

NUM_TOKENS = 60


def _greedy_by_hand(model: ReformerForCausalLM, ids: Tensor, num_tokens: int) -> list[int]:
    start = ids.shape[1]
    for _ in range(num_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        if ids[0, -1] == model.config.eos_token_id:
            break
    return ids[0, start:].tolist()


def _left_padded() -> tuple[list[Tensor], Tensor, Tensor]:
    """Four prompts, and a batch of them."""
    rows = [tokens(1, length, seed=length) for length in (12, 7, 30, 1)]
    ids, mask = torch.zeros(4, 30, dtype=torch.int64), torch.zeros(4, 30, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, 30 - row.shape[1] :], mask[i, 30 - row.shape[1] :] = row, 1
    return rows, ids, mask


@pytest.mark.parametrize("use_cache", [False, True])
@torch.no_grad()
def test_greedy(use_cache: bool) -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)
    found = model.generate(ids, max_new_tokens=20, do_sample=False, use_cache=use_cache)
    assert found[0, :12].tolist() == ids[0].tolist()
    assert found[0, 12:].tolist() == _greedy_by_hand(model, ids, 20)


@pytest.mark.parametrize("use_cache", [False, True])
@pytest.mark.parametrize("num_beams", [1, 3])
@torch.no_grad()
def test_a_batch_generates_what_each_row_does_alone(num_beams: int, use_cache: bool) -> None:
    model = build(ReformerForCausalLM, seed=3)
    rows, ids, mask = _left_padded()
    options: dict[str, Any] = {"do_sample": False, "num_beams": num_beams, "use_cache": use_cache}
    options |= {"max_new_tokens": NUM_TOKENS, "eos_token_id": [2, 9, 23], "pad_token_id": 1}
    found = model.generate(ids, attention_mask=mask, **options)
    lengths = []
    for i, row in enumerate(rows):
        alone = model.generate(row, **options)[0, row.shape[1] :].tolist()
        assert found[i, 30:].tolist() == alone + [1] * (found.shape[1] - 30 - len(alone))
        lengths.append(len(alone))
    assert len(set(lengths)) > 2, "rows were to end at different times"


@pytest.mark.parametrize(("use_cache", "loop"), [(False, None), (True, None), (True, decode)])
@torch.no_grad()
def test_a_batch_samples_what_each_row_does_alone(use_cache: bool, loop: Any) -> None:
    model = build(ReformerForCausalLM, seed=3)
    rows, ids, mask = _left_padded()
    options: dict[str, Any] = {"do_sample": True, "use_cache": use_cache, "custom_generate": loop}
    options |= {"temperature": 1.5, "top_k": 30, "top_p": 0.95}
    options |= {"max_new_tokens": NUM_TOKENS, "eos_token_id": [2, 9, 23], "pad_token_id": 1}

    def sampled(ids: Tensor, mask: Tensor | None) -> list[Tensor]:
        """Two calls: the second draws other numbers, and still the same in every batch."""
        torch.manual_seed(5)
        return [model.generate(ids, attention_mask=mask, **options) for _ in range(2)]

    found = sampled(ids, mask)
    assert not torch.equal(found[0][:, 30:35], found[1][:, 30:35])
    for i, row in enumerate(rows):
        for batch, alone in zip(found, sampled(row, None), strict=True):
            new = alone[0, row.shape[1] :].tolist()
            assert batch[i, 30:].tolist() == new + [1] * (batch.shape[1] - 30 - len(new))


@torch.no_grad()
def test_what_else_sampling_holds_to() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)
    options: dict[str, Any] = {"do_sample": True, "max_new_tokens": 8, "eos_token_id": None}
    torch.manual_seed(0)
    state = torch.get_rng_state()
    found = model.generate(ids, num_return_sequences=4, temperature=1.5, **options)
    assert len({tuple(row) for row in found.tolist()}) == 4, "rows that read the same draw by themselves"
    torch.set_rng_state(state)
    assert torch.equal(found[:1], model.generate(ids, temperature=1.5, **options))
    torch.randint(9, ())
    with_scores = model.generate(
        ids, output_scores=True, output_logits=True, return_dict_in_generate=True, temperature=2.0, **options
    )
    for scores, logits in zip(with_scores.scores, with_scores.logits, strict=True):
        torch.testing.assert_close(scores.softmax(-1), (logits / 2).softmax(-1))


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "temperature": 2.0},
        {"do_sample": True, "num_return_sequences": 3, "top_k": 20},
    ],
)
@torch.no_grad()
def test_the_cache_changes_nothing(options: dict[str, Any]) -> None:
    model = build(ReformerForCausalLM)
    _, ids, mask = _left_padded()
    options = options | {"attention_mask": mask, "max_new_tokens": NUM_TOKENS}
    found = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        found.append(model.generate(ids, use_cache=use_cache, **options))
    assert torch.equal(*found)


@pytest.mark.parametrize("use_cache", [False, True])
@torch.no_grad()
def test_sampling_belongs_to_the_seed_of_torch(use_cache: bool) -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)

    options: dict[str, Any] = {"max_new_tokens": 15, "do_sample": True, "eos_token_id": None}

    def sample(seed: int) -> list[int]:
        torch.manual_seed(seed)
        found = model.generate(ids, **options, use_cache=use_cache)
        return found[0].tolist()

    assert sample(1) == sample(1) != sample(2)


@torch.no_grad()
def test_beams() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(2, 12)

    def score(found: Tensor) -> Tensor:
        return -model.token_losses(found)[:, 11:].sum(1)

    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    beams = model.generate(ids, num_beams=4, **options)
    assert (score(beams) >= score(model.generate(ids, **options))).all()


@torch.no_grad()
def test_going_on_from_a_cache() -> None:
    model = build(ReformerForCausalLM)
    ids, new = tokens(1, 40), tokens(1, 5, seed=3)
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    first = model.generate(ids, return_dict_in_generate=True, **options)
    assert isinstance(first.past_key_values, ReformerCache)
    assert first.past_key_values.get_seq_length() == 59  # the last token has not been read
    whole = torch.cat([first.sequences, new], dim=1)
    found = model.generate(whole, past_key_values=first.past_key_values, **options)
    assert torch.equal(found, model.generate(whole, **options))


@torch.no_grad()
def test_from_embeddings() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False}
    found = model.generate(inputs_embeds=model.get_input_embeddings()(ids), **options)
    assert found.tolist() == model.generate(ids, **options)[:, 12:].tolist()


@torch.no_grad()
def test_a_streamer_gets_every_token() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    streamer = Streamer()
    found = build(ReformerForCausalLM).generate(
        tokens(1, 12), max_new_tokens=20, do_sample=False, streamer=streamer
    )
    assert streamer.tokens == [*found[0].tolist(), -1]


@torch.no_grad()
def test_window_chunk_generates() -> None:
    model = build(ReformerForCausalLM, lsh_window="chunk", num_buckets=4)
    rows, ids, mask = _left_padded()
    options: dict[str, Any] = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": None}
    found = model.generate(ids, attention_mask=mask, **options)
    for i, row in enumerate(rows):
        assert found[i, 30:].tolist() == model.generate(row, **options)[0, row.shape[1] :].tolist()
