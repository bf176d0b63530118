"""The loop of constant cost against that of transformers."""

from typing import Any

import pytest
import torch

from reformer import ReformerForCausalLM
from reformer.generation.loop import decode
from tests.models.small_models import build, tokens

NUM_TOKENS = 80


class _Collector:
    def __init__(self) -> None:
        self.tokens: list[list[int]] = []

    def put(self, value: torch.Tensor) -> None:
        self.tokens.append(value.tolist())

    def end(self) -> None:
        self.tokens.append([])


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": False, "repetition_penalty": 1.3, "eos_token_id": [2, 9]},
        {"do_sample": True, "temperature": 2.0, "top_k": 9, "suppress_tokens": [4, 5]},
        {"do_sample": True, "num_return_sequences": 2, "eos_token_id": None},
    ],
)
def test_it_generates_what_the_loop_of_transformers_does(options: dict[str, Any]) -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(3, 30)
    mask = torch.ones_like(ids)
    mask[1, :7] = 0
    found = []
    for loop in (None, decode):
        torch.manual_seed(3)
        found.append(
            model.generate(
                ids, attention_mask=mask, max_new_tokens=NUM_TOKENS, custom_generate=loop, **options
            )
        )
    assert torch.equal(*found)


def test_rows_with_generators_of_their_own_do_not_depend_on_each_other() -> None:
    model = build(ReformerForCausalLM)
    ids = tokens(4, 30)
    mask = torch.ones_like(ids)
    mask[1, :7], mask[3, :29] = 0, 0
    options: dict[str, Any] = {"max_new_tokens": NUM_TOKENS, "do_sample": True, "eos_token_id": None}

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(i) for i in range(4)]

    batch = model.generate(
        ids, attention_mask=mask, custom_generate=decode, generators=generators(), **options
    )
    for i in range(4):
        row = ids[i : i + 1, mask[i] == 1]
        alone = model.generate(row, custom_generate=decode, generators=generators()[i : i + 1], **options)
        assert torch.equal(alone[0, row.shape[1] :], batch[i, 30:])


def test_it_streams_new_tokens() -> None:
    model, stream = build(ReformerForCausalLM), _Collector()
    ids = tokens(2, 10)
    found = model.generate(
        ids, max_new_tokens=20, do_sample=False, custom_generate=decode, token_stream=stream
    )
    assert stream.tokens == [*found[:, 10:].T.tolist(), []]


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"use_cache": False}])
def test_what_it_cannot_do_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="leave out custom_generate"):
        build(ReformerForCausalLM).generate(
            tokens(1, 5), max_new_tokens=3, do_sample=False, custom_generate=decode, **options
        )
