"""Training a model that labels bases: the task, its batches and its trainer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reformer.data.nucleotides import reverse_complement
from reformer.data.tokenizers import tokenizer_for
from reformer.data.windows import EvaluationWindow, evaluation_windows
from reformer.errors import UserError
from reformer.genomics.annotation.annotator import AnnotationSettings, Annotator
from reformer.genomics.annotation.classes import ClassScheme, Labels
from reformer.genomics.annotation.data import AnnotationData, LabelledSequences
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.metrics import ClassCounts
from reformer.genomics.annotation.relatives import num_features
from reformer.genomics.annotation.runs import shortest_runs
from reformer.genomics.base_encoding import (
    BaseEncoding,
    anchored_complement,
    anchored_labels,
    known_bases,
    moved_frames,
    saved_encoding,
)
from reformer.layers.randomness import derive
from reformer.models.modeling import IGNORED
from reformer.training.batches import Span, TrainingBatches
from reformer.training.metrics import NATS_PER_BIT
from reformer.training.recipe import Recipe, Stage
from reformer.training.run import new_model
from reformer.training.run_data import RunData
from reformer.training.trainer import ReformerTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.genomics.annotation.recipe import AnnotationRecipe


class AnnotationTask:
    """Labels every base; see `reformer.training.run.Task`."""

    command = "reformer dna annotate train"

    def __init__(self, recipe: AnnotationRecipe) -> None:
        self._recipe = recipe

    def open_data(self, recipe: Recipe) -> AnnotationData:
        """Opens sequences and annotations."""
        return AnnotationData.of(self._recipe)

    def build_model(self, recipe: Recipe, data: RunData) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """A new `ReformerForTokenClassification`, whose classes have their names."""
        from reformer.models.auto import ReformerForTokenClassification

        scheme, encoding = self._recipe.scheme, self._recipe.encoding
        names = scheme.names
        model = new_model(
            ReformerForTokenClassification,
            recipe,
            vocab_size=encoding.vocab_size,
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
            num_input_features=num_features(len(names)) if self._recipe.annotation.relatives else 0,
        )
        if model.config.rc_equivariant:
            try:
                complement = encoding.complement
            except ValueError as error:
                raise recipe.error("annotation.kmer", f"{error} (model.rc_equivariant is true)") from error
            model.strands.set(complement.tolist(), anchored_complement(scheme).tolist())
        return model, tokenizer_for(data.train)

    def has_its_tokens(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Those of the encoding; nucleotides by themselves never are."""
        return saved_encoding(folder) == self._recipe.encoding

    def batches(self, recipe: Recipe, data: RunData, items_per_step: int) -> AnnotationBatches:
        """Windows and records of the training data with their labels."""
        assert isinstance(data, AnnotationData)
        return AnnotationBatches(
            data.labelled["train"],
            self._recipe.scheme,
            self._recipe.encoding,
            recipe.training.lengths,
            recipe.training.seed,
            items_per_step,
            other_strand=recipe.data.reverse_complement,
        )

    def trainer(self, data: RunData, *arguments: Any, **options: Any) -> AnnotationTrainer:
        """A trainer that evaluates in bits per base, of the classes."""
        assert isinstance(data, AnnotationData)
        recipe, labelled = self._recipe, data.labelled["train"]
        settings = AnnotationSettings(
            recipe.scheme,
            recipe.encoding,
            grammar := _grammar(recipe.scheme, labelled),
            relatives=data.relatives,
            shortest_runs=shortest_runs(recipe.scheme, labelled.genes, labelled.features),
        )
        if grammar is not None:
            settings = replace(
                settings,
                coding=labelled.coding_model(),
                signals=labelled.signal_model(grammar),
                hints=None if data.relatives is None else labelled.hint_model(grammar, recipe.scheme),
            )
        return AnnotationTrainer(settings, data, *arguments, **options)


