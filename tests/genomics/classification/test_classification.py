import json
from pathlib import Path

import numpy as np
import pytest
import torch

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.data.tokens import TokenArray
from reformer.errors import UserError
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.batches import ClassificationBatches, padded
from reformer.genomics.classification.classifier import ClassificationSettings, Classifier
from reformer.genomics.classification.data import ClassificationData, class_weights, deal, sequence_groups
from reformer.genomics.classification.metrics import (
    OneLabel,
    SeveralLabels,
    average_precision,
    fit_temperature,
    sigmoid,
    softmax,
)
from reformer.genomics.classification.recipe import load_classification_recipe
from reformer.genomics.coordinates import reverse_complement as complement_letters
from reformer.genomics.formats.label_files import (
    check_all_used,
    class_names,
    read_labels,
    target_matrix,
    targets,
)
from reformer.models.auto import ReformerConfig, ReformerForSequenceClassification
from reformer.training.recipe import Stage
from tests.training.conftest import TINY_MODEL

ENCODING = BaseEncoding(2, orf_lengths=())


def array_of(folder: Path, *texts: str) -> TokenArray:
    (folder / "s.fa").write_text("".join(f">s{n}\n{text}\n" for n, text in enumerate(texts)))
    return build_token_array(folder / "s.fa", folder / "cache")


def random_texts(*lengths: int) -> list[str]:
    generator = np.random.default_rng(0)
    return ["".join(generator.choice(list("ACGT"), length)) for length in lengths]


def write_labels(folder: Path, text: str) -> Path:
    (folder / "l.tsv").write_text(text)
    return folder / "l.tsv"


def test_labels_are_read_with_their_lines(tmp_path: Path) -> None:
    labels = read_labels([write_labels(tmp_path, "# name\tlabel\ns1\tb c\n\ns0\ta\r\n")])
    assert {name: one.label for name, (one,) in labels.items()} == {"s1": "b c", "s0": "a"}
    assert labels["s0"][0].place.line == 4
    assert class_names(labels) == ("a", "b c")
    array = array_of(tmp_path, "ACGT", "AC")
    assert targets(array, labels, ("a", "b c")).tolist() == [0, 1]


def test_a_sequence_may_have_several_labels(tmp_path: Path) -> None:
    labels = read_labels([write_labels(tmp_path, "s1\tb\ns0\ta\ns1\tc\n")], several=True)
    array = array_of(tmp_path, "ACGT", "AC")
    assert class_names(labels) == ("a", "b", "c")
    assert target_matrix(array, labels, ("a", "b", "c")).tolist() == [[1, 0, 0], [0, 1, 1]]
    with pytest.raises(UserError, match=r"line 3: sequence 's1' has the label 'b' already, in .*, line 1"):
        read_labels([write_labels(tmp_path, "s1\tb\ns0\ta\ns1\tb\n")], several=True)
    with pytest.raises(UserError, match="line 3: label 'c' is unknown: expected one of 'a', 'b'"):
        target_matrix(array, labels, ("a", "b"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s0 a\n", "line 1: 1 column(s): expected a name, a tab and a label"),
        ("s0\ta\tb\n", "line 1: 3 column(s)"),
        ("s0\t \n", "line 1: the label is empty"),
        ("\ta\n", "line 1: the name is empty"),
        ("s0\ta\ns0\tb\n", "line 2: sequence 's0' has a label already, in"),
        ("s0\ta\ns0\tb\n", "several need problem_type multi_label_classification"),
        ("# nothing\n", "no label: expected lines"),
    ],
)
def test_mistakes_in_labels_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_labels([write_labels(tmp_path, text)])
    assert message in str(caught.value)
    assert "l.tsv" in str(caught.value)


def test_sequences_and_labels_must_match(tmp_path: Path) -> None:
    array = array_of(tmp_path, "ACGT", "AC")
    labels = read_labels([write_labels(tmp_path, "s0\ta\nS1\tb\n")])
    with pytest.raises(UserError, match=r"sequence 's1' has no label in .*l\.tsv"):
        targets(array, labels, ("a", "b"))
    with pytest.raises(UserError, match=r"l\.tsv: sequence 'S1' is not in .*s\.fa, which has 's1'"):
        check_all_used(labels, array)
    with pytest.raises(UserError, match=r"line 1: label 'a' is unknown: expected one of 'b', 'c'"):
        targets(array, labels, ("b", "c"))


