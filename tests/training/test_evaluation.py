import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from reformer import ReformerForCausalLM, ReformerForMaskedLM
from reformer.data.build import build_token_array
from reformer.data.tokens import TokenArray
from reformer.data.windows import evaluation_windows
from reformer.errors import UserError
from reformer.training.evaluation import evaluate_bits, num_evaluated_tokens
from tests.models.small_models import build
from tests.training.conftest import write_fasta


class HashedModel(nn.Module):
    """A "model" whose loss on a token is a function of the token and of how many precede it."""

    device = torch.device("cpu")

    def token_losses(self, input_ids: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        return self.nats(input_ids[:, 1:], torch.arange(1, input_ids.shape[1]))

    @staticmethod
    def nats(token: Tensor, position: Tensor) -> Tensor:
        return 1 + torch.sin(7 * token + 0.1 * position)


@pytest.fixture
def array(tmp_path: Path) -> TokenArray:
    return build_token_array(write_fasta(tmp_path / "x.fa", 70, 1, 300, 33, letters="ACGTN"), tmp_path)


@pytest.mark.parametrize("length", [None, 3, 32, 100, 1000])
def test_equals_a_loop_over_tokens(array: TokenArray, length: int | None) -> None:
    bases = {array.vocabulary[letter] for letter in "ACGT"}
    tokens, in_record, in_bin, at_bases = [], {}, {}, []
    for window in evaluation_windows(array, length or 300):
        ids = array.window(window.start, window.length).tolist()
        for position in range(1, len(ids)):
            nats = HashedModel.nats(torch.tensor(ids[position]), torch.tensor(position)).item()
            tokens.append(nats)
            in_record.setdefault(window.record, []).append(nats)
            in_bin.setdefault(2 ** (int(math.log2(position)) + 1), []).append(nats)
            if ids[position] in bases:
                at_bases.append(nats)
    report = evaluate_bits(HashedModel(), array, length)
    bits = 1 / math.log(2)
    assert report.total.num_tokens == len(tokens)
    assert report.total.bits_per_token == pytest.approx(np.mean(tokens) * bits, rel=1e-6)
    assert report.total.num_bases == len(at_bases) < len(tokens)
    assert report.total.bits_per_base == pytest.approx(np.mean(at_bases) * bits, rel=1e-6)
    for ours, expected in ((report.by_record, in_record), (report.by_position, in_bin)):
        assert list(ours) == sorted(expected)
        for key, nats in expected.items():
            assert ours[key].num_tokens == len(nats)
            assert ours[key].bits_per_token == pytest.approx(np.mean(nats) * bits, rel=1e-6)


def test_lower_case_bases_are_bases(tmp_path: Path) -> None:
    (tmp_path / "x.fa").write_text(">a\nacgtnACGTN\n")
    array = build_token_array(tmp_path / "x.fa", tmp_path, lower_case="keep")
    assert evaluate_bits(HashedModel(), array).total.num_bases == 7


def test_text_has_no_bases(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("ACGT")
    report = evaluate_bits(HashedModel(), build_token_array(tmp_path / "x.txt", tmp_path))
    assert (report.total.num_bases, report.total.bits_per_base) == (0, None)
    assert report.to_json()["by_record"][0]["bits_per_base"] is None


def test_processes_share_the_windows(array: TokenArray) -> None:
    parts: list[np.ndarray] = []

    def keep(sums: np.ndarray) -> np.ndarray:
        parts.append(sums)
        return sum(parts)

    reports = [evaluate_bits(HashedModel(), array, 5, process=(i, 3), reduce=keep) for i in range(3)]
    assert reports[-1].total.num_tokens == evaluate_bits(HashedModel(), array, 5).total.num_tokens
    assert all(part.sum() > 0 for part in parts)


def test_progress_counts_every_token(array: TokenArray) -> None:
    counts: list[int] = []
    evaluate_bits(HashedModel(), array, 32, on_progress=counts.append)
    assert sum(counts) == num_evaluated_tokens(array) == 403


def test_mode_is_kept(array: TokenArray) -> None:
    for training in (True, False):
        model = HashedModel().train(training)
        evaluate_bits(model, array)
        assert model.training is training


def test_a_loss_that_is_not_finite_is_an_error(array: TokenArray) -> None:
    class Broken(HashedModel):
        def token_losses(self, input_ids: Tensor) -> Tensor:
            losses = super().token_losses(input_ids)
            return losses.index_fill(1, torch.tensor([losses.shape[1] - 1]), torch.nan)

    with pytest.raises(UserError, match="loss on record 'record0' is not finite"):
        evaluate_bits(Broken(), array)


def test_nothing_to_predict(tmp_path: Path) -> None:
    array = build_token_array(write_fasta(tmp_path / "x.fa", 1, 1), tmp_path)
    with pytest.raises(UserError, match="nothing to predict"):
        evaluate_bits(HashedModel(), array)


def test_windows_that_are_too_short(array: TokenArray) -> None:
    with pytest.raises(UserError, match="length"):
        evaluate_bits(HashedModel(), array, 2)


@pytest.fixture
def context(tmp_path: Path) -> TokenArray:
    return build_token_array(write_fasta(tmp_path / "y.fa", 40, 1, 25, seed=3), tmp_path)


def test_records_are_read_behind_a_context(array: TokenArray, context: TokenArray) -> None:
    tokens, in_record, in_bin, at_bases = [], {}, {}, 0
    for name, start, length in array.records:
        for position in range(1, length):
            token = array.tokens[start + position].item()
            nats = HashedModel.nats(torch.tensor(token), torch.tensor(66 + position)).item()
            tokens.append(nats)
            in_record.setdefault(name, []).append(nats)
            in_bin.setdefault(2 ** (int(math.log2(position)) + 1), []).append(nats)
            at_bases += token != array.vocabulary["N"]
    report = evaluate_bits(HashedModel(), array, context=context)
    assert report.total.num_tokens == len(tokens) == 69 + 299 + 32
    assert report.total.num_bases == at_bases
    for ours, expected in ((report.by_record, in_record), (report.by_position, in_bin)):
        assert list(ours) == sorted(expected)
        for key, nats in expected.items():
            assert ours[key].num_tokens == len(nats)
            assert ours[key].bits_per_token == pytest.approx(np.mean(nats) / math.log(2), rel=1e-6)


def test_a_context_is_what_the_model_reads_first(array: TokenArray, context: TokenArray) -> None:
    rows: list[Tensor] = []

    class Watched(HashedModel):
        def token_losses(self, input_ids: Tensor) -> Tensor:
            rows.append(input_ids)
            return super().token_losses(input_ids)

    counts: list[int] = []
    records = [record for record in context.records if record.name != "record1"]
    evaluate_bits(Watched(), array, context=context.select(records), on_progress=counts.append)
    assert [tuple(row.shape) for row in rows] == [(1, 65 + length) for length in (70, 300, 33)]
    assert counts == [70, 300, 33]
    before = np.concatenate([context.tokens[:40], context.tokens[41:]])
    for row, (start, length) in zip(rows, ((0, 70), (71, 300), (371, 33)), strict=True):
        assert row[0].tolist() == [*before, *array.tokens[start : start + length]]


def test_records_of_one_length_are_read_one_by_one(tmp_path: Path, context: TokenArray) -> None:
    array = build_token_array(write_fasta(tmp_path / "z.fa", 20, 20, 20), tmp_path)
    model = build(ReformerForCausalLM, is_decoder=True, vocab_size=9)
    nats = []
    for _, start, length in array.records:
        ids = np.concatenate([context.tokens, array.window(start, length)]).astype(np.int64)
        with torch.no_grad():
            nats += model.token_losses(torch.from_numpy(ids)[None])[0, 66:].tolist()
    counts: list[int] = []
    report = evaluate_bits(model, array, context=context, on_progress=counts.append)
    assert counts == [20, 20, 20]
    assert report.total.num_tokens == len(nats) == 57
    assert report.total.bits_per_token == pytest.approx(np.mean(nats) / math.log(2), rel=1e-5)
    assert report != evaluate_bits(model, array)


def test_contexts_that_cannot_be(tmp_path: Path, array: TokenArray, context: TokenArray) -> None:
    with pytest.raises(UserError, match="length is 32: expected none with a context"):
        evaluate_bits(HashedModel(), array, 32, context=context)
    with pytest.raises(UserError, match="a context is for causal models: this one is masked"):
        evaluate_bits(build(ReformerForMaskedLM, vocab_size=9), array, context=context)
    (tmp_path / "x.txt").write_text("text")
    text = build_token_array(tmp_path / "x.txt", tmp_path)
    with pytest.raises(
        UserError, match=r"x\.txt: holds byte tokens, expected those of .*x\.fa, which holds nuc"
    ):
        evaluate_bits(HashedModel(), array, context=text)


@pytest.mark.parametrize(
    "positions",
    [
        {"position_embedding_type": "learned", "max_position_embeddings": 365},
        {"position_embedding_type": "axial", "axial_pos_shape": (73, 5), "axial_pos_embds_dim": (12, 20)},
    ],
    ids=["learned", "axial"],
)
def test_more_tokens_than_positions(
    array: TokenArray, context: TokenArray, positions: dict[str, Any]
) -> None:
    model = build(ReformerForCausalLM, is_decoder=True, vocab_size=9, **positions)
    with pytest.raises(UserError, match=r"'record2': 300 tokens behind 66 of context: .* at most 365$"):
        evaluate_bits(model, array, context=context)
    fits = context.select([record for record in context.records if record.name != "record1"])
    assert evaluate_bits(model, array, context=fits).total.num_tokens == 400
    assert evaluate_bits(model, array).total.num_tokens == 400