class AnnotationBatches(TrainingBatches):
    """`TrainingBatches` of the model's tokens, with the class of each base as its label.

    The place modulo 3 at which a window begins is drawn by the seed and the window's number. Labels of N are
    ignored.
    """

    def __init__(
        self,
        sequences: LabelledSequences,
        scheme: ClassScheme,
        encoding: BaseEncoding,
        stages: list[Stage],
        seed: int,
        items_per_step: int,
        *,
        other_strand: bool,
    ) -> None:
        super().__init__(sequences.array, stages, seed, items_per_step, other_strand=other_strand)
        self._sequences, self._scheme, self._encoding = sequences, scheme, encoding
        self._frames = np.empty(len(sequences.array), dtype=np.uint8)
        # Those of the other strand, each record's from its own 5' end, so at the places of its mirror image.
        self._other_frames = np.empty_like(self._frames if other_strand else self._frames[:0])
        for _, start, length in sequences.array.records:
            tokens, here = sequences.array.window(start, length), slice(start, start + length)
            self._frames[here] = encoding.frames(tokens)
            if other_strand:
                self._other_frames[here] = encoding.frames(reverse_complement(tokens))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns `input_ids` and `labels`, both int64 [batch, length].

        Where the sequences have relatives also `input_features`, float32 [batch, length, features].
        """
        input_ids, labels, features = [], [], []
        brought_over = self._sequences.brought_over
        for row, span in enumerate(self.spans(index)):
            tokens = self._sequences.array.window(span.start, span.length)
            classes = self._sequences.labels[span.start : span.start + span.length]
            frames = self._frames_of(span)
            if span.is_other_strand:
                tokens, classes = reverse_complement(tokens), self._scheme.reverse_complement(classes)
            first = derive(self._seed, index, row) % 3
            input_ids.append(self._encoding.ids(tokens, first, frames))
            anchored = anchored_labels(self._scheme, classes, first).astype(np.int64)
            labels.append(np.where(known_bases(tokens), anchored, IGNORED))
            if brought_over is not None:
                here = brought_over[span.start : span.start + span.length]
                if span.is_other_strand:
                    here = here.reverse_complement(self._scheme)
                features.append(here.features(len(self._scheme.names)))
        batch = {"input_ids": input_ids, "labels": labels}
        if features:
            batch["input_features"] = features
        return {name: torch.from_numpy(np.stack(rows)) for name, rows in batch.items()}

    def _frames_of(self, span: Span) -> Labels:
        """Open reading frames of the record, at the span, anchors counted from its first base."""
        record_start, length = self._record_at(span.start)
        offset, frames = span.start - record_start, self._frames
        if span.is_other_strand:
            offset, frames = length - offset - span.length, self._other_frames
        at = record_start + offset
        return moved_frames(frames[at : at + span.length], -offset)


class AnnotationTrainer(ReformerTrainer):
    """Trains a model that labels bases, evaluates it on one strand, and saves its settings with it.

    `bits_per_token` of an evaluation are those of the class of a base, N left out.
    """

    def __init__(self, settings: AnnotationSettings, data: AnnotationData, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._settings, self._data = settings, data

    def evaluate_set(self, name: str) -> dict[str, Any]:
        """Bits of the classes and their macro F1."""
        was_training = self._model.training
        self._model.eval()
        try:
            bits, counts = self._measure(self._data.labelled[f"eval.{name}"])
        finally:
            self._model.train(was_training)
        return {"bits_per_token": bits, "macro_f1": counts.macro_f1()}

    def save_model_folder(self, folder: Path) -> None:
        """Writes the model, the tokenizer of its sequences and its settings."""
        super().save_model_folder(folder)
        self._settings.write(folder)

    def _measure(self, sequences: LabelledSequences) -> tuple[float, ClassCounts]:
        """Bits per base and counts; each process takes its share of the windows."""
        scheme = self._settings.scheme
        annotator = Annotator(self._model, self._settings)
        num_classes = len(scheme.names)
        nats, confusion = 0.0, np.zeros((num_classes, num_classes))
        for window in self._windows_of_process(sequences):
            tokens = sequences.array.window(window.start, window.length)
            known = known_bases(tokens)
            probabilities = annotator.probabilities(
                tokens,
                both_strands=False,
                brought_over=sequences.brought_over
                and sequences.brought_over[window.start : window.start + window.length],
            )[known]
            labels = sequences.labels[window.start : window.start + window.length][known].astype(np.int64)
            nats -= float(np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-9)).sum())
            pairs = labels * num_classes + probabilities.argmax(axis=1)
            confusion += np.bincount(pairs, minlength=num_classes**2).reshape(confusion.shape)
        sums = self._sum_over_processes(np.append(confusion.reshape(-1), nats))
        counts = ClassCounts(scheme, sums[:-1].reshape(confusion.shape))
        return float(sums[-1] / max(sums[:-1].sum(), 1) / NATS_PER_BIT), counts

    def _windows_of_process(self, sequences: LabelledSequences) -> Iterator[EvaluationWindow]:
        longest = int(sequences.array.records.lengths.max())
        windows = evaluation_windows(sequences.array, max(3, self._eval_length or longest))
        for number, window in enumerate(windows):
            if number % self.args.world_size == self.args.process_index:
                yield window


def _grammar(scheme: ClassScheme, sequences: LabelledSequences) -> Grammar | None:
    """The grammar of the training data's genes, where the classes can be decoded by one."""
    if "CDS" not in scheme.kinds:
        return None
    try:
        grammar = Grammar.of(sequences.genes, sequences.letters, len(sequences.array))
    except ValueError as error:
        raise UserError(f"{', '.join(map(str, sequences.files))}: {error}") from error
    return replace(grammar, class_shares=sequences.class_shares(scheme))
