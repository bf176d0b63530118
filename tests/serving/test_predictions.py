"""Models of genes, labels, tracks and the structure of proteins over HTTP, next to the Python API."""

import json

import numpy as np
import pytest

from reformer import ReformerForSequenceClassification, ReformerForTokenClassification
from reformer.data.build import build_token_array
from reformer.data.tokenizers import NucleotideTokenizer, ProteinTokenizer
from reformer.genomics.annotation.annotate import annotate_genome, called_genes
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.classifier import MULTI_LABEL, ClassificationSettings, Classifier
from reformer.genomics.embedding import Embedder, stretches
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.proteins import read_proteins
from reformer.genomics.genome import Genome
from reformer.genomics.model_inputs import load_reader
from reformer.genomics.structure.predictor import StructurePredictor
from reformer.genomics.tracks.levels import Levels
from reformer.genomics.tracks.predictor import TrackPredictor, TrackSettings
from reformer.serving.loading import load_service
from tests.genomics.variants.gene_models import coding_text, write_gene_model
from tests.models.small_models import build

LEVELS = (Levels(1.0, 0.0, 3.0, (0.0, 1.0, 8.0)), Levels(2.0, 0.0, 3.0, (0.0, 3.0, 9.0)))


def array_of(folder, texts):
    (folder / "s.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    return build_token_array(folder / "s.fa", folder / "cache")


def random_texts(*lengths, letters="ACGTN"):
    generator = np.random.default_rng(1)
    return ["".join(generator.choice(list(letters), length)) for length in lengths]


def test_genes(serve, tmp_path):
    folder = write_gene_model(tmp_path / "model")
    generator = np.random.default_rng(3)
    left, right, alone = random_texts(200, 150, 90, letters="ACGT")
    whole = left + coding_text(generator, 80) + right
    client = serve(load_service(folder, "cpu", 10_000))
    answer = client.post("/predict", sequences=[whole, alone], tracks=True)
    (tmp_path / "out").mkdir()
    said = {}
    found = annotate_genome(
        Annotator.load(folder, "cpu"),
        array_of(tmp_path, [whole, alone]),
        tmp_path / "out",
        tracks=False,
        open_ends=True,
        take=lambda record, start, probabilities: said.update({record.name: probabilities}),
    )
    genes = called_genes(found)
    assert genes == read_genes(tmp_path / "out" / "genes.gff3")
    assert [len(result["genes"]) for result in answer["results"]] == [len(one.genes) for one in found]
    gene, (served,) = genes[0], answer["results"][0]["genes"]
    (transcript,) = gene.transcripts
    assert (served["start"], served["end"]) == (200, 200 + 246) == (gene.interval.start, gene.interval.end)
    assert served["strand"] == gene.interval.strand == "+"
    assert served["cds"] == [[part.start, part.end, part.phase] for part in transcript.cds]
    assert served["exons"] == [[exon.start, exon.end] for exon in transcript.exons]
    assert served["partial"] == [False, False]
    assert served["gain_nats"] == pytest.approx(found[0].genes[0].score)
    for name, result in zip(("s0", "s1"), answer["results"], strict=True):
        np.testing.assert_allclose(np.array(list(result["tracks"].values())).T, said[name], atol=1e-6)
    assert list(answer["results"][0]["tracks"]) == client.get("/")["classes"]

    cut = client.post("/predict", sequences=[whole[230:]])["results"][0]
    assert [gene["partial"] for gene in cut["genes"]] == [[True, False]]
    assert "tracks" not in cut
    closed = client.post("/predict", sequences=[whole[230:]], open_ends=False)["results"][0]
    assert closed["genes"] != cut["genes"]


@pytest.mark.parametrize("problem_type", ["single_label_classification", MULTI_LABEL])
def test_labels(serve, tmp_path, problem_type):
    settings = ClassificationSettings(("a", "b", "c"), BaseEncoding(3, (9, 30)), 1.5, problem_type)
    network = build(ReformerForSequenceClassification, vocab_size=settings.encoding.vocab_size, num_labels=3)
    network.save_pretrained(tmp_path / "model")
    settings.write(tmp_path / "model")
    texts = random_texts(60, 31, 45)
    client = serve(load_service(tmp_path / "model", "cpu", 100))
    classifier, array = Classifier.load(tmp_path / "model", "cpu"), array_of(tmp_path, texts)
    one, other = (
        settings.probabilities(classifier.logits(array, other_strand=strand)) for strand in (False, True)
    )
    for both, expected in ((False, one), (True, (one + other) / 2)):
        results = client.post("/predict", sequences=texts, both_strands=both)["results"]
        assert list(results[0]["probabilities"]) == ["a", "b", "c"] == client.get("/")["classes"]
        found = [list(result["probabilities"].values()) for result in results]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3
    check_vectors(client, tmp_path, texts)


def test_tracks(serve, tmp_path):
    settings = TrackSettings(("atac", "rna"), LEVELS, (0, 1), "fold")
    vocab_size = len(NucleotideTokenizer())
    network = build(ReformerForTokenClassification, vocab_size=vocab_size, num_labels=6)
    network.save_pretrained(tmp_path / "model")
    settings.write(tmp_path / "model")
    client = serve(load_service(tmp_path / "model", "cpu", 100))
    (text,) = random_texts(70)
    (result,) = client.post("/predict", sequences=[text], both_strands=False)["results"]
    tokens = np.asarray(array_of(tmp_path, [text]).tokens)
    expected = TrackPredictor.load(tmp_path / "model", "cpu").predict(tokens, both_strands=False)
    assert list(result["tracks"]) == ["atac", "rna"] == client.get("/")["tracks"]
    for number, values in enumerate(result["tracks"].values()):
        assert [value is None for value in values] == [letter == "N" for letter in text]
        known = [i for i, letter in enumerate(text) if letter != "N"]
        np.testing.assert_allclose([values[i] for i in known], expected[known, number], rtol=1e-5)
    assert client.post("/predict", sequences=[text])["results"] != [result]
    check_vectors(client, tmp_path, [text, text[:20]])


def check_vectors(client, folder, texts):
    """Those of `dna embed`."""
    results = client.post("/embed", sequences=texts)["results"]
    array_of(folder, texts)
    model, lower_case, inputs = load_reader(folder / "model", "cpu")
    with Genome(folder / "s.fa") as genome:
        embedder = Embedder(model, genome, lower_case, "mean", False, inputs)
        expected = np.concatenate([rows["embedding"] for rows in embedder.rows(stretches(genome))])
    np.testing.assert_allclose([one["embedding"] for one in results], expected, atol=1e-5)


def test_structure_of_proteins(serve, tmp_path):
    tokenizer, labels = ProteinTokenizer(), {0: "H", 1: "E", 2: "C"}
    network = build(ReformerForTokenClassification, vocab_size=len(tokenizer), id2label=labels)
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    client = serve(load_service(tmp_path / "model", "cpu", 100))
    (tmp_path / "p.fa").write_text(">a\nMKVLAW\n>b\nMSTNPKPQRK\n")
    predictor = StructurePredictor.load(tmp_path / "model", "cpu")
    proteins = list(read_proteins(tmp_path / "p.fa"))
    results = client.post("/predict", sequences=[protein.letters for protein in proteins])["results"]
    for result, (_, expected) in zip(results, predictor.predict(proteins), strict=True):
        found = np.array([result["probabilities"][letter] for letter in "HEC"]).T
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert result["structure"] == "".join("HEC"[best] for best in expected.argmax(1))
    assert "amino acid" in client.refused("/predict", sequences=["MK1"])
    assert json.dumps(client.get("/")).count("predict") == 1
