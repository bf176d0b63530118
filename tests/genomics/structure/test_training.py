import json

import numpy as np
import pytest
import torch

from reformer import ReformerConfig, ReformerForTokenClassification
from reformer.genomics.structure.data import NO_LABEL, StructureData
from reformer.genomics.structure.metrics import ChainResult, accuracy_by_chain, scores_json
from reformer.genomics.structure.predictor import StructurePredictor
from reformer.genomics.structure.recipe import load_structure_recipe
from reformer.genomics.structure.training import StructureBatches, evaluate_chains
from reformer.training.recipe import Stage
from tests.genomics.made_structures import made_chain, write_chains
from tests.genomics.structure.test_protein_clusters import random_protein


@pytest.fixture
def data(tmp_path):
    for number, length in enumerate((35, 60, 90)):
        write_chains(tmp_path / f"c{number}.pdb", {"A": made_chain(random_protein(number, length), 20)}, "O")
    values = {
        "data.train": [str(tmp_path)],
        "data.cache_dir": str(tmp_path / "cache"),
        "structure.validation": 0,
        "structure.test": 0,
    }
    return StructureData.of(
        load_structure_recipe(None, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    )


def test_batches_are_pieces_of_chains_with_their_labels(data):
    stages = [Stage(length=50, steps=30, batch_size=3), Stage(length="full", steps=10)]
    batches = StructureBatches(data, stages, 3, 1)
    seen = set()
    for index in range(len(batches)):
        batch, spans = batches[index], batches.spans(index)
        assert batch["input_ids"].shape == (len(spans), max(span.length for span in spans))
        for row, span in enumerate(spans):
            record = max((r for r in data.train.records if r.start <= span.start), key=lambda r: r.start)
            assert span.start + span.length <= record.start + record.length
            assert span.length == (min(50, record.length) if index < 30 else record.length)
            seen.add((record.name, span.start))
            tokens = data.train.window(span.start, span.length)
            assert np.array_equal(batch["input_ids"][row, : span.length], tokens)
            labels = data.labels[span.start : span.start + span.length].astype(int)
            labels[labels == NO_LABEL] = -100
            assert np.array_equal(batch["labels"][row, : span.length], labels)
            assert (batch["labels"][row, span.length :] == -100).all()
            assert batch["attention_mask"][row].sum() == span.length
        assert batches.num_tokens(index + 1) - batches.num_tokens(index) == sum(s.length for s in spans)
    assert {name for name, _ in seen} == {"c0.pdb:A", "c1.pdb:A", "c2.pdb:A"}
    assert len(seen) > 10
    assert (batches.length(1), batches.length(31)) == (50, 90)


def test_a_share_of_the_residues_is_read_as_others(data):
    stages = [Stage(length="full", steps=300)]
    plain = StructureBatches(data, stages, 3, 1)
    changed = StructureBatches(data, stages, 3, 1, substitution=0.5)
    residues = np.concatenate([data.train.window(r.start, r.length) for r in data.train.records])
    frequencies = np.bincount(residues, minlength=25) / len(residues)
    replaced, expected, seen = [], [], set()
    for index in range(len(plain)):
        (true,), (read,) = plain[index]["input_ids"], changed[index]["input_ids"]
        assert torch.equal(plain[index]["labels"], changed[index]["labels"])
        assert torch.equal(plain[index]["attention_mask"], changed[index]["attention_mask"])
        assert torch.equal(read, changed[index]["input_ids"][0])
        replaced.append((true != read).numpy())
        expected.append(0.5 * (1 - frequencies[true]))
        assert (frequencies[read] > 0).all()
        seen.add(tuple(read.tolist()))
    assert np.concatenate(replaced).mean() == pytest.approx(np.concatenate(expected).mean(), abs=0.02)
    assert len(seen) == len(plain)


def test_a_protein_is_predicted_alike_alone_and_among_others():
    torch.manual_seed(0)
    config = ReformerConfig(
        vocab_size=25,
        hidden_size=16,
        num_attention_heads=2,
        attention_head_size=8,
        feed_forward_size=16,
        attn_layers=["local", "lsh"],
        local_attn_chunk_length=16,
        local_num_chunks_after=1,
        position_embedding_type="rotary",
        is_decoder=False,
        id2label=dict(enumerate("HEC")),
    )
    predictor = StructurePredictor(ReformerForTokenClassification(config).eval())
    generator = np.random.default_rng(0)
    sequences = [generator.integers(4, 24, length).astype(np.uint8) for length in (7, 300, 41, 120)]
    together = predictor.probabilities(sequences)
    for sequence, found in zip(sequences, together, strict=True):
        (alone,) = predictor.probabilities([sequence])
        assert found.shape == (len(sequence), 3)
        np.testing.assert_allclose(found, alone, atol=1e-5)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


class _Known:
    """Says what it is told to."""

    letters = "HEC"

    def __init__(self, probabilities):
        self._probabilities = probabilities

    def probabilities(self, sequences):
        return [self._probabilities[: len(sequence)] for sequence in sequences]


def test_bits_and_accuracy_count_residues_with_a_label(data):
    always = np.tile(np.float32([0.25, 0.25, 0.5]), (100, 1))
    held_out = StructureData(data.train, {"test": data.train}, data.labels, {}, [])
    bits, results = evaluate_chains(_Known(always), held_out, "test")
    known = data.labels[data.labels != NO_LABEL]
    assert len(known) == 35 + 60 + 90 - 3
    assert bits == pytest.approx(np.mean(np.where(known == 2, 1, 2)))
    assert [len(one.true) for one in results] == [34, 59, 89]
    assert {one.predicted for one in results} == {"C" * 34, "C" * 59, "C" * 89}


def test_accuracy_is_a_mean_over_chains():
    results = [ChainResult("a", "HHGT", "HGGS"), ChainResult("b", "E" * 10, "B" * 9 + "E")]
    assert accuracy_by_chain(results, 8) == pytest.approx((0.5 + 0.1) / 2)
    assert accuracy_by_chain(results, 3) == 1
    scores = scores_json(results, "HGIEBTSC")
    assert scores["accuracy_by_residue"] == pytest.approx(3 / 14)
    assert np.array(scores["confusion"]).sum() == scores["residues"] == 14
    assert scores["confusion"][3][4] == 9
