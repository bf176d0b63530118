"""Padding changes nothing, on whichever side, alone or in a batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from reformer import (
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForSequenceClassification,
    ReformerModel,
)
from tests.models.small_models import HEADS, VOCAB_SIZE, build, gradients, tokens

LENGTHS = [100, 37, 64, 1, 8]
PADDED_LENGTH = 110
# In float64 nothing is left but rounding: the logits are of order 10.
EXACT = {"rtol": 0.0, "atol": 1e-12}
SIDES = ["left", "right", "middle"]


def _padded(rows: list[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Rows among random ids, which a model must not read, and the mask of where they are."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, VOCAB_SIZE, (len(rows), PADDED_LENGTH), generator=generator)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        if side == "left":
            where = torch.arange(PADDED_LENGTH - len(row), PADDED_LENGTH)
        elif side == "right":
            where = torch.arange(len(row))
        else:
            where = torch.randperm(PADDED_LENGTH, generator=generator)[: len(row)].sort().values
        ids[i, where], mask[i, where] = row, 1
    return ids, mask


def _rows() -> list[Tensor]:
    return [tokens(length, seed=i) for i, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("positions", ["rotary", "axial"])
@pytest.mark.parametrize("num_buckets", [None, 8])
@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
@torch.no_grad()
def test_logits(cls: Any, window: str, num_buckets: int | None, positions: str) -> None:
    model = build(
        cls,
        lsh_window=window,
        num_buckets=num_buckets,
        position_embedding_type=positions,
        residual="float32",
    ).double()
    rows = _rows()
    alone = [model(row[None]).logits[0] for row in rows]
    for side in SIDES:
        ids, mask = _padded(rows, side)
        together = model(ids, mask).logits
        for i, wanted in enumerate(alone):
            torch.testing.assert_close(together[i][mask[i] == 1], wanted, **EXACT)
        one = model(ids[1:2], mask[1:2]).logits
        torch.testing.assert_close(one[0][mask[1] == 1], alone[1], **EXACT)


@pytest.mark.parametrize("induction_length", [0, 5])
@pytest.mark.parametrize("side", SIDES)
@torch.no_grad()
def test_in_float32(side: str, induction_length: int) -> None:
    """Streams are rounded to 2^-20, so that an error of 1e-6 a layer may come in."""
    model = build(ReformerForCausalLM, lsh_induction_length=induction_length)
    rows = _rows()
    ids, mask = _padded(rows, side)
    together = model(ids, mask).logits
    for i, row in enumerate(rows):
        torch.testing.assert_close(together[i][mask[i] == 1], model(row[None]).logits[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("cls", "changes"),
    [
        *((cls, {}) for cls in HEADS),
        *(
            (
                ReformerForSequenceClassification,
                {"classifier_pooling": pooling, "max_position_embeddings": 100},
            )
            for pooling in ("mean", "flatten")
        ),
    ],
)
@torch.no_grad()
def test_every_head(cls: Any, changes: dict[str, Any], side: str) -> None:
    model = build(cls, residual="float32", **changes).double()
    rows = _rows()
    ids, mask = _padded(rows, side)
    together = model(ids, mask).to_tuple()
    for i, row in enumerate(rows):
        for padded, alone in zip(together, model(row[None]).to_tuple(), strict=True):
            found = padded[i] if cls is ReformerForSequenceClassification else padded[i][mask[i] == 1]
            torch.testing.assert_close(found, alone[0], **EXACT)


@torch.no_grad()
def test_causal_classification_takes_the_last_real_token() -> None:
    model = build(ReformerForSequenceClassification, is_decoder=True, residual="float32").double()
    rows = _rows()
    for side in SIDES:
        ids, mask = _padded(rows, side)
        together = model(ids, mask).logits
        for i, row in enumerate(rows):
            torch.testing.assert_close(together[i : i + 1], model(row[None]).logits, **EXACT)
            changed = row.clone()
            changed[-1] = 3 + (changed[-1] - 2) % (VOCAB_SIZE - 3)
            assert not torch.allclose(model(changed[None]).logits, together[i : i + 1])


@pytest.mark.parametrize("side", ["left", "right"])
def test_causal_loss_and_gradients(side: str) -> None:
    """Padding is no target, and predicts none."""
    model = build(ReformerForCausalLM, residual="float32").double()
    rows = [row for row in _rows() if len(row) > 1]
    num_targets = [len(row) - 1 for row in rows]
    total = sum(num_targets)
    losses = []
    for row, n in zip(rows, num_targets, strict=True):
        loss = model(row[None], labels=row[None]).loss * n / total
        loss.backward()
        losses.append(loss.item())
    wanted = gradients(model)
    model.zero_grad()
    ids, mask = _padded(rows, side)
    loss = model(ids, mask, labels=ids).loss
    loss.backward()
    assert abs(loss.item() - sum(losses)) < 1e-12
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("side", SIDES)
def test_gradients_do_not_reach_padding(side: str) -> None:
    model = build(ReformerForMaskedLM)
    ids, mask = _padded(_rows(), side)
    embeds = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    logits[mask == 1].square().sum().backward()
    assert not embeds.grad[mask == 0].any()
    assert embeds.grad[mask == 1].any(-1).all()


@torch.no_grad()
def test_hidden_states_and_attentions_are_where_their_tokens_are() -> None:
    model = build(ReformerModel, is_decoder=False, residual="float32").double()
    rows = _rows()
    for side in SIDES:
        ids, mask = _padded(rows, side)
        together = model(ids, mask, output_hidden_states=True, output_attentions=True)
        for i, row in enumerate(rows):
            real = mask[i] == 1
            alone = model(row[None], output_hidden_states=True, output_attentions=True)
            for padded, wanted in zip(together.hidden_states, alone.hidden_states, strict=True):
                torch.testing.assert_close(padded[i][real], wanted[0], **EXACT)
            for padded, wanted in zip(together.attentions, alone.attentions, strict=True):
                torch.testing.assert_close(padded[i][:, real][:, :, real], wanted[0], **EXACT)
                assert not padded[i][:, real][:, :, ~real].any()


@torch.no_grad()
def test_a_mask_of_ones_is_no_mask() -> None:
    model = build(ReformerForMaskedLM)
    ids = tokens(2, 50)
    for mask in (
        torch.ones(2, 50),
        torch.ones(2, 50, dtype=torch.int64),
        torch.ones(2, 50, dtype=torch.bool),
    ):
        assert torch.equal(model(ids, mask).logits, model(ids).logits)


@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("cls", HEADS)
@torch.no_grad()
def test_a_row_of_nothing_but_padding_harms_no_other(cls: Any, window: str) -> None:
    model = build(cls, lsh_window=window)
    ids, mask = tokens(2, 50), torch.ones(2, 50)
    mask[1] = 0
    for both, first in zip(model(ids, mask).to_tuple(), model(ids[:1]).to_tuple(), strict=True):
        assert both.isfinite().all()
        torch.testing.assert_close(both[:1], first, rtol=0, atol=2e-5)
