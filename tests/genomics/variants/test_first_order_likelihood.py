"""Estimates against exact scores of a model that is nearly linear in its embeddings, in float64."""

import numpy as np
import pytest
import torch

from reformer import ReformerForCausalLM
from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence
from reformer.genomics.variants.causal_likelihood import CausalLikelihood
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.first_order_likelihood import FirstOrderLikelihood
from tests.models.small_models import build

LENGTH, WINDOW = 90, 32
PLACES = (0, 5, 15, 16, 40, 63, 89)


@pytest.fixture
def open_sequence(tmp_path):
    """A strand of letters in both cases, with N."""
    opened = []

    def open_it(lower_case, letters=None):
        if letters is None:
            letters = "".join(np.random.default_rng(0).choice(list("ACGTacgtN"), LENGTH))
            letters = "".join("g" if i in PLACES and x == "N" else x for i, x in enumerate(letters))
        file = tmp_path / f"{len(opened)}.fa"
        file.write_text(f">c\n{letters}\n")
        opened.append(Genome(file))
        return StrandedSequence(opened[-1], "c", "+", lower_case)

    yield open_it
    for genome in opened:
        genome.close()


def model(vocab_size, scale=1.0):
    """One whose embeddings differ by so much of what they would."""
    changes = {"attn_layers": ["local", "full"], "residual": "float32"}
    net = build(ReformerForCausalLM, vocab_size=vocab_size, **changes).double()
    with torch.no_grad():
        table = net.get_input_embeddings().weight
        table.copy_(table.mean(0) + scale * (table - table.mean(0)))
    return net


def substitutions(sequence, places=PLACES):
    return [
        Change(place, place + 1, base)
        for place in places
        for base in "ACGT"
        if base != sequence.letters(place, place + 1).upper()
    ]


@pytest.mark.parametrize(("lower_case", "vocab_size"), [("fold", 9), ("keep", 14)])
def test_the_error_is_of_second_order(open_sequence, lower_case, vocab_size):
    sequence = open_sequence(lower_case)
    changes = substitutions(sequence)
    errors = []
    for scale in (0.002, 0.001):
        net = model(vocab_size, scale)
        exact = CausalLikelihood(net, WINDOW, LENGTH).ratios(sequence, changes)
        found = FirstOrderLikelihood(net, WINDOW, LENGTH).ratios(sequence, changes)
        itself = CausalLikelihood(net, WINDOW, 1).ratios(sequence, changes)  # what is not estimated
        others = np.abs(exact - np.nan_to_num(itself))
        errors.append(np.abs(found - exact).max())
        assert errors[-1] < 0.05 * others.max()
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.3)


def test_what_is_before_the_window_or_behind_the_reach_does_not_count(open_sequence):
    sequence, net = open_sequence("fold"), model(9)
    letters = sequence.letters(0, LENGTH)
    changes = substitutions(sequence, (33, 47))  # in the block from 32 to 48, which is read from 16 on
    found = FirstOrderLikelihood(net, WINDOW, 8).ratios(sequence, changes)
    far = open_sequence("fold", "A" * 16 + letters[16:56] + "C" * 34)
    np.testing.assert_allclose(FirstOrderLikelihood(net, WINDOW, 8).ratios(far, changes), found, atol=1e-12)
    for place in (16, 55):
        other = "A" if letters[place] != "A" else "C"
        near = open_sequence("fold", letters[:place] + other + letters[place + 1 :])
        assert np.abs(FirstOrderLikelihood(net, WINDOW, 8).ratios(near, changes) - found).max() > 1e-6


def test_other_changes_are_refused_and_one_base_has_no_score(open_sequence):
    likelihood = FirstOrderLikelihood(model(9), WINDOW, 8)
    assert np.isnan(likelihood.ratios(open_sequence("fold", "A"), [Change(0, 1, "C")])).all()
    for change in (Change(3, 5, "A"), Change(3, 3, "A"), Change(3, 4, "")):
        with pytest.raises(ValueError, match="expected a substitution of one base"):
            likelihood.ratios(open_sequence("fold"), [change])