def test_identical_sequences_are_dealt_together_and_classes_evenly(tmp_path: Path) -> None:
    texts = random_texts(*[30] * 40)
    texts += [texts[0], texts[1], complement_letters(texts[2])]
    array = array_of(tmp_path, *texts)
    classes = np.array([0] * 30 + [1] * 10 + [0] * 3)
    for both_strands, num_groups in ((False, 41), (True, 40)):
        groups = sequence_groups(array, both_strands)
        assert len(set(groups)) == num_groups
        parts = deal(array, classes, 5, 3, both_strands)
        assert parts[40] == parts[0]
        assert parts[41] == parts[1]
        assert not both_strands or parts[42] == parts[2]
        for part in range(5):
            chosen = classes[:40][parts[:40] == part]
            assert len(chosen) == pytest.approx(8, abs=1)
            assert (chosen == 1).sum() == 2
    assert not np.array_equal(parts, deal(array, classes, 5, 4, True))
    with pytest.raises(UserError, match="40 different sequences: expected as many as folds, 41"):
        deal(array, classes, 41, 0, True)


def test_parts_have_every_label_and_share_no_sequence(tmp_path: Path) -> None:
    """With rare labels that share their sequences, those of one in a single sequence twice over."""
    texts = random_texts(*range(20, 60))
    texts += texts[:3]
    array_of(tmp_path, *texts)
    labels = [[f"s{n}", "all"] for n in range(43)] + [[f"s{n}", f"rare{n % 14}"] for n in range(28)]
    labels += [["s0", "twice"], ["s40", "twice"]]  # of one sequence
    write_labels(tmp_path, "".join(f"{name}\t{label}\n" for name, label in labels))
    for seed in range(6):
        values = {
            "data.train": [str(tmp_path / "s.fa")],
            "data.cache_dir": str(tmp_path / "cache"),
            "classification.train": [str(tmp_path / "l.tsv")],
            "classification.problem_type": "multi_label_classification",
            "classification.folds": 5,
            "training.seed": seed,
        }
        given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
        data = ClassificationData.of(load_classification_recipe(None, given))
        parts = {"train": data.train, **data.held_out}
        assert list(parts) == ["train", "test", "validation"]
        assert list(data.validation) == ["validation"]
        assert data.targets["train"].any(axis=0).all()
        read = {
            name: {array.window(r.start, r.length).tobytes() for r in array.records}
            for name, array in parts.items()
        }
        assert sum(map(len, read.values())) == 40
        assert sum(len(array.records) for array in parts.values()) == 43
        assert min(len(array.records) for array in data.held_out.values()) >= 5
        for name, array in parts.items():
            true = data.targets["train" if name == "train" else f"eval.{name}"]
            own = [{data.settings.classes[i] for i in np.flatnonzero(row)} for row in true]
            assert own == [{y for x, y in labels if x == record.name} for record in array.records]


def test_an_epoch_has_every_sequence_once_with_its_label(tmp_path: Path) -> None:
    texts = random_texts(*range(10, 34))
    array = array_of(tmp_path, *texts)
    classes = np.arange(24) % 3
    stages = [Stage(length=64, steps=12, batch_size=4), Stage(length=16, steps=4, batch_size=2)]
    batches = ClassificationBatches(array, classes, ENCODING, stages, 7, 1, other_strand=True)
    assert len(batches) == 16
    epochs = [np.concatenate([batches.rows(i) for i in range(first, first + 6)]) for first in (0, 6)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(24))] * 2
    assert not np.array_equal(*epochs)
    strands, starts = set(), set()
    for index in range(16):
        batch, spans = batches[index], batches.spans(index)
        assert batch["labels"].tolist() == classes[batches.rows(index)].tolist()
        longest = max(span.length for span in spans)
        assert batch["input_ids"].shape == (len(spans), longest)
        assert longest - min(span.length for span in spans) <= 3 or index >= 12
        for number, (row, span) in enumerate(zip(batches.rows(index), spans, strict=True)):
            strands.add(span.is_other_strand)
            offset = span.start - array.records[int(row)].start
            starts.add(offset)
            assert span.length == min(len(texts[row]), 64 if index < 12 else 16)
            tokens = array.window(span.start, span.length)
            tokens = reverse_complement(tokens) if span.is_other_strand else tokens
            real = batch["input_ids"][number, : span.length].numpy()
            assert np.array_equal(real, ENCODING.ids(tokens))
            if "attention_mask" in batch:
                assert batch["attention_mask"][number].sum() == span.length
    assert strands == {True, False}
    assert len(starts) > 2
    assert batches.num_tokens(12) == 2 * sum(map(len, texts))
    assert batches.num_tokens(16) == batches.num_tokens(12) + sum(
        span.length for index in range(12, 16) for span in batches.spans(index)
    )


