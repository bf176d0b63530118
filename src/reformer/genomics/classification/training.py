"""Training a model that labels sequences: the task and its trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from reformer.data.tokenizers import tokenizer_for
from reformer.genomics.base_encoding import saved_encoding
from reformer.genomics.classification.batches import ClassificationBatches
from reformer.genomics.classification.classifier import (
    MULTI_LABEL,
    Classifier,
    Logits,
    check_lengths,
)
from reformer.genomics.classification.data import ClassificationData, class_weights
from reformer.genomics.classification.metrics import OneLabel, SeveralLabels, fit_temperature
from reformer.training.metrics import NATS_PER_BIT
from reformer.training.recipe import Recipe
from reformer.training.run import new_model
from reformer.training.run_data import RunData
from reformer.training.trainer import ReformerTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.genomics.classification.recipe import ClassificationRecipe


class ClassificationTask:
    """Labels every sequence; see `reformer.training.run.Task`.

    Attributes:
        data: the sequences with their labels, once they have been opened.
    """

    command = "reformer dna classify train"
    data: ClassificationData

    def __init__(self, recipe: ClassificationRecipe) -> None:
        self._recipe = recipe

    def open_data(self, recipe: Recipe) -> ClassificationData:
        """Opens sequences and labels."""
        self.data = ClassificationData.of(self._recipe)
        return self.data

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new `ReformerForSequenceClassification`, whose classes have their names."""
        from reformer.models.auto import ReformerForSequenceClassification

        assert isinstance(data, ClassificationData)
        model = new_model(
            ReformerForSequenceClassification,
            recipe,
            vocab_size=self._recipe.encoding.vocab_size,
            problem_type=data.settings.problem_type,
            id2label=dict(enumerate(data.settings.classes)),
            label2id={name: number for number, name in enumerate(data.settings.classes)},
        )
        if model.strands is not None:
            try:
                complement = self._recipe.encoding.complement
            except ValueError as error:
                message = f"{error} (model.rc_equivariant is true)"
                raise recipe.error("classification.kmer", message) from error
            model.strands.set(complement.tolist(), range(len(data.settings.classes)))
        longest = model.config.longest_input
        if longest is not None and any(
            stage.length == "full" or stage.length > longest for stage in recipe.training.lengths
        ):
            check_lengths(data.train, model.config)
        for array in data.held_out.values():
            check_lengths(array, model.config)
        return model, tokenizer_for(data.train)

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Those of the encoding; nucleotides by themselves never are."""
        return saved_encoding(folder) == self._recipe.encoding

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> ClassificationBatches:
        """The training sequences with their labels."""
        assert isinstance(data, ClassificationData)
        return ClassificationBatches(
            data.train,
            data.targets["train"],
            self._recipe.encoding,
            recipe.training.lengths,
            recipe.training.seed,
            items_per_step,
            other_strand=recipe.data.reverse_complement,
            either_strand=bool(recipe.model.get("rc_equivariant")),
        )

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> ClassificationTrainer:
        """A trainer that evaluates in bits per sequence, or per label of one where there are several."""
        assert isinstance(data, ClassificationData)
        section = self._recipe.classification
        weights = class_weights(data.targets["train"], len(data.settings.classes), section.class_weights)
        return ClassificationTrainer(data, weights, *arguments, **options)


class ClassificationTrainer(ReformerTrainer):
    """Trains a model that labels sequences, evaluates it on one strand, and saves its settings with it.

    `bits_per_token` of an evaluation are those of the class of a sequence, or of one label of a sequence. The
    temperature that is saved is fitted on all validation sequences at the latest evaluation, and again for
    the weights that are kept.
    """

    def __init__(self, data: ClassificationData, weights: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings, self._data = data.settings, data
        self._is_multi_label = data.settings.problem_type == MULTI_LABEL
        self.per = "label" if self._is_multi_label else "sequence"
        self._weights = None if weights is None else torch.tensor(weights, device=self.args.device)
        self._held_out_logits: dict[str, Logits] = {}

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean over the sequences of the nats of their classes, each times the weight of its class.

        Where a sequence has several labels, it is the mean binary cross-entropy of all labels.
        """
        labels = inputs.pop("labels")
        output = model(**inputs)
        if self._is_multi_label:
            loss = F.binary_cross_entropy_with_logits(output.logits.float(), labels)
            return (loss, output) if return_outputs else loss
        nats = F.cross_entropy(output.logits.float(), labels, reduction="none")
        loss = (nats if self._weights is None else nats * self._weights[labels]).mean()
        return (loss, output) if return_outputs else loss

    def evaluate_set(self, name: str) -> dict[str, Any]:
        """Bits and macro F1 of a held-out set, and accuracy, or average precision of several labels."""
        was_training = self._model.training
        self._model.eval()
        process = self.args.process_index, self.args.world_size
        try:
            logits = Classifier(self._model, self._settings).logits(
                self._data.held_out[name], process=process
            )
        finally:
            self._model.train(was_training)
        whole = self._sum_over_processes(logits.astype(np.float64))
        self._held_out_logits[name] = whole.astype(np.float32)
        _, found = self._settings.scored(self._held_out_logits[name], self._data.targets[f"eval.{name}"])
        figures = {"bits_per_token": found.nats() / NATS_PER_BIT, "macro_f1": found.macro_f1()}
        if isinstance(found, OneLabel):
            figures["accuracy"] = found.accuracy()
        if isinstance(found, SeveralLabels):
            figures["macro_average_precision"] = found.macro_average_precision()
        return figures

    def load_best_weights(self) -> None:
        """Puts the weights of the best checkpoint into the model and fits its temperature."""
        super().load_best_weights()
        for name in self._data.validation:
            with self.accelerator.autocast():
                self.evaluate_set(name)

    def save_model_folder(self, folder: Path) -> None:
        """Writes the model, the tokenizer of its sequences and its settings."""
        super().save_model_folder(folder)
        settings = self._settings
        if self._held_out_logits:
            logits = np.concatenate(list(self._held_out_logits.values()))
            targets = np.concatenate([self._data.targets[f"eval.{name}"] for name in self._held_out_logits])
            settings = replace(settings, temperature=fit_temperature(logits, targets))
        settings.write(folder)
