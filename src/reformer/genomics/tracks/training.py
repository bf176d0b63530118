"""Training a model of tracks: the task, its batches and its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.nucleotides import complement_ids, reverse_complement
from reformer.data.tokenizers import tokenizer_for
from reformer.data.windows import evaluation_windows
from reformer.genomics.base_encoding import known_bases
from reformer.genomics.tracks.correlation import Correlation
from reformer.genomics.tracks.data import Numbers, TrackData
from reformer.genomics.tracks.levels import MISSING
from reformer.genomics.tracks.predictor import TrackPredictor, TrackSettings
from reformer.models.modeling import IGNORED
from reformer.training.batches import TrainingBatches
from reformer.training.fine_tuning import has_vocabulary
from reformer.training.metrics import NATS_PER_BIT
from reformer.training.recipe import Recipe, Stage
from reformer.training.run import new_model
from reformer.training.run_data import RunData
from reformer.training.trainer import ReformerTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.data.tokens import TokenArray
    from reformer.genomics.tracks.recipe import TracksRecipe


class TracksTask:
    """Predicts the level of every track at every base; see `reformer.training.run.Task`."""

    command = "reformer dna tracks train"

    def __init__(self, recipe: TracksRecipe) -> None:
        self._recipe = recipe

    def open_data(self, recipe: Recipe) -> TrackData:
        """Opens sequences and tracks."""
        return TrackData.of(self._recipe)

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new `ReformerForTokenClassification`, whose classes are the levels of all tracks."""
        from reformer.models.auto import ReformerForTokenClassification

        num_levels = self._recipe.tracks.levels
        names = [f"{name}:{level}" for name in self._recipe.names for level in range(num_levels)]
        tokenizer = tokenizer_for(data.train)
        model = new_model(
            ReformerForTokenClassification,
            recipe,
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
        )
        if model.config.rc_equivariant:
            other = [
                track * num_levels + level
                for track in self._recipe.other_strand
                for level in range(num_levels)
            ]
            model.strands.set(complement_ids(len(tokenizer)), other)
        return model, tokenizer

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Those of the tokenizer, as language models of nucleotides have them."""
        return has_vocabulary(folder, tokenizer)

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> TrackBatches:
        """Windows and records of the training data with the levels of their bases."""
        assert isinstance(data, TrackData)
        training = recipe.training
        return TrackBatches(
            data.train,
            data.numbers["train"],
            self._recipe.other_strand,
            training.lengths,
            training.seed,
            items_per_step,
            other_strand=recipe.data.reverse_complement,
        )

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> TrackTrainer:
        """A trainer that evaluates in bits per base of a track, and by correlation."""
        assert isinstance(data, TrackData)
        recipe = self._recipe
        settings = TrackSettings(recipe.names, data.levels, recipe.other_strand, recipe.data.lower_case)
        return TrackTrainer(settings, data, *arguments, **options)


class TrackBatches(TrainingBatches):
    """`TrainingBatches` with the levels of each base as its labels; N and what has no value are ignored.

    Args:
        array: the training data.
        numbers: uint8 ``[tracks, tokens]``, see `TrackData`.
        partners: for each track the number of what it is on the other strand.
        stages: lengths, steps and batch sizes, in order.
        seed: determines the windows.
        items_per_step: forward passes per optimizer step.
        other_strand: read every second window, by chance, as the other strand has it.
    """

    def __init__(
        self,
        array: TokenArray,
        numbers: Numbers,
        partners: tuple[int, ...],
        stages: list[Stage],
        seed: int,
        items_per_step: int,
        *,
        other_strand: bool,
    ) -> None:
        super().__init__(array, stages, seed, items_per_step, other_strand=other_strand)
        self._numbers, self._partners = numbers, list(partners)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns `input_ids` int64 ``[batch, length]`` and `labels` int64 ``[batch, length, tracks]``."""
        input_ids, labels = [], []
        for span in self.spans(index):
            tokens = self._array.window(span.start, span.length)
            numbers = self._numbers[:, span.start : span.start + span.length]
            if span.is_other_strand:
                tokens, numbers = reverse_complement(tokens), numbers[self._partners, ::-1]
            input_ids.append(tokens.astype(np.int64))
            labels.append(labels_of(tokens, numbers))
        return {
            name: torch.from_numpy(np.stack(rows))
            for name, rows in (("input_ids", input_ids), ("labels", labels))
        }


def labels_of(tokens: npt.NDArray[np.uint8], numbers: Numbers) -> npt.NDArray[np.int64]:
    """Levels ``[tracks, bases]`` as labels ``[bases, tracks]``, -100 where a base or its value is unknown."""
    is_known = (numbers != MISSING) & known_bases(tokens)
    return np.where(is_known, numbers.astype(np.int64), IGNORED).T


class TrackTrainer(ReformerTrainer):
    """Trains a model of tracks and saves its settings with it.

    `bits_per_token` of an evaluation are those of the level of a base, the mean over all tracks; `pearson_r`
    is the correlation of the expected values with what the levels stand for, by track.
    """

    def __init__(self, settings: TrackSettings, data: TrackData, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._settings, self._data = settings, data

    def evaluate_set(self, name: str) -> dict[str, Any]:
        """Bits of the levels and correlations."""
        was_training = self._model.training
        self._model.eval()
        try:
            return self._measure(self._data.held_out[name], self._data.numbers[f"eval.{name}"])
        finally:
            self._model.train(was_training)

    def save_model_folder(self, folder: Path) -> None:
        """Writes the model, the tokenizer of its sequences and its settings."""
        super().save_model_folder(folder)
        self._settings.write(folder)

    def _measure(self, array: TokenArray, numbers: Numbers) -> dict[str, Any]:
        """Each process takes its share of the windows."""
        predictor = TrackPredictor(self._model, self._settings)
        levels = self._settings.levels
        nats, counted = 0.0, 0
        correlations = [Correlation() for _ in levels]
        longest = int(array.records.lengths.max())
        for window_number, window in enumerate(
            evaluation_windows(array, max(3, self._eval_length or longest))
        ):
            if window_number % self.args.world_size != self.args.process_index:
                continue
            tokens = array.window(window.start, window.length)
            probabilities = predictor.probabilities(tokens, both_strands=False)
            labels = labels_of(tokens, numbers[:, window.start : window.start + window.length])
            for track, of_track in enumerate(levels):
                known = np.flatnonzero(labels[:, track] != IGNORED)
                rows, true = probabilities[known, track], labels[known, track]
                chosen = rows[np.arange(len(known)), true]
                nats -= float(np.log(np.maximum(chosen, 1e-9)).sum())
                counted += len(known)
                correlations[track].add(of_track.expected(rows), np.array(of_track.values)[true])
        sums = np.concatenate([[nats, counted], *(one.sums for one in correlations)])
        sums = self._sum_over_processes(sums)
        per_track = sums[2:].reshape(len(levels), -1)
        return {
            "bits_per_token": float(sums[0] / max(sums[1], 1) / NATS_PER_BIT),
            "pearson_r": {
                name: Correlation(row).r for name, row in zip(self._settings.names, per_track, strict=True)
            },
        }
