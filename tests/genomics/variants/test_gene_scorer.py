"""Scores of a model of genes: against whole windows that are put together letter by letter."""

from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reformer.data.tokenizers import NucleotideTokenizer
from reformer.errors import UserError
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.annotation.relatives import BroughtOver, Relatives
from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.gene_scorer import GeneScorer, _changed
from tests.genomics.variants.gene_models import coding_text, gene_settings, silent_network

WINDOW, GENE_START, NUM_CODONS = 900, 500, 600
SETTINGS = gene_settings()
ANNOTATOR = Annotator(silent_network(SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def letters():
    generator = np.random.default_rng(1)
    flanks = ["".join(generator.choice(list("ACGT"), 500)) for _ in range(2)]
    return flanks[0] + coding_text(generator, NUM_CODONS) + flanks[1]


@pytest.fixture
def genome(tmp_path, letters):
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n>other\n{reverse_complement(letters)}\n")
    with Genome(tmp_path / "g.fa") as opened:
        yield opened


def scores(genome, changes, name="c", window=WINDOW):
    return GeneScorer(ANNOTATOR, window, genome.path).scores(genome, name, changes)[0]


def codon(number):
    """Where a codon of the gene begins."""
    return GENE_START + 3 * number


def test_a_broken_gene_loses_what_it_had_and_a_rarer_codon_little(genome, letters):
    """The gene is longer than the window, so that all depends on what goes on beyond its ends."""
    number = next(i for i in range(300, 600) if letters[codon(i) : codon(i) + 3] == "GAA")
    stop, silent = (
        Change(codon(number), codon(number) + 1, "T"),
        Change(codon(number) + 2, codon(number) + 3, "G"),
    )
    lost, gained = Change(codon(number), codon(number) + 1, ""), Change(codon(number), codon(number), "C")
    outside = Change(200, 201, "A" if letters[200] != "A" else "C")
    of_stop, of_silent, of_lost, of_gained, of_outside = scores(genome, [stop, silent, lost, gained, outside])
    assert max(of_stop, of_lost, of_gained) < -15
    assert -15 < of_silent < 0
    assert of_outside == 0
    assert not np.signbit(of_outside)


def test_scores_are_those_of_whole_windows(genome, letters):
    def score(text):
        ids = np.array(NucleotideTokenizer()(text)["input_ids"], dtype=np.uint8)
        decoder = SETTINGS.decoder(open_ends=True)
        decoder.feed(text.encode(), ANNOTATOR.probabilities(ids))
        return decoder.score()

    changes = [
        Change(0, 1, "C"),
        Change(codon(100) + 1, codon(100) + 2, "A"),
        Change(codon(150), codon(150), "ACGTA"),
        Change(codon(200), codon(200) + 700, ""),
        Change(codon(300), codon(300), "ACGT" * 400),
        Change(len(letters) - 1, len(letters), "A"),
        Change(len(letters), len(letters), "A"),
    ]
    expected = []
    for change in changes:
        first = max(0, (change.start // 300 - 1) * 300)
        changed = letters[: change.start] + change.inserted + letters[change.end :]
        end = min(first + WINDOW, len(letters), len(changed))
        expected.append(score(changed[first:end]) - score(letters[first:end]))
    expected[-1] = np.nan
    found = scores(genome, changes)
    np.testing.assert_allclose(found, expected, atol=1e-6, equal_nan=True)
    assert (np.abs(found[1:5]) > 1e-3).all()
    shuffled = np.random.default_rng(0).permutation(len(changes))
    np.testing.assert_array_equal(scores(genome, [changes[i] for i in shuffled]), found[shuffled])


def test_the_other_strand_has_the_same_scores(genome, letters):
    """In one window that holds both sequences whole; the bases that a deletion draws in are other ones."""
    places = [codon(number) for number in (5, 77, 300, 450, 599)]
    changes = [Change(place, place + 1, base) for place, base in zip(places, "TACGA", strict=True)]
    changes.append(Change(codon(120), codon(120) + 1, ""))
    flipped = [change.on_other_strand(len(letters)) for change in changes]
    window = 9 * len(letters)
    found, other = scores(genome, changes, window=window), scores(genome, flipped, "other", window=window)
    np.testing.assert_allclose(other[:-1], found[:-1], atol=2e-6)
    np.testing.assert_allclose(other, found, atol=0.3)
    assert np.abs(found).max() > 10


def test_a_model_without_genes_is_refused(tmp_path):
    settings = gene_settings(("exon",))
    with pytest.raises(UserError, match=r"annotation\.json: no gene grammar: expected CDS"):
        GeneScorer(Annotator(silent_network(settings), settings), WINDOW, tmp_path)


def test_relatives_say_of_a_changed_window_what_they_say_of_its_unchanged_bases():
    numbers = np.arange(1, 61, dtype=np.uint8)
    whole = BroughtOver(np.repeat(numbers[:, None], 6, axis=1), np.repeat(numbers[:, None], 6, axis=1))
    first, length = 10, 30
    for start, end, inserted in (
        (20, 21, "A"),
        (20, 20, "ACG"),
        (20, 27, ""),
        (39, 40, "ACGT"),
        (10, 14, "AC"),
    ):
        growth = len(inserted) - (end - start)
        kept = list(numbers[first : min(start + len(inserted), end)])
        expected = (kept + [0] * max(growth, 0) + list(numbers[end:]))[:length]
        found = _changed(whole, Change(start, end, inserted), first, first + length)
        np.testing.assert_array_equal(found.weights[:, 0], expected)
        assert found.classes.shape == (length, 6)


def test_a_gene_that_relatives_tell_of_is_lost_by_a_stop_codon(tmp_path):
    """A network that believes the relatives, and codon statistics that say nothing."""
    generator = np.random.default_rng(7)
    gene = "ATG" + "".join(generator.choice(["".join(c) for c in product("ACG", repeat=3)], 200)) + "TAA"
    letters = (
        "".join(generator.choice(list("ACGT"), 300)) + gene + "".join(generator.choice(list("ACGT"), 300))
    )
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    scheme = SETTINGS.scheme
    labels = np.zeros(len(letters), dtype=np.uint8)
    labels[300 : 300 + len(gene)] = 1 + np.arange(len(gene)) % 3
    with Genome(tmp_path / "g.fa") as opened:
        tokens = StrandedSequence(opened, "c", "+", "fold").ids(0, len(letters))
        settings = replace(SETTINGS, coding=None, relatives=Relatives.of([(tokens, labels)], scheme))

        def network(input_ids, input_features):
            believed = input_features.unflatten(-1, (-1, len(scheme.names))).sum(-2)
            # A class is put by anchor: the place of a base in the window less its place in the codon.
            place = (torch.arange(input_ids.shape[1]) + input_ids.shape[1] % 3) % 3
            anchored = torch.zeros_like(believed)
            anchored[..., 0] = believed[..., 0]
            for strand in (1, 4):
                for frame in range(3):
                    left = frame if strand == 1 else 2 - frame
                    column = strand + (place - left) % 3
                    anchored[0, torch.arange(len(place)), column] = believed[0, :, strand + frame]
            return SimpleNamespace(logits=3 * anchored)

        scorer = GeneScorer(Annotator(network, settings), WINDOW, opened.path)
        stop = Change(300 + 3 * 90, 300 + 3 * 91, "TAA")
        silent = Change(300 + 3 * 90, 300 + 3 * 91, "GCA")
        of_stop, of_silent = scorer.scores(opened, "c", [stop, silent])[0]
    assert of_stop < -3
    assert abs(of_silent) < 0.5
