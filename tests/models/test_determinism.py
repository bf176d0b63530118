"""The same seed gives the same run, and no global state is touched but by one draw."""

import hashlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from reformer import ReformerForCausalLM
from reformer.layers.randomness import draw_seed
from tests.layers import child
from tests.models.small_models import HEADS, build, gradients, tokens

DROPOUT = {
    "hidden_dropout_prob": 0.1,
    "lsh_attention_probs_dropout_prob": 0.1,
    "local_attention_probs_dropout_prob": 0.1,
}


def _losses(seed: int, *, reversible: bool = True) -> list[float]:
    """Four steps of AdamW: the weights at the start and the batches are always the same."""
    model = build(ReformerForCausalLM, reversible=reversible, **DROPOUT).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    torch.manual_seed(seed)
    losses = []
    for step in range(4):
        x = tokens(2, 60, seed=step)
        loss = model(x, labels=x).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_same_seed_same_losses_other_seed_other_losses() -> None:
    first = _losses(1)
    assert _losses(1) == first
    assert all(a != b for a, b in zip(_losses(2), first, strict=True))


def test_stored_activations_train_the_same_model() -> None:
    assert _losses(1, reversible=False) == _losses(1)


def _global_states() -> list[Any]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), name, keys.tolist(), rest, random.getstate()]


@pytest.mark.parametrize("cls", HEADS)
def test_evaluation_draws_nothing(cls: Any) -> None:
    model = build(cls, **DROPOUT)
    x = tokens(2, 60)
    before = _global_states()
    outputs = model(x).to_tuple()
    sum(output.sum() for output in outputs).backward()
    assert _global_states() == before
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    model(x)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("cls", HEADS)
def test_training_draws_one_number(cls: Any) -> None:
    model = build(cls, **DROPOUT).train()
    x = tokens(2, 60)
    torch.manual_seed(5)
    draw_seed()
    wanted = _global_states()
    torch.manual_seed(5)
    outputs = model(x).to_tuple()
    sum(output.sum() for output in outputs).backward()
    assert _global_states() == wanted


def test_training_is_a_function_of_the_number_drawn() -> None:
    model = build(ReformerForCausalLM, **DROPOUT).train()
    x = tokens(2, 60)

    def run(seed: int) -> tuple[float, dict[str, Tensor]]:
        torch.manual_seed(seed)
        model.zero_grad()
        loss = model(x, labels=x).loss
        torch.rand(1000)  # what others draw between the passes does not matter
        loss.backward()
        return loss.item(), gradients(model)

    (first, first_gradients), (again, again_gradients), (other, _) = run(3), run(3), run(4)
    assert first == again != other
    assert all(torch.equal(value, again_gradients[name]) for name, value in first_gradients.items())


def logits_digest(num_threads: int) -> str:
    """Of a model in evaluation mode, the same in every process."""
    torch.set_num_threads(num_threads)
    with torch.no_grad():
        logits = build(ReformerForCausalLM)(tokens(2, 100)).logits
    return hashlib.sha256(logits.numpy().tobytes()).hexdigest()


def test_another_process_gives_the_same_logits() -> None:
    num_threads = torch.get_num_threads()
    there = child.call("tests.models.test_determinism:logits_digest", num_threads)
    assert logits_digest(num_threads) == there