def test_batches_larger_than_the_data_have_all_of_it(tmp_path: Path) -> None:
    array = array_of(tmp_path, *random_texts(10, 11, 12))
    stages = [Stage(length="full", steps=3, batch_size=1), Stage(length=64, steps=3, batch_size=8)]
    batches = ClassificationBatches(array, np.arange(3), ENCODING, stages, 0, 1, other_strand=False)
    assert sorted(int(batches.rows(index)[0]) for index in range(3)) == [0, 1, 2]
    assert sorted(batches[4]["labels"].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("pooling", ["token", "mean", "flatten"])
def test_an_equivariant_model_reads_either_strand_alike(tmp_path: Path, pooling: str) -> None:
    """Whatever the length is modulo 3, in batches and in training alike."""
    encoding = BaseEncoding(3, orf_lengths=())
    texts = random_texts(20, 21, 22, 64, 90)
    folders = [tmp_path / "here", tmp_path / "there"]
    arrays = []
    for folder, own in zip(folders, (texts, [complement_letters(text) for text in texts]), strict=True):
        folder.mkdir()
        arrays.append(array_of(folder, *own))
    torch.manual_seed(0)
    config = ReformerConfig(
        **TINY_MODEL,
        local_num_chunks_after=1,
        max_position_embeddings=90,
        classifier_pooling=pooling,
        vocab_size=encoding.vocab_size,
        num_labels=3,
        rc_equivariant=True,
    )
    model = ReformerForSequenceClassification(config).eval()
    model.strands.set(encoding.complement.tolist(), range(3))
    settings = ClassificationSettings(("a", "b", "c"), encoding)
    model.save_pretrained(tmp_path / "model")
    settings.write(tmp_path / "model")
    classifier = Classifier.load(tmp_path / "model", "cpu")
    here, there = (classifier.logits(array) for array in arrays)
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-5)
    assert np.array_equal(here, Classifier(model, settings).logits(arrays[0]))
    assert np.abs(here[0] - here[1]).max() > 1e-3
    stages = [Stage(length=96, steps=2, batch_size=5)]
    batches = [
        ClassificationBatches(
            a, np.arange(5) % 3, encoding, stages, 0, 1, other_strand=False, either_strand=True
        )
        for a in arrays
    ]
    one, other = (model(**batch[0]) for batch in batches)
    torch.testing.assert_close(one.loss, other.loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize("pooling", ["token", "mean", "flatten"])
def test_logits_do_not_depend_on_the_batch(tmp_path: Path, pooling: str) -> None:
    texts = random_texts(20, 90, 41, 20)
    array = array_of(tmp_path, *texts)
    torch.manual_seed(0)
    config = ReformerConfig(
        **TINY_MODEL,
        local_num_chunks_after=1,
        max_position_embeddings=90,
        classifier_pooling=pooling,
        vocab_size=ENCODING.vocab_size,
        num_labels=3,
    )
    model = ReformerForSequenceClassification(config).eval()
    classifier = Classifier(model, ClassificationSettings(("a", "b", "c"), ENCODING))
    together = classifier.logits(array)
    other = classifier.logits(array, other_strand=True)
    for row, record in enumerate(array.records):
        tokens = array.window(record.start, record.length)
        for expected, read in ((together, tokens), (other, reverse_complement(tokens))):
            with torch.no_grad():
                alone = model(**padded(ENCODING, [read])).logits[0]
            assert np.allclose(alone, expected[row], atol=2e-5)
    shared = sum(classifier.logits(array, process=(index, 2)) for index in range(2))
    assert np.allclose(shared, together, atol=2e-5)
    if pooling != "token":  # the last base counts, though no attention reaches from it to the first
        changed = "".join(reversed(texts[1][-30:]))
        longer = array_of(tmp_path, texts[0], texts[1][:-30] + changed)
        assert np.abs(classifier.logits(longer)[1] - together[1]).max() > 1e-5


def test_class_weights_balance() -> None:
    classes = np.array([0] * 6 + [1] * 2)
    weights = class_weights(classes, 2, "balanced")
    assert weights == [8 / 12, 2]
    assert np.mean(np.array(weights)[classes]) == 1
    assert class_weights(classes, 2, "none") is None


def test_scores_are_those_of_the_definition() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.05, 0.9, 0.05]])
    found = OneLabel(("a", "b", "c"), np.array([0, 1, 2, 2]), probabilities)
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert found.accuracy() == 0.5
    assert found.top_k_accuracy(2) == 0.75
    assert found.macro_f1() == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)
    assert found.nats() == pytest.approx(-np.log([0.6, 0.4, 0.7, 0.05]).mean())
    # 0.6, 0.5, 0.7 and 0.9 fall into bins of their own
    assert found.calibration_error() == pytest.approx((0.4 + 0.5 + 0.3 + 0.9) / 4)
    assert json.loads(json.dumps(found.to_json()))["classes"]["c"]["recall"] == 0.5


