"""Goals of every kind of model, against what the model says of one sequence at a time."""

import numpy as np
import pytest
import torch

from reformer import (
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
)
from reformer.data.build import build_token_array
from reformer.data.nucleotides import complement_ids
from reformer.data.tokenizers import NucleotideTokenizer
from reformer.errors import UserError
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.classifier import ClassificationSettings, Classifier
from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.design.evolution import evolve
from reformer.genomics.design.goals import load_goal
from reformer.genomics.genome import Genome
from reformer.genomics.tracks.levels import Levels
from reformer.genomics.tracks.predictor import TrackPredictor, TrackSettings
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.gene_scorer import GeneScorer
from reformer.genomics.variants.scorers import load_scorer
from tests.genomics.variants.gene_models import coding_text, write_gene_model
from tests.models.small_models import build

LABELS = ("a", "b", "c")


def random_letters(number, length, seed=0, letters="ACGT"):
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(letters), length)) for _ in range(number)]


def ids_of(letters):
    return np.array(NucleotideTokenizer()(letters)["input_ids"], dtype=np.uint8)


def write_language_model(folder, kind, **config):
    tokenizer = NucleotideTokenizer()
    is_decoder = kind is ReformerForCausalLM
    model = build(kind, vocab_size=len(tokenizer), is_decoder=is_decoder, **config)
    if model.config.rc_equivariant:
        model.strands.set(complement_ids(len(tokenizer)), complement_ids(len(tokenizer)))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, model


def write_classifier(folder, problem_type):
    settings = ClassificationSettings(LABELS, BaseEncoding(3), 0.5, problem_type)
    vocab_size = settings.encoding.vocab_size
    build(
        ReformerForSequenceClassification, vocab_size=vocab_size, num_labels=3, classifier_pooling="mean"
    ).save_pretrained(folder)
    settings.write(folder)
    return folder


def write_track_model(folder):
    levels = (Levels(1.0, 0.0, 3.0, (0.0, 1.0, 8.0)), Levels(2e-9, 0.0, 3.0, (0.0, 3e-9, 9e-9)))
    settings = TrackSettings(("coverage", "faint"), levels, (0, 1), "fold")
    build(ReformerForTokenClassification, vocab_size=9, num_labels=6).save_pretrained(folder)
    settings.write(folder)
    return folder


def test_a_causal_model_finds_what_its_probabilities_say(tmp_path):
    folder, model = write_language_model(tmp_path / "m", ReformerForCausalLM)
    texts = random_letters(3, 37, letters="ACGTN")

    def of_strand(text):
        ids = torch.tensor(ids_of(text).astype(int))[None]
        with torch.no_grad():
            found = model(input_ids=ids).logits.double().log_softmax(-1)[0]
        return sum(float(found[i - 1, ids[0, i]]) for i in range(1, len(text)) if text[i] != "N")

    expected = [(of_strand(one) + of_strand(reverse_complement(one))) / 2 for one in texts]
    goal = load_goal(folder, None, "cpu")
    np.testing.assert_allclose(goal.values(texts), expected, atol=2e-5)
    assert np.ptp(expected) > 0.1
    assert goal.longest is None


def test_differences_are_the_scores_of_variants(tmp_path):
    folder, _ = write_language_model(tmp_path / "m", ReformerForCausalLM)
    (text,) = random_letters(1, 60)
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    changes = [Change(at, at + 1, base) for at, base in ((0, "A"), (30, "C"), (30, "G"), (59, "T"))]
    changed = [text[: one.start] + one.inserted + text[one.end :] for one in changes]
    with Genome(tmp_path / "g.fa") as genome:
        expected = load_scorer(folder, "cpu", 240, 240).scores(genome, "c", changes)[0]
    before, *after = load_goal(folder, None, "cpu").values([text, *changed])
    # A change of the first base on a strand is scored by those behind it there, and so it is here.
    np.testing.assert_allclose(np.array(after) - before, expected, atol=5e-5)


