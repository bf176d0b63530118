import pytest
import torch

from reformer import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
)
from reformer.data import reverse_complement
from reformer.data.nucleotides import complement_ids
from tests.models.small_models import build

CLASSES = [0, 2, 1]  # nothing, a gene on "+", a gene on "-"


def sequences(vocab_size=9):
    ids = torch.randint(4, vocab_size, (3, 70), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 70, dtype=torch.long)
    mask[1, 50:], mask[2, :33] = 0, 0
    ids[mask == 0] = 0
    return ids, mask


@pytest.mark.parametrize("vocab_size", [9, 14])
@torch.no_grad()
def test_a_masked_model(vocab_size):
    model = build(ReformerForMaskedLM, vocab_size=vocab_size, rc_equivariant=True)
    complement = complement_ids(vocab_size)
    model.strands.set(complement, complement)
    ids, mask = sequences(vocab_size)
    found = model(ids, mask, labels=ids)
    other = model(reverse_complement(ids), mask.flip(1), labels=reverse_complement(ids))
    order = [0, 1, 2, 3, 7, 6, 5, 4, 8, 12, 11, 10, 9, 13][:vocab_size]
    real = mask.bool()
    torch.testing.assert_close(other.logits.flip(1)[..., order][real], found.logits[real], rtol=0, atol=1e-5)
    torch.testing.assert_close(other.loss, found.loss)
    expected = torch.nn.functional.cross_entropy(found.logits[real], ids[real])
    torch.testing.assert_close(found.loss, expected)
    model.strands = None
    assert (found.logits - model(ids, mask).logits)[real].abs().max() > 0.1  # which one strand's is not


def test_classes_of_both_strands_and_the_loss():
    model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, rc_equivariant=True)
    model.strands.set(complement_ids(9), CLASSES)
    ids, mask = sequences()
    labels = torch.randint(3, ids.shape, generator=torch.Generator().manual_seed(1))
    here = model(ids, mask, labels=labels)
    there = model(reverse_complement(ids), mask.flip(1), labels=torch.tensor(CLASSES)[labels].flip(1))
    torch.testing.assert_close(here.loss, there.loss)
    real = mask.bool()
    torch.testing.assert_close(there.logits.flip(1)[..., CLASSES][real], here.logits[real], rtol=0, atol=1e-5)
    here.loss.backward()
    first = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert first
    model.zero_grad()
    there.loss.backward()
    for name, parameter in model.named_parameters():
        if name in first:
            torch.testing.assert_close(parameter.grad, first[name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pooling", ["token", "mean", "flatten"])
@pytest.mark.parametrize("classes", [[0, 1, 2], CLASSES])
def test_a_sequence_and_its_other_strand_are_labelled_alike(tmp_path, pooling, classes):
    fields = {"vocab_size": 9, "num_labels": 3, "classifier_pooling": pooling, "max_position_embeddings": 70}
    model = build(ReformerForSequenceClassification, **fields, rc_equivariant=True)
    model.strands.set(complement_ids(9), classes)
    ids, mask = sequences()
    labels = torch.tensor([0, 1, 2])
    model.save_pretrained(tmp_path)
    again = ReformerForSequenceClassification.from_pretrained(tmp_path).eval()
    gradients = []
    for one in (model, again):
        here = one(ids, mask, labels=labels)
        there = one(reverse_complement(ids), mask.flip(1), labels=torch.tensor(classes)[labels])
        torch.testing.assert_close(there.logits[:, classes], here.logits, rtol=0, atol=1e-5)
        for loss in (here.loss, there.loss):
            one.zero_grad()
            loss.backward()
            gradients.append({n: p.grad.clone() for n, p in one.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-6)
        assert torch.equal(gradients[2][name], gradient)  # the loaded model is the one that was saved
    with torch.no_grad():
        found = model(ids, mask).logits
        model.strands = None
        assert (found - model(ids, mask).logits).abs().max() > 1e-3  # which one strand's are not


def test_what_is_what_on_the_other_strand_is_saved(tmp_path):
    model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, rc_equivariant=True)
    model.strands.set(complement_ids(9), CLASSES)
    model.save_pretrained(tmp_path)
    again = ReformerForTokenClassification.from_pretrained(tmp_path)
    ids, mask = sequences()
    with torch.no_grad():
        assert torch.equal(again(ids, mask).logits, model(ids, mask).logits)
    assert again.strands.class_complement.tolist() == CLASSES


def test_what_cannot_be():
    with pytest.raises(ValueError, match="rc_equivariant cannot be for a decoder"):
        build(ReformerForCausalLM, vocab_size=9, rc_equivariant=True)
    with pytest.raises(ValueError, match="ReformerForQuestionAnswering finds places"):
        ReformerForQuestionAnswering(ReformerConfig(rc_equivariant=True, position_embedding_type="none"))
    model = build(ReformerForTokenClassification, vocab_size=9, num_labels=3, rc_equivariant=True)
    for classes in ([1, 2, 0], [0, 1], [0, 0, 1]):
        with pytest.raises(ValueError, match=r"classes .* a permutation of 0 to 2 that undoes itself"):
            model.strands.set(complement_ids(9), classes)
    with pytest.raises(ValueError, match="got inputs_embeds"):
        model(inputs_embeds=torch.zeros(1, 4, model.config.hidden_size))
