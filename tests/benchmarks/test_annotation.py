"""`benchmarks.annotation`: every contender trains, predicts and is scored on the same data."""

import numpy as np
import pytest
from benchmarks.annotation import TRAINED, Data, evaluate, grammar_alone, markov, train

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.genomics.annotation_data import LabelledSequences
from reformer.genomics.annotator import AnnotationSettings
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classes import ClassScheme
from reformer.genomics.grammar import Grammar
from tests.cli.dna.test_annotate import write_genome


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.annotation.WINDOW", 256)
    scheme = ClassScheme(("CDS", "RNA", "intron"))
    train_files, test_files = write_genome(tmp_path, 0), write_genome(tmp_path, 1)
    letters = "".join(line for line in test_files[0].read_text().splitlines() if line[0] != ">")
    test_files[0].write_text(f">rec0\n{letters}\n")  # one record
    test_files[1].write_text(
        "\n".join(
            line for line in test_files[1].read_text().splitlines() if not line.startswith(("rec1", "rec2"))
        )
    )
    sets = [
        LabelledSequences.of(build_token_array(genome, tmp_path / "cache"), [genes], scheme)
        for genome, genes in (train_files, test_files)
    ]
    grammar = Grammar.of(sets[0].genes, sets[0].letters, len(sets[0].array))
    return Data(sets[0], sets[1], AnnotationSettings(scheme, BaseEncoding(), grammar))


@pytest.mark.parametrize("name", TRAINED)
def test_a_contender_trains_and_is_scored(data, name):
    predict, facts = train(TRAINED[name], data, 0.05, seed=0)
    assert facts["steps"] >= 1
    row = evaluate(data, predict, is_trained=True)
    assert row["likeliest"]["classes"]["intergenic"]["true"] == len(data.test.array) - 4 * 126
    assert 0 <= row["decoded"]["macro_f1"] <= 1


def test_markov_chains_find_what_codons_tell(data):
    predict, _ = markov(data)
    scores = evaluate(data, predict, is_trained=False)
    assert scores["genes"]["exact stop"]["recall"] > 0.7
    tokens = np.asarray(data.test.array.tokens)
    other = predict(reverse_complement(tokens))[::-1][:, data.settings.scheme.other_strand]
    assert np.allclose(other, predict(tokens))


def test_the_grammar_alone_calls_long_open_reading_frames(data):
    predict, _ = grammar_alone(data)
    probabilities = predict(np.asarray(data.test.array.tokens))
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (probabilities == probabilities[0]).all()
