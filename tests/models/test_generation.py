"""transformers' generate on the causal model, which has no decode cache yet."""

import pytest
import torch
from torch import Tensor

from reformer import ReformerForCausalLM
from tests.models.small_models import build, tokens


def _greedy_by_hand(model: ReformerForCausalLM, ids: Tensor, num_tokens: int) -> list[int]:
    start = ids.shape[1]
    for _ in range(num_tokens):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        if ids[0, -1] == model.config.eos_token_id:
            break
    return ids[0, start:].tolist()


@pytest.mark.parametrize("use_cache", [False, True])
@torch.no_grad()
def test_greedy(use_cache: bool) -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)
    found = model.generate(ids, max_new_tokens=20, do_sample=False, use_cache=use_cache)
    assert found[0, :12].tolist() == ids[0].tolist()
    assert found[0, 12:].tolist() == _greedy_by_hand(model, ids, 20)


@torch.no_grad()
def test_a_left_padded_batch_generates_what_each_row_does_alone() -> None:
    model = build(ReformerForCausalLM)
    rows = [tokens(1, 12, seed=1), tokens(1, 7, seed=2), tokens(1, 1, seed=3)]
    ids, mask = torch.zeros(3, 12, dtype=torch.int64), torch.zeros(3, 12, dtype=torch.int64)
    for i, row in enumerate(rows):
        ids[i, 12 - row.shape[1] :], mask[i, 12 - row.shape[1] :] = row, 1
    found = model.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False, use_cache=False)
    for i, row in enumerate(rows):
        wanted = _greedy_by_hand(model, row, 20)
        assert found[i, 12 : 12 + len(wanted)].tolist() == wanted
        assert not found[i, 12 + len(wanted) :].any()  # padding behind the end of sequence


@torch.no_grad()
def test_sampling_belongs_to_the_seed_of_torch() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(1, 12)

    def sample(seed: int) -> list[int]:
        torch.manual_seed(seed)
        found = model.generate(ids, max_new_tokens=15, do_sample=True, temperature=2.0, use_cache=False)
        return found[0].tolist()

    assert sample(1) == sample(1) != sample(2)


@torch.no_grad()
def test_beams() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(2, 12)

    def score(found: Tensor) -> Tensor:
        return -model.token_losses(found)[:, 11:].sum(1)

    options = {"max_new_tokens": 6, "do_sample": False, "use_cache": False, "eos_token_id": None}
    beams = model.generate(ids, num_beams=4, **options)
    assert (score(beams) >= score(model.generate(ids, **options))).all()
