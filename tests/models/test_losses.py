"""Losses of all heads; the language models' never makes logits of all positions at once."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from reformer import (
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
)
from tests.layers.live_tensors import LiveTensors
from tests.models.small_models import VOCAB_SIZE, build, gradients, tokens

EXACT = {"rtol": 1e-11, "atol": 1e-13}


@pytest.mark.parametrize("head", [ReformerForMaskedLM, ReformerForTokenClassification])
def test_labels_at_padding_are_not_counted(head: type) -> None:
    model = build(head, causal=False).double()
    x, labels = tokens(2, 30), tokens(2, 30) % 2
    mask = torch.ones_like(x)
    mask[1, 20:] = 0
    wanted = model(x, mask, labels=labels.masked_fill(mask == 0, -100)).loss
    assert torch.equal(model(x, mask, labels=labels).loss, wanted)
    assert not torch.isclose(model(x, labels=labels).loss, wanted)


class TestCausal:
    @pytest.mark.parametrize("chunk_size", [0, 1, 7, 1000])
    def test_is_the_cross_entropy_of_the_logits(self, chunk_size: int) -> None:
        model = build(ReformerForCausalLM, chunk_size_lm_head=chunk_size).double()
        x = tokens(2, 50)
        labels = x.clone()
        labels[0, 10:20] = -100
        output = model(x, labels=labels)
        wanted = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        torch.testing.assert_close(output.loss, wanted, **EXACT)
        output.loss.backward(retain_graph=True)
        found = gradients(model)
        model.zero_grad()
        wanted.backward()
        for name, gradient in gradients(model).items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)

    def test_padding_is_neither_target_nor_predicts_one(self) -> None:
        model = build(ReformerForCausalLM).double()
        x = tokens(2, 30)
        mask = torch.ones_like(x)
        mask[0, :7] = 0
        mask[1, 20:] = 0
        output = model(x, mask, labels=x)
        logits, labels = output.logits, x
        real = [(0, p) for p in range(7, 29)] + [(1, p) for p in range(19)]
        nats = [F.cross_entropy(logits[b, p], labels[b, p + 1]) for b, p in real]
        torch.testing.assert_close(output.loss, torch.stack(nats).mean(), **EXACT)
        losses = model.token_losses(x, mask)
        assert losses.shape == (2, 29)
        assert losses.dtype == torch.float32
        kept = torch.zeros(2, 29, dtype=torch.bool)
        kept[[b for b, _ in real], [p for _, p in real]] = True
        torch.testing.assert_close(losses[kept].double(), torch.stack(nats), rtol=1e-6, atol=1e-6)
        assert not losses[~kept].any()

    def test_the_target_after_a_gap_of_padding_is_the_next_real_token(self) -> None:
        model = build(ReformerForCausalLM).double()
        x = tokens(1, 30)
        mask = torch.ones_like(x)
        mask[0, 10:15] = 0
        real = mask[0].bool()
        whole = model(x[:, real], labels=x[:, real])
        torch.testing.assert_close(model(x, mask, labels=x).loss, whole.loss, **EXACT)
        losses = model.token_losses(x, mask)
        torch.testing.assert_close(losses[0, real[:-1]], model.token_losses(x[:, real])[0])
        assert not losses[0, ~real[:-1]].any()

    def test_logits_to_keep(self) -> None:
        model = build(ReformerForCausalLM)
        x = tokens(2, 30)
        torch.testing.assert_close(model(x, logits_to_keep=3).logits, model(x).logits[:, -3:])

    def test_one_token_has_no_target(self) -> None:
        model = build(ReformerForCausalLM)
        x = tokens(1, 1)
        loss = model(x, labels=x).loss
        assert loss.item() == 0
        loss.backward()


class TestMasked:
    def test_is_the_cross_entropy_of_the_logits(self) -> None:
        model = build(ReformerForMaskedLM, chunk_size_lm_head=7).double()
        x = tokens(2, 50)
        labels = torch.where(x % 5 == 0, x, -100)
        output = model(x, labels=labels)
        wanted = F.cross_entropy(output.logits.flatten(0, 1), labels.flatten())
        torch.testing.assert_close(output.loss, wanted, **EXACT)

    def test_no_label_gives_zero(self) -> None:
        model = build(ReformerForMaskedLM)
        x = tokens(2, 20)
        assert model(x, labels=torch.full_like(x, -100)).loss.item() == 0


@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
class TestLanguageModels:
    def test_in_training_no_logits_but_those_of_a_chunk_are_made(self, cls: Any) -> None:
        model = build(cls, chunk_size_lm_head=16).train()
        shapes: list[torch.Size] = []
        model.lm_head.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
        x = tokens(2, 100)
        output = model(x, labels=x)
        assert output.logits is None
        output.loss.backward()
        assert len(shapes) == 2 * 13  # forwards and backwards
        assert all(shape[:-1].numel() <= 16 for shape in shapes)
        assert model(x).logits.shape == (2, 100, VOCAB_SIZE)

    def test_memory_of_a_step_is_far_below_that_of_the_logits(self, cls: Any) -> None:
        model = build(cls, vocab_size=4000, attn_layers=["local"], chunk_size_lm_head=64).train()
        x = tokens(1, 2000)
        with LiveTensors() as live:
            model(x, labels=x).loss.backward()
        assert live.peak < 0.5 * 2000 * 4000 * 4

    @pytest.mark.parametrize("label", [VOCAB_SIZE, -1, -101])
    def test_labels_out_of_range_are_an_error(self, cls: Any, label: int) -> None:
        x = tokens(1, 20)
        labels = x.clone()
        labels[0, 5] = label
        with pytest.raises(ValueError, match=rf"labels must be -100 or in \[0, 40\), got {label}"):
            build(cls)(x, labels=labels)

    def test_labels_of_another_shape_are_an_error(self, cls: Any) -> None:
        with pytest.raises(ValueError, match=r"labels must be \[1, 20\], got \[1, 19\]"):
            build(cls)(tokens(1, 20), labels=tokens(1, 19))


class TestSequenceClassification:
    @pytest.mark.parametrize(
        ("num_labels", "problem", "labels"),
        [
            (1, "regression", torch.tensor([0.5, -1.0])),
            (1, "regression", torch.tensor([[0.5], [-1.0]])),
            (3, "regression", torch.tensor([[0.5, 1.0, 2.0], [-1.0, 0.0, 3.0]])),
            (3, "single_label_classification", torch.tensor([2, 0])),
            (3, "multi_label_classification", torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])),
        ],
    )
    def test_loss_of_every_problem(self, num_labels: int, problem: str, labels: Tensor) -> None:
        x = tokens(2, 30)
        model = build(ReformerForSequenceClassification, num_labels=num_labels, problem_type=problem)
        output = model(x, labels=labels)
        logits = output.logits
        assert logits.shape == (2, num_labels)
        wanted = {
            "regression": lambda: (logits.flatten() - labels.flatten()).square().mean(),
            "single_label_classification": lambda: F.cross_entropy(logits, labels),
            "multi_label_classification": lambda: F.binary_cross_entropy_with_logits(logits, labels),
        }[problem]()
        torch.testing.assert_close(output.loss, wanted)
        output.loss.backward()
        if (num_labels, problem) != (3, "regression"):  # the kind is told from labels alone
            model.config.problem_type = None
            torch.testing.assert_close(model(x, labels=labels).loss, wanted)

    def test_an_encoder_classifies_from_the_first_token(self) -> None:
        model = build(ReformerForSequenceClassification)
        hidden = model.reformer(tokens(2, 30)).last_hidden_state
        torch.testing.assert_close(model(tokens(2, 30)).logits, model.classifier(hidden[:, 0], None))

    def test_flattened_tokens_each_have_weights_of_their_own(self) -> None:
        model = build(
            ReformerForSequenceClassification, classifier_pooling="flatten", max_position_embeddings=32
        )
        assert model.config.longest_input == 32
        hidden = model.reformer(tokens(2, 30)).last_hidden_state
        head = model.classifier
        weights = head.dense.weight.unflatten(1, (32, -1))[:, :30]
        wanted = head.out_proj(torch.tanh(torch.einsum("btd,otd->bo", hidden, weights) + head.dense.bias))
        torch.testing.assert_close(model(tokens(2, 30)).logits, wanted)
        with pytest.raises(ValueError, match="33 tokens are more than max_position_embeddings=32"):
            model(tokens(2, 33))


class TestTokenClassification:
    def test_loss(self) -> None:
        model = build(ReformerForTokenClassification, num_labels=5)
        x = tokens(2, 30)
        labels = x % 5
        labels[:, 20:] = -100
        output = model(x, labels=labels)
        assert output.logits.shape == (2, 30, 5)
        wanted = F.cross_entropy(output.logits[:, :20].flatten(0, 1), labels[:, :20].flatten())
        torch.testing.assert_close(output.loss, wanted)

    def test_no_label_gives_zero(self) -> None:
        x = tokens(1, 10)
        loss = build(ReformerForTokenClassification)(x, labels=torch.full_like(x, -100)).loss
        assert loss.item() == 0


class TestQuestionAnswering:
    def test_loss(self) -> None:
        model = build(ReformerForQuestionAnswering)
        x = tokens(3, 30)
        start, end = torch.tensor([3, 0, 99]), torch.tensor([7, 29, -1])
        output = model(x, start_positions=start, end_positions=end)
        wanted = [
            F.cross_entropy(logits[:2], where[:2])
            for logits, where in ((output.start_logits, start), (output.end_logits, end))
        ]
        torch.testing.assert_close(output.loss, sum(wanted) / 2)

    def test_no_answer_gives_zero(self) -> None:
        model = build(ReformerForQuestionAnswering)
        outside = torch.tensor([-1])
        assert model(tokens(1, 10), start_positions=outside, end_positions=outside).loss.item() == 0

    def test_padding_does_not_change_the_loss(self) -> None:
        model = build(ReformerForQuestionAnswering)
        where = {"start_positions": torch.tensor([3]), "end_positions": torch.tensor([7])}
        x = tokens(1, 40)
        mask = (torch.arange(40) < 30).long()[None]
        torch.testing.assert_close(model(x, mask, **where).loss, model(x[:, :30], **where).loss)
