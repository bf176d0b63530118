"""`benchmarks.annotation`: every contender trains, predicts and is scored on the same data."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.annotation import (
    ORGANISMS,
    READ_RELATIVES,
    TRAINED,
    UNTRAINED,
    Data,
    evaluate,
    group_scores,
    predict_by,
    settings_of,
    summaries,
    train,
)

from reformer.data.build import build_token_array
from reformer.genomics.annotation.annotator import AnnotationSettings
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.data import LabelledSequences
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.base_encoding import BaseEncoding
from tests.cli.dna.test_annotate import write_genome


@pytest.fixture
def data(tmp_path):
    organism = replace(ORGANISMS["yeast"], stages=((0.5, 256, 2), (0.5, "full", 1)))
    scheme = ClassScheme(organism.kinds)
    train_files, test_files = write_genome(tmp_path, 0), write_genome(tmp_path, 1)
    sets = [
        LabelledSequences.of(build_token_array(genome, tmp_path / "cache"), [genes], scheme)
        for genome, genes in (train_files, test_files)
    ]
    grammar = Grammar.of(sets[0].genes, sets[0].letters, len(sets[0].array))
    settings = AnnotationSettings(
        scheme, BaseEncoding(), grammar, sets[0].coding_model(), sets[0].signal_model(grammar)
    )
    return Data(organism, sets[0], sets[1], settings)


@pytest.mark.parametrize("name", TRAINED)
def test_a_contender_trains_in_all_stages_and_is_scored(data, name):
    annotator, facts = train(name, data, 0.1, seed=0)
    assert facts["steps"] >= 2
    assert facts["longest_sequence"] == max(data.train.array.records.lengths)
    row = evaluate(data, predict_by(annotator), annotator.settings)
    assert row["likeliest"]["groups"]["intergenic"]["true"] == len(data.test.array) - 12 * 126
    assert 0 <= row["decoded"]["macro_f1"] <= 1
    assert 0 <= row["decoded without codon statistics"]["macro_f1"] <= 1
    assert (annotator.settings.hints is not None) == (name in READ_RELATIVES)


def test_codon_statistics_alone_find_what_codons_tell(data):
    predict, _ = UNTRAINED["markov"](data)
    scores = evaluate(data, predict, settings_of("markov", data))
    assert scores["genes"]["exact stop"]["recall"] > 0.7
    for name, are_there in (("markov", True), ("grammar", False)):
        settings = settings_of(name, data)
        assert (settings.coding is not None, settings.signals is not None) == (are_there, are_there)


def test_the_grammar_alone_calls_long_open_reading_frames(data):
    predict, _ = UNTRAINED["grammar"](data)
    probabilities, _ = predict(np.asarray(data.test.array.tokens))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities == probabilities[0]).all()


def test_constant_probabilities_have_the_nats_of_their_shares(data):
    predict, _ = UNTRAINED["grammar"](data)
    (row,), _ = predict(np.zeros(1, dtype=np.uint8))
    found = evaluate(data, predict, settings_of("grammar", data))
    assert found["nats_per_base"] == pytest.approx(-np.log(row[data.test.labels]).mean())


def test_groups_of_classes_are_scored_together():
    organism = ORGANISMS["fly"]
    scheme = ClassScheme(organism.kinds)
    confusion = np.zeros((len(scheme.names),) * 2)
    coding, exon, intron = (scheme.names.index(name) for name in ("CDS+1", "exon+", "intron+"))
    confusion[coding, exon], confusion[exon, exon], confusion[exon, intron] = 2, 3, 5
    scores = group_scores(organism, scheme, confusion)
    assert scores["exon+"] == {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "predicted": 5, "true": 10}
    assert scores["intron+"]["precision"] == 0


def test_means_and_deviations_over_seeds():
    groups = {"intergenic": {"f1": 0.5}}
    rows = [
        {
            "contender": "cnn",
            "decoded": {"macro_f1": f1, "groups": groups},
            "likeliest": {"macro_f1": f1},
            "nats_per_base": 1 - f1,
            "genes": {},
        }
        for f1 in (0.7, 0.9)
    ]
    found = summaries(rows)["cnn"]
    assert found["seeds"] == 2
    assert found["nats per base"]["mean"] == pytest.approx(0.2)
    assert found["macro F1"] == pytest.approx({"mean": 0.8, "sd": 0.02**0.5})
