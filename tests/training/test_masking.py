import numpy as np
import pytest
import torch

from reformer import ReformerForMaskedLM
from reformer.data import build_token_array
from reformer.errors import UserError
from reformer.training.batches import TrainingBatches
from reformer.training.evaluation import evaluate_bits
from reformer.training.masking import Masking
from reformer.training.recipe import Stage
from tests.models.small_models import build
from tests.training.conftest import write_fasta

MASK, N = 3, 8


@pytest.fixture
def array(tmp_path):
    return build_token_array(write_fasta(tmp_path / "g.fa", 20_000, letters="ACGTN"), tmp_path / "cache")


def test_shares_of_what_is_hidden(array):
    ids = array.window(0, 20_000).astype(np.int64)
    hidden, labels = Masking(array.vocabulary, 0).for_training(ids, 5)
    chosen = labels != -100
    assert (labels[chosen] == ids[chosen]).all()
    assert (hidden[~chosen] == ids[~chosen]).all()
    assert not (chosen & (ids == N)).any()
    assert chosen[ids != N].mean() == pytest.approx(0.15, abs=0.01)
    assert (hidden[chosen] == MASK).mean() == pytest.approx(0.8, abs=0.03)
    # One in ten stays, and a fifth of the others are alike by chance.
    assert (hidden[chosen] == ids[chosen]).mean() == pytest.approx(0.12, abs=0.03)
    again = Masking(array.vocabulary, 0).for_training(ids, 5)
    np.testing.assert_array_equal(again, (hidden, labels))
    assert (Masking(array.vocabulary, 0).for_training(ids, 6)[1] != labels).any()
    assert (Masking(array.vocabulary, 1).for_training(ids, 5)[1] != labels).any()


def test_text_has_every_byte_to_fill_in(tmp_path):
    (tmp_path / "x.txt").write_text("abc " * 2000)
    array = build_token_array(tmp_path / "x.txt", tmp_path / "cache")
    hidden, chosen = Masking(array.vocabulary, 0).for_evaluation(array.window(0, 8000).astype(np.int64), 0)
    assert chosen.mean() == pytest.approx(0.15, abs=0.02)
    assert (hidden[chosen] == 259).all()


def test_batches_have_labels_where_tokens_are_hidden(array):
    stage = Stage(length=100, steps=2, batch_size=3)
    batches = TrainingBatches(array, [stage], 0, 1, masking=Masking(array.vocabulary, 0))
    plain = TrainingBatches(array, [stage], 0, 1)
    items = [batches[i] for i in range(2)]
    for i, item in enumerate(items):
        chosen = item["labels"] != -100
        assert torch.equal(item["labels"][chosen], plain[i]["input_ids"][chosen])
        assert 0 < chosen.float().mean() < 0.3
    assert not torch.equal(items[0]["labels"] == -100, items[1]["labels"] == -100)


def test_bits_of_a_masked_model_are_those_of_plain_passes(array):
    model = build(ReformerForMaskedLM, vocab_size=9)
    report = evaluate_bits(model, array, 500)
    masking, nats = Masking(array.vocabulary, 0), []
    for start in range(0, 20_000, 500):
        ids = array.window(start, 500).astype(np.int64)
        hidden, chosen = masking.for_evaluation(ids, start)
        with torch.no_grad():
            values = model(torch.from_numpy(hidden)[None]).logits.log_softmax(-1)[0].numpy()
        nats += [-values[i, ids[i]] for i in range(1, 500) if chosen[i]]
    assert report.total.num_tokens == report.total.num_bases == len(nats)
    assert report.total.bits_per_token == pytest.approx(np.mean(nats) / np.log(2), rel=1e-5)
    assert evaluate_bits(model, array, 500) == report


def test_nothing_to_fill_in(tmp_path):
    array = build_token_array(write_fasta(tmp_path / "n.fa", 50, letters="N"), tmp_path / "cache")
    with pytest.raises(UserError, match="too few tokens: none is hidden"):
        evaluate_bits(build(ReformerForMaskedLM, vocab_size=9), array)
