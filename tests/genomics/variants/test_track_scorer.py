"""Scores of a model of tracks: against whole windows that are put together letter by letter."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reformer.data.tokenizers import NucleotideTokenizer
from reformer.genomics.genome import Genome
from reformer.genomics.tracks.levels import Levels
from reformer.genomics.tracks.predictor import TrackPredictor, TrackSettings
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.track_scorer import AROUND, TrackScorer

WINDOW = 1800
LEVELS = (Levels(1.0, 0.0, 3.0, (0.0, 1.0, 8.0)), Levels(2.0, 0.0, 3.0, (0.0, 3.0, 9.0)))
SETTINGS = TrackSettings(("a track", "other"), LEVELS, (0, 1), "fold")


class Network:
    """Logits of a base from its letter and those next to it."""

    config, device = SimpleNamespace(), "cpu"

    def __call__(self, input_ids):
        table = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
        one = table[input_ids]
        return SimpleNamespace(logits=one + one.roll(1, 1) - 0.5 * one.roll(-1, 1))


@pytest.fixture(scope="module")
def letters():
    return "".join(np.random.default_rng(0).choice(list("ACGT"), 4000))


@pytest.fixture
def genome(tmp_path, letters):
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    with Genome(tmp_path / "g.fa") as opened:
        yield opened


def test_scores_are_those_of_whole_windows(genome, letters):
    predictor = TrackPredictor(Network(), SETTINGS)

    def spread(text):
        values = predictor.predict(np.array(NucleotideTokenizer()(text)["input_ids"], dtype=np.uint8))
        return np.stack([np.arcsinh(values[:, 0]), np.arcsinh(values[:, 1] / 2.0)], axis=1)

    changes = [
        Change(3999, 4000, "A"),
        Change(0, 1, "C"),
        Change(1500, 1501, "ACGT"),
        Change(2000, 2100, ""),
        Change(2300, 2300, "ACGTA"),
        Change(100, 101, letters[100]),
    ]
    found = TrackScorer(predictor, WINDOW).scores(genome, "c", changes)
    assert found.shape == (2, 6)
    for i, change in enumerate(changes):
        first = max(0, (change.start // 600 - 1) * 600)
        growth = len(change.inserted) - (change.end - change.start)
        end = min(first + WINDOW, 4000, 4000 + growth)
        text = letters[: change.start] + change.inserted + letters[change.end :]
        here, there = spread(letters[first:end]), spread(text[first:end])
        left = max(change.start - AROUND, first)
        expected = there[left - first : change.start + len(change.inserted) + AROUND - first].mean(0)
        expected -= here[left - first : change.end + AROUND - first].mean(0)
        np.testing.assert_allclose(found[:, i], expected, atol=1e-6)
    assert found[:, 5].tolist() == [0, 0]
    assert np.abs(found[:, :5]).min() > 0


def test_what_lies_behind_the_last_base_has_no_score(genome):
    scorer = TrackScorer(TrackPredictor(Network(), SETTINGS), WINDOW)
    assert np.isnan(scorer.scores(genome, "c", [Change(4000, 4000, "A")])).all()


def test_fields_have_names_that_vcf_allows():
    names = ("rna.plus", "a b", "a_b", "a/b")
    settings = TrackSettings(names, LEVELS * 2, (0, 1, 2, 3), "fold")
    scorer = TrackScorer(TrackPredictor(Network(), settings), WINDOW)
    assert [field.name for field in scorer.fields] == [
        "REFORMER_TRACK_rna.plus",
        "REFORMER_TRACK_a_b",
        "REFORMER_TRACK_a_b_again1",
        "REFORMER_TRACK_a_b_again2",
    ]