@pytest.mark.parametrize("rc_equivariant", [False, True])
def test_a_masked_model_fills_in_each_base_once(tmp_path, rc_equivariant):
    folder, model = write_language_model(tmp_path / "m", ReformerForMaskedLM, rc_equivariant=rc_equivariant)
    texts = random_letters(2, 23, letters="ACGTN")
    mask_id = NucleotideTokenizer().mask_token_id

    def of_strand(text):
        total = 0.0
        for first in range(7):  # a seventh is nearest to the share of training
            ids = torch.tensor(ids_of(text).astype(int))[None]
            masked = ids.clone()
            masked[0, first::7] = mask_id
            with torch.no_grad():
                found = model(input_ids=masked).logits.double().log_softmax(-1)[0]
            places = [i for i in range(first, len(text), 7) if text[i] != "N"]
            total += sum(float(found[i, ids[0, i]]) for i in places)
        return total

    expected = [(of_strand(one) + of_strand(reverse_complement(one))) / 2 for one in texts]
    np.testing.assert_allclose(load_goal(folder, "likelihood", "cpu").values(texts), expected, atol=2e-5)


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification"])
def test_labels_have_the_classifiers_probabilities(tmp_path, problem_type):
    folder = write_classifier(tmp_path / "m", problem_type)
    texts = random_letters(4, 50)
    (tmp_path / "s.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    classifier = Classifier.load(folder, "cpu")
    logits = classifier.logits(build_token_array(tmp_path / "s.fa", tmp_path / "cache"))
    probabilities = classifier.settings.probabilities(logits)
    for number, label in enumerate(LABELS):
        found = load_goal(folder, label, "cpu").values(texts)
        np.testing.assert_allclose(np.exp(found), probabilities[:, number], rtol=1e-4)
    certain = np.array([[-300.0, 0, 300.0]], dtype=np.float32)
    found = classifier.settings.log_probabilities(certain)[0]
    assert found[2] == pytest.approx(0, abs=1e-9)
    assert found[0] == pytest.approx(-1200 if problem_type.startswith("single") else -600)


def test_tracks_are_predicted_in_a_batch_as_alone(tmp_path):
    folder = write_track_model(tmp_path / "m")
    texts = random_letters(4, 50)
    predictor = TrackPredictor.load(folder, "cpu")
    for number, track in enumerate(("coverage", "faint")):
        expected = [predictor.predict(ids_of(one))[:, number].mean() for one in texts]
        found = load_goal(folder, track, "cpu").values(texts)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert np.ptp(found) > 0.001 * found.max()


def test_genes_are_read_as_variants_are_scored(tmp_path):
    folder = write_gene_model(tmp_path / "m")
    gene = coding_text(np.random.default_rng(1), 60)
    text = "".join(random_letters(1, 100)) + gene + "".join(random_letters(1, 100, seed=1))
    (tmp_path / "g.fa").write_text(f">c\n{text}\n")
    place = 100 + 3 * 30
    changed = text[:place] + "T" + text[place + 1 :]
    with Genome(tmp_path / "g.fa") as genome:
        scorer = GeneScorer(Annotator.load(folder, "cpu"), 3 * len(text), folder)
        expected = scorer.scores(genome, "c", [Change(place, place + 1, "T")])[0, 0]
    goal = load_goal(folder, None, "cpu")
    assert goal.name == "genes"
    before, after = goal.values([text, changed])
    assert after - before == pytest.approx(expected, abs=2e-6)
    assert before > 20


@pytest.mark.parametrize("kind", ["language", "label", "track"])
def test_designs_get_better_and_have_the_models_values(tmp_path, kind):
    folder, name = tmp_path / "m", None
    if kind == "language":
        write_language_model(folder, ReformerForCausalLM)
    elif kind == "label":
        write_classifier(folder, "single_label_classification")
        name = "b"
    else:
        write_track_model(folder)
        name = "coverage"
    goal = load_goal(folder, name, "cpu")
    (start,) = random_letters(1, 12, seed=3)
    (found,) = evolve(goal.values, start, steps=2)
    assert len(found.steps) == 2
    text, before = start, goal.values([start])[0]
    for step in found.steps:
        children = [text[:i] + base + text[i + 1 :] for i in range(12) for base in "ACGT" if base != text[i]]
        text = text[: step.position] + step.new + text[step.position + 1 :]
        assert step.value == pytest.approx(goal.values([text])[0], abs=1e-4)
        assert step.value == pytest.approx(goal.values(children[::-1]).max(), abs=1e-4)
        assert step.value > before
        before = step.value
    assert text == found.letters


def test_a_name_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    label = write_classifier(tmp_path / "label", "single_label_classification")
    language, _ = write_language_model(tmp_path / "language", ReformerForCausalLM)
    track = write_track_model(tmp_path / "track")
    gene = write_gene_model(tmp_path / "gene")
    for folder, name, message in (
        (label, None, "no goal is named: expected --goal to be one of a, b, c"),
        (label, "d", "no goal 'd': expected --goal to be one of a, b, c"),
        (language, "a", "no goal 'a': expected --goal to be one of likelihood"),
        (track, "likelihood", "no goal 'likelihood': expected --goal to be one of coverage, faint"),
        (gene, "a", "no goal 'a': expected --goal to be one of genes"),
        (write_gene_model(tmp_path / "exons", ("exon",)), None, "no gene grammar: expected CDS"),
    ):
        with pytest.raises(UserError, match=message):
            load_goal(folder, name, "cpu")
