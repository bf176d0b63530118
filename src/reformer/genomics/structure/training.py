"""Training a model that labels residues: the task, its batches and its trainer."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.tokenizers import tokenizer_for
from reformer.data.windows import WindowSampler
from reformer.genomics.structure.data import NO_LABEL, StructureData
from reformer.genomics.structure.metrics import ChainResult, scores_json
from reformer.genomics.structure.predictor import StructurePredictor
from reformer.layers.randomness import derive
from reformer.models.modeling import IGNORED
from reformer.training.batches import Span, StagedBatches
from reformer.training.fine_tuning import has_vocabulary
from reformer.training.metrics import NATS_PER_BIT
from reformer.training.recipe import Recipe, Stage
from reformer.training.run import new_model
from reformer.training.run_data import RunData
from reformer.training.trainer import ReformerTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.genomics.structure.recipe import StructureRecipe

_PAD = 0


class StructureTask:
    """Labels every residue; see `reformer.training.run.Task`.

    Attributes:
        data: the chains, once they have been opened.
    """

    command = "reformer dna structure train"
    data: StructureData

    def __init__(self, recipe: StructureRecipe) -> None:
        self._recipe = recipe

    def open_data(self, recipe: Recipe) -> StructureData:
        """Reads and splits the chains."""
        self.data = StructureData.of(self._recipe)
        return self.data

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new `ReformerForTokenClassification`, whose classes are called by their letters."""
        from reformer.models.auto import ReformerForTokenClassification

        tokenizer, letters = tokenizer_for(data.train), self._recipe.structure.letters
        model = new_model(
            ReformerForTokenClassification,
            recipe,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(letters)),
            label2id={letter: number for number, letter in enumerate(letters)},
        )
        return model, tokenizer

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Those of the tokenizer."""
        return has_vocabulary(folder, tokenizer)

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> StructureBatches:
        """Chains of the training data with their labels."""
        assert isinstance(data, StructureData)
        return StructureBatches(
            data,
            recipe.training.lengths,
            recipe.training.seed,
            items_per_step,
            substitution=self._recipe.structure.substitution,
        )

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> StructureTrainer:
        """A trainer that evaluates in bits per residue, of the classes."""
        assert isinstance(data, StructureData)
        return StructureTrainer(data, *arguments, **options)


class StructureBatches(StagedBatches):
    """Chains, drawn in proportion to their lengths and padded to the longest of a batch.

    Of a chain that is longer than the stage's length a piece is taken, around a residue drawn from all.

    Args:
        data: the chains and their labels.
        stages: lengths, steps and batch sizes, in order.
        seed: determines all that is drawn.
        items_per_step: forward passes per optimizer step.
        substitution: the share of residues that are read as others, drawn from all of the training data.
    """

    def __init__(
        self,
        data: StructureData,
        stages: list[Stage],
        seed: int,
        items_per_step: int,
        *,
        substitution: float = 0.0,
    ) -> None:
        super().__init__(stages, seed, items_per_step)
        self._array, self._labels, self._substitution = data.train, data.labels, substitution
        self._residues = WindowSampler(data.train, 1, seed)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns `input_ids`, `labels` and `attention_mask`, all int64 [batch, length]."""
        spans = self.spans(index)
        shape = (len(spans), max(span.length for span in spans))
        input_ids, labels = np.full(shape, _PAD, np.int64), np.full(shape, NO_LABEL, np.int64)
        for row, (span, number) in enumerate(zip(spans, self._sequence_numbers(index)[1], strict=True)):
            residues = self._array.window(span.start, span.length)
            input_ids[row, : span.length] = self._substituted(residues, number)
            labels[row, : span.length] = self._labels[span.start : span.start + span.length]
        return {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(np.where(labels == NO_LABEL, IGNORED, labels)),
            "attention_mask": torch.from_numpy((input_ids != _PAD).astype(np.int64)),
        }

    @cached_property
    def _frequencies(self) -> npt.NDArray[np.float64]:
        """The share of each residue in the training data."""
        chains = [self._array.window(record.start, record.length) for record in self._array.records]
        counts = np.bincount(np.concatenate(chains), minlength=len(self._array.vocabulary))
        return counts / len(self._array)

    def _substituted(self, residues: npt.NDArray[np.uint8], number: int) -> npt.NDArray[np.uint8]:
        """The residues `[T]` of sequence `number`, some of them replaced."""
        if self._substitution == 0:
            return residues
        generator = np.random.Generator(np.random.Philox(key=derive(self._seed, number)))
        others = generator.choice(len(self._frequencies), len(residues), p=self._frequencies)
        chosen = generator.random(len(residues)) < self._substitution
        return np.where(chosen, others.astype(np.uint8), residues)

    def length(self, step: int) -> int:
        """Residues of the longest sequence that step `step`, counted from 1, can have."""
        stage, _ = self._sequence_numbers((step - 1) * self._items_per_step)
        return self._longest(self._stages[stage])

    def spans(self, index: int) -> list[Span]:
        """Where the sequences of item `index` are."""
        stage, numbers = self._sequence_numbers(index)
        longest, records = self._longest(self._stages[stage]), self._array.records
        spans = []
        for number in numbers:
            residue = self._residues.start(number)
            chain = int(np.searchsorted(records.starts, residue, side="right")) - 1
            start, length = int(records.starts[chain]), int(records.lengths[chain])
            first = min(max(residue - longest // 2, start), max(start, start + length - longest))
            spans.append(Span(first, min(length, longest), False))
        return spans

    def _longest(self, stage: Stage) -> int:
        longest = int(self._array.records.lengths.max())
        return longest if stage.length == "full" else min(stage.length, longest)


class StructureTrainer(ReformerTrainer):
    """Trains a model that labels residues and evaluates it on whole chains.

    `bits_per_token` of an evaluation are those of the class of a residue.
    """

    def __init__(self, data: StructureData, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._data = data

    def evaluate_set(self, name: str) -> dict[str, Any]:
        """Bits of the classes, and the mean over chains of the share of residues that are right."""
        was_training = self._model.training
        self._model.eval()
        try:
            bits, results = evaluate_chains(StructurePredictor(self._model), self._data, name)
        finally:
            self._model.train(was_training)
        scores = scores_json(results, StructurePredictor(self._model).letters)
        return {"bits_per_token": bits} | {key: scores[key] for key in scores if key.startswith("q")}


def evaluate_chains(
    predictor: StructurePredictor, data: StructureData, name: str
) -> tuple[float, list[ChainResult]]:
    """Predicts the chains of a held-out set.

    Returns:
        Bits per residue of the true classes, and what was predicted of each chain.
    """
    records = list(data.held_out[name].records)
    windows = [data.held_out[name].window(record.start, record.length) for record in records]
    nats, num_residues, results = 0.0, 0, []
    for record, probabilities in zip(records, predictor.probabilities(windows), strict=True):
        labels = data.labels[record.start : record.start + record.length]
        known = labels != NO_LABEL
        true = labels[known].astype(np.int64)
        rows = probabilities[known]
        nats -= float(np.log(np.maximum(rows[np.arange(len(true)), true], 1e-9)).sum())
        num_residues += len(true)
        letters = predictor.letters
        results.append(
            ChainResult(
                record.name,
                "".join(letters[number] for number in true),
                "".join(letters[number] for number in rows.argmax(axis=1)),
            )
        )
    return nats / num_residues / NATS_PER_BIT, results
