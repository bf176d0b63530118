import pytest
import torch

from reformer import ReformerForCausalLM, ReformerForMaskedLM, ReformerForTokenClassification
from reformer.data import reverse_complement
from reformer.genomics.equivariance import ReverseComplementEquivariant
from tests.models.small_models import build

COMPLEMENT = [0, 2, 1]  # nothing, a gene on "+", a gene on "-"


def sequences(vocab_size=9):
    ids = torch.randint(4, vocab_size, (3, 70), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 70, dtype=torch.long)
    mask[1, 50:], mask[2, :33] = 0, 0
    ids[mask == 0] = 0
    return ids, mask


@pytest.mark.parametrize("vocab_size", [9, 14])
@torch.no_grad()
def test_a_masked_model(vocab_size):
    inner = build(ReformerForMaskedLM, vocab_size=vocab_size)
    model = ReverseComplementEquivariant(inner)
    ids, mask = sequences(vocab_size)
    found = model(ids, mask).logits
    other = model(reverse_complement(ids), mask.flip(1)).logits
    order = [0, 1, 2, 3, 7, 6, 5, 4, 8, 12, 11, 10, 9, 13][:vocab_size]
    real = mask.bool()
    torch.testing.assert_close(other.flip(1)[..., order][real], found[real], rtol=0, atol=1e-5)
    plain = inner(ids, mask).logits
    assert (found - plain)[real].abs().max() > 0.1  # which the inner model is not


def test_classes_of_both_strands_and_the_loss():
    inner = build(ReformerForTokenClassification, vocab_size=9, num_labels=3)
    model = ReverseComplementEquivariant(inner, COMPLEMENT)
    ids, mask = sequences()
    labels = torch.randint(3, ids.shape, generator=torch.Generator().manual_seed(1))
    here = model(ids, mask, labels)
    there = model(reverse_complement(ids), mask.flip(1), torch.tensor(COMPLEMENT)[labels].flip(1))
    torch.testing.assert_close(here.loss, there.loss)
    real = mask.bool()
    torch.testing.assert_close(
        there.logits.flip(1)[..., COMPLEMENT][real], here.logits[real], rtol=0, atol=1e-5
    )
    expected = torch.nn.functional.cross_entropy(here.logits[real], labels[real])
    torch.testing.assert_close(here.loss, expected)
    here.loss.backward()
    first = {name: p.grad.clone() for name, p in inner.named_parameters() if p.grad is not None}
    assert first
    inner.zero_grad()
    there.loss.backward()
    for name, parameter in inner.named_parameters():
        if name in first:
            torch.testing.assert_close(parameter.grad, first[name], rtol=1e-3, atol=1e-6)


def test_what_cannot_be():
    with pytest.raises(ValueError, match="a causal model cannot be equivariant"):
        ReverseComplementEquivariant(build(ReformerForCausalLM, vocab_size=9))
    inner = build(ReformerForTokenClassification, vocab_size=9, num_labels=3)
    for complement in ([1, 2, 0], [0, 1], [0, 0, 1]):
        with pytest.raises(ValueError, match="a permutation of 0 to 2 that undoes itself"):
            ReverseComplementEquivariant(inner, complement)
