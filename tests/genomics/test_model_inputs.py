"""Vectors of models of genes and of classifiers: the model's own head makes of them what the model says."""

import numpy as np
import pytest
import torch

from reformer import ReformerForSequenceClassification, ReformerForTokenClassification
from reformer.data.build import build_token_array
from reformer.data.nucleotides import nucleotide_table
from reformer.genomics.annotation.annotator import AnnotationSettings, Annotator
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.relatives import Relatives, num_features
from reformer.genomics.base_encoding import BaseEncoding, by_frame
from reformer.genomics.classification.classifier import ClassificationSettings, Classifier
from reformer.genomics.embedding import Embedder, stretches
from reformer.genomics.genome import Genome
from reformer.genomics.model_inputs import load_reader
from reformer.genomics.strands import StrandedSequence
from tests.models.small_models import build
from tests.training.conftest import write_fasta

SCHEME = ClassScheme(kinds=("CDS",))
ENCODING = BaseEncoding(3, orf_lengths=(9, 30))
BED = b"record0\t10\t91\tplus\t0\t+\nrecord1\t5\t40\tminus\t0\t-\nrecord0\t0\t7\n"


def ids_of(letters):
    return np.frombuffer(letters.encode().translate(nucleotide_table("fold")), dtype=np.uint8)


@pytest.fixture
def genome(tmp_path):
    with Genome(write_fasta(tmp_path / "g.fa", 300, 50, letters="ACGTN")) as opened:
        yield opened


def heads_of(folder, genome, items, pooling, *seed):
    """The logits that a model's head makes of vectors, and the model."""
    model, lower_case, inputs = load_reader(folder, "cpu")
    embedder = Embedder(model, genome, lower_case, pooling, False, inputs)
    found = [torch.from_numpy(batch["embedding"]) for batch in embedder.rows(items)]
    with torch.no_grad():
        logits = model.classifier(torch.cat(found), *seed)
    model.strands = None  # of an equivariant model, what one strand says
    return logits, model


@pytest.mark.parametrize("kind", ["plain", "relatives", "equivariant"])
def test_bases_as_the_annotator_reads_them(genome, write, tmp_path, kind):
    tokens = StrandedSequence(genome, "record0", "+", "fold").ids(0, 300)
    labels = np.random.default_rng(0).integers(len(SCHEME.names), size=300).astype(np.uint8)
    relatives = Relatives.of([(tokens, labels)], SCHEME) if kind == "relatives" else None
    settings = AnnotationSettings(SCHEME, ENCODING, None, relatives=relatives)
    network = build(
        ReformerForTokenClassification,
        vocab_size=ENCODING.vocab_size,
        num_labels=len(SCHEME.names),
        num_input_features=num_features(len(SCHEME.names)) if kind == "relatives" else 0,
        rc_equivariant=kind == "equivariant",
    )
    network.save_pretrained(tmp_path / "model")
    settings.write(tmp_path / "model")
    items = list(stretches(genome, write("r.bed", BED)))
    logits, model = heads_of(tmp_path / "model", genome, items, "per-base")
    annotator = Annotator(model, settings)
    for item, found in zip(items, logits.split([len(item.interval) for item in items]), strict=True):
        bases = ids_of(genome.letters(item.interval))
        expected = annotator.probabilities(bases, both_strands=False)
        assert np.ptp(expected, axis=0).max() > 0.1
        found = by_frame(SCHEME, found.softmax(-1).numpy(), len(bases) % 3)
        np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("rc_equivariant", [False, True])
def test_sequences_as_the_classifier_reads_them(genome, write, tmp_path, rc_equivariant):
    settings = ClassificationSettings(("a", "b", "c"), ENCODING)
    network = build(
        ReformerForSequenceClassification,
        vocab_size=ENCODING.vocab_size,
        num_labels=3,
        classifier_pooling="mean",
        rc_equivariant=rc_equivariant,
    )
    network.save_pretrained(tmp_path / "model")
    settings.write(tmp_path / "model")
    items = list(stretches(genome, write("r.bed", BED)))
    found, model = heads_of(tmp_path / "model", genome, items, "mean", None)
    texts = [genome.letters(item.interval) for item in items]
    (tmp_path / "s.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    expected = Classifier(model, settings).logits(build_token_array(tmp_path / "s.fa", tmp_path / "cache"))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.ptp(expected, axis=0).max() > 0.1
