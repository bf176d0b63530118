"""Ratios against the model's plain forward pass over sequences that are put together letter by letter."""

import numpy as np
import pytest
import torch

from reformer import ReformerForCausalLM, ReformerForMaskedLM
from reformer.data.tokenizers import NucleotideTokenizer
from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence
from reformer.genomics.variants import causal_likelihood
from reformer.genomics.variants.causal_likelihood import CausalLikelihood
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.masked_likelihood import MaskedLikelihood
from tests.models.small_models import build

LENGTH, WINDOW, REACH = 400, 64, 24
CHANGES = [
    Change(0, 1, "C"),
    Change(0, 0, "TT"),
    Change(3, 5, ""),
    Change(40, 41, "T"),
    Change(41, 41, "ACGTACG"),
    Change(42, 42, "C"),
    Change(100, 160, ""),
    Change(200, 201, "ACGT" * 10),
    Change(301, 303, "GT"),
    Change(390, 395, ""),
    Change(399, 400, "A"),
    Change(400, 400, "A"),
]


@pytest.fixture
def sequence(tmp_path):
    letters = "".join(np.random.default_rng(0).choice(list("ACGTN"), LENGTH, p=[0.24] * 4 + [0.04]))
    letters = "G" + letters[1:]  # what changes is a base that is known
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    with Genome(tmp_path / "g.fa") as genome:
        yield StrandedSequence(genome, "c", "+", "fold")


def model(cls, **changes):
    return build(cls, vocab_size=9, **changes).double()


def log_probabilities(model, letters):
    ids = NucleotideTokenizer()(letters, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids).logits.log_softmax(-1)[0].numpy(), ids[0].numpy()


def causal_ratio(model, letters, change, window, reach):
    """The definition: half a window or more before, `reach` bases count, both sequences equally long."""
    half = window // 2
    origin = max(0, (change.start // half - 1) * half)
    changed = letters[: change.start] + change.inserted + letters[change.end :]
    end = min(change.start + reach, len(letters), len(changed))

    def total(text):
        values, ids = log_probabilities(model, text[origin:end])
        counted = [
            values[i - 1, ids[i]]
            for i in range(max(change.start - origin, 1), end - origin)
            if text[origin + i] in "ACGT"
        ]
        return sum(counted) if end > max(change.start, 1) else np.nan

    return total(changed) - total(letters)


@pytest.mark.parametrize("window_kind", ["bucket", "chunk"])
def test_causal_ratios_are_those_of_plain_passes(sequence, window_kind):
    net = model(ReformerForCausalLM, lsh_window=window_kind)
    letters = sequence.letters(0, LENGTH)
    found = CausalLikelihood(net, WINDOW, REACH).ratios(sequence, CHANGES)
    expected = [causal_ratio(net, letters, change, WINDOW, REACH) for change in CHANGES]
    assert np.isnan(found).tolist() == [False] * 11 + [True]
    np.testing.assert_allclose(found, expected, atol=1e-9, equal_nan=True)
    assert (np.abs(found[:-1]) > 1e-3).all()


def test_a_window_beyond_both_ends_reads_the_whole_sequence(sequence):
    letters, whole, changes = sequence.letters(0, LENGTH), 1 << 20, CHANGES[1::3]
    causal, masked = model(ReformerForCausalLM), model(ReformerForMaskedLM)
    found = CausalLikelihood(causal, whole, whole).ratios(sequence, changes)
    expected = [causal_ratio(causal, letters, change, whole, whole) for change in changes]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    near = CausalLikelihood(causal, WINDOW, whole).ratios(sequence, changes)
    assert (np.abs(near - found)[2:] > 1e-4).all()  # what lies far before the last two counts
    found = MaskedLikelihood(masked, NucleotideTokenizer(), whole).ratios(sequence, changes)
    expected = [masked_ratio(masked, letters, change, whole) for change in changes]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_ratio_does_not_depend_on_other_changes_or_batches(sequence, monkeypatch):
    likelihood = CausalLikelihood(model(ReformerForCausalLM), WINDOW, REACH)
    together = likelihood.ratios(sequence, CHANGES)
    alone = np.concatenate([likelihood.ratios(sequence, [change]) for change in CHANGES])
    np.testing.assert_allclose(together, alone, atol=1e-9)
    monkeypatch.setattr(causal_likelihood, "_CACHE_BYTES_PER_BATCH", 0)
    np.testing.assert_allclose(likelihood.ratios(sequence, CHANGES), alone, atol=1e-9)


def test_what_a_causal_model_read_longer_ago_than_a_window_does_not_count(sequence, tmp_path):
    likelihood = CausalLikelihood(model(ReformerForCausalLM), WINDOW, REACH)
    letters = sequence.letters(0, LENGTH)
    other = letters[:200].translate(str.maketrans("ACGT", "CATG")) + letters[200:]
    (tmp_path / "other.fa").write_text(f">c\n{other}\n")
    change = [Change(301, 302, "A"), Change(210, 212, "")]
    with Genome(tmp_path / "other.fa") as genome:
        found = likelihood.ratios(StrandedSequence(genome, "c", "+", "fold"), change[:1])
        near = likelihood.ratios(StrandedSequence(genome, "c", "+", "fold"), change[1:])
    np.testing.assert_allclose(found, likelihood.ratios(sequence, change[:1]), atol=1e-12)
    assert abs(near - likelihood.ratios(sequence, change[1:]))[0] > 1e-4


def masked_ratio(model, letters, change, window):
    """The definition: as many masked bases on both sides as the longer allele has."""
    first = max(0, change.start - window // 2)
    changed = letters[: change.start] + change.inserted + letters[change.end :]
    end = min(first + window, len(letters), len(changed))
    longer = max(change.end - change.start, len(change.inserted))
    masked = range(change.start, min(change.start + longer, end))

    def total(text):
        hidden = "".join("[MASK]" if i in masked else text[i] for i in range(first, end))
        values, _ = log_probabilities(model, hidden)
        ids = NucleotideTokenizer()(text)["input_ids"]
        return sum(values[i - first, ids[i]] for i in masked if text[i] in "ACGT")

    return total(changed) - total(letters) if masked else np.nan


def test_masked_ratios_are_those_of_plain_passes(sequence):
    net = model(ReformerForMaskedLM)
    letters = sequence.letters(0, LENGTH)
    found = MaskedLikelihood(net, NucleotideTokenizer(), WINDOW).ratios(sequence, CHANGES)
    expected = [masked_ratio(net, letters, change, WINDOW) for change in CHANGES]
    np.testing.assert_allclose(found, expected, atol=1e-9, equal_nan=True)
    assert np.isnan(found).tolist() == [False] * 11 + [True]
    assert (np.abs(found[:-1]) > 1e-3).all()


def test_inserted_bases_have_the_case_of_where_they_come(tmp_path):
    (tmp_path / "g.fa").write_text(">c\n" + "ACGTacgtacgtACGT" * 4 + "\n")
    net = build(ReformerForCausalLM, vocab_size=14)
    with Genome(tmp_path / "g.fa") as genome:
        strand = StrandedSequence(genome, "c", "+", "keep")
        assert strand.letters(4, 8) == "acgt"
        changes = [Change(5, 6, "T"), Change(5, 6, "t")]
        upper, lower = CausalLikelihood(net, WINDOW, REACH).ratios(strand, changes)
    assert upper == lower != 0