def test_the_likeliest_classes_are_calibrated_or_not() -> None:
    probabilities = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.2, 0.7], [0.05, 0.9, 0.05]])
    found = OneLabel(("a", "b", "c"), np.array([0, 1, 2, 2]), probabilities)
    assert found.ranks == (1, 2)
    assert found.top_k_calibration() == {
        1: {
            "expected": pytest.approx(2.7 / 4),
            "found": 0.5,
            "expected_calibration_error": pytest.approx(2.1 / 4),
        },
        # 0.9 twice (one bin, both found), 0.9 (found) and 0.95 (not): bins of 13.5 and 14.25 fifteenths
        2: {
            "expected": pytest.approx(3.65 / 4),
            "found": 0.75,
            "expected_calibration_error": pytest.approx(1.25 / 4),
        },
    }
    generator = np.random.default_rng(0)
    logits = 2 * generator.standard_normal((20_000, 6))
    classes = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    for factor, is_calibrated in ((1, True), (3, False)):
        found = OneLabel(tuple("abcdef"), classes, softmax(factor * logits)).top_k_calibration()
        for k, one in found.items():
            share = np.mean(
                [c in row[:k] for c, row in zip(classes, np.argsort(-logits, axis=1), strict=True)]
            )
            assert one["found"] == pytest.approx(share)
            # Of 5 out of 6 classes, even probabilities that are too sure are nearly right.
            assert (one["expected_calibration_error"] < 0.011) == (is_calibrated or k == 5)
            assert abs(one["expected"] - one["found"]) <= one["expected_calibration_error"] + 1e-9


def test_scores_of_several_labels_are_those_of_the_definition() -> None:
    true = np.float32([[1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 0]])
    probabilities = np.array([[0.9, 0.2, 0.6, 0.1], [0.3, 0.8, 0.4, 0.2], [0.7, 0.1, 0.2, 0.1]])
    found = SeveralLabels(("a", "b", "c", "d"), true, probabilities)
    scores = found.by_class()
    counts = {name: (s.num_right, s.num_predicted, s.num_true) for name, s in scores.items()}
    assert counts == {"a": (2, 2, 2), "b": (1, 1, 2), "c": (0, 1, 1), "d": (0, 0, 0)}
    assert found.macro_f1() == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found.micro_f1() == pytest.approx(2 * 3 / (4 + 5))
    assert found.average_precision() == {
        "a": 1,
        "b": pytest.approx((1 + 2 / 3) / 2),  # of 0.8, 0.2, 0.1 the first and the last
        "c": pytest.approx(1 / 2),
        "d": None,
    }
    assert found.recall_at_k(1) == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert found.recall_at_k(2) == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert found.top_k_calibration()[2]["found"] == pytest.approx((1 + 2 + 1) / 6)
    assert found.top_k_calibration()[2]["expected"] == pytest.approx((1.5 + 1.2 + 0.9) / 6)
    of_truth = np.where(true > 0, probabilities, 1 - probabilities)
    assert found.nats() == pytest.approx(-np.log(of_truth).mean())
    assert json.loads(json.dumps(found.to_json()))["classes"]["b"]["recall"] == 0.5


def test_average_precision_takes_equal_scores_together() -> None:
    is_true = np.array([False, False, True, True])
    assert average_precision(is_true, np.array([0.1, 0.4, 0.35, 0.8])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(is_true, np.full(4, 0.5)) == 0.5


def test_the_temperature_of_several_labels_is_found() -> None:
    generator = np.random.default_rng(0)
    calibrated = 2 * generator.standard_normal((10_000, 4))
    labels = (generator.random(calibrated.shape) < sigmoid(calibrated)).astype(np.float32)
    assert fit_temperature(2.5 * calibrated, labels) == pytest.approx(2.5, rel=0.05)


def test_the_temperature_that_made_the_labels_is_found() -> None:
    generator = np.random.default_rng(0)
    calibrated = 2 * generator.standard_normal((20_000, 4))
    classes = (calibrated + generator.gumbel(size=calibrated.shape)).argmax(axis=1)
    assert fit_temperature(2.5 * calibrated, classes) == pytest.approx(2.5, rel=0.05)
    before = OneLabel(tuple("abcd"), classes, softmax(2.5 * calibrated)).calibration_error()
    after = OneLabel(tuple("abcd"), classes, softmax(calibrated)).calibration_error()
    assert after < before / 5
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(1 / 20, rel=1e-3)


def test_settings_are_read_as_written_or_refused(tmp_path: Path) -> None:
    settings = ClassificationSettings(("a", "b"), ENCODING, 1.5)
    settings.write(tmp_path)
    assert ClassificationSettings.read(tmp_path) == settings
    file = tmp_path / "classification.json"
    for text, message in (
        ('{"format": "x"}', "expected"),
        ('{"format": "reformer classification"}', "damaged"),
        (file.read_text().replace("1.5", "-1"), "damaged"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            ClassificationSettings.read(tmp_path)
