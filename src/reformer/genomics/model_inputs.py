"""What models of several kinds take of bases: of language, genes, labels and tracks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reformer.data.vocabularies import LowerCase
from reformer.genomics.strands import TokenIds, model_lower_case

if TYPE_CHECKING:
    from reformer.genomics.annotation.annotator import AnnotationSettings

ModelInputs = Callable[[list[TokenIds]], dict[str, torch.Tensor]]
"""Makes a batch of sequences, each nucleotide token ids ``[bases]``, of which a model sees nothing more.

It gives what a model's `reformer` takes: `input_ids` int64 ``[batch, longest]``, padded at their ends, with
an `attention_mask` where some are padding, and whatever else the model reads of each base.
"""


def language_inputs(sequences: list[TokenIds]) -> dict[str, torch.Tensor]:
    """Of a language model, whose tokens are the bases; see `ModelInputs`."""
    lengths = torch.tensor([len(tokens) for tokens in sequences])
    longest = int(lengths.max())
    ids = np.stack([np.pad(tokens, (0, longest - len(tokens))) for tokens in sequences]).astype(np.int64)
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.arange(longest) < lengths[:, None]}


def annotation_inputs(settings: AnnotationSettings) -> ModelInputs:
    """Of a model that labels bases, as `Annotator` feeds it: relatives are asked if it reads them."""
    from reformer.genomics.classification.batches import padded

    def inputs(sequences: list[TokenIds]) -> dict[str, torch.Tensor]:
        batch = padded(settings.encoding, sequences, either_strand=True)
        if settings.relatives is None:
            return batch
        features = [
            torch.from_numpy(found.features(len(settings.scheme.names)))
            for found in settings.relatives.bring_over(sequences)
        ]
        return {**batch, "input_features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True)}

    return inputs


def load_reader(path: Path, device: str) -> tuple[Any, LowerCase, ModelInputs]:
    """Loads what the folder has: a model of genes, of labels of sequences, of tracks, or of language.

    Returns:
        The model in evaluation mode, what it was trained to do with lower-case letters, and its inputs.

    Raises:
        UserError: for a missing, damaged or foreign file, and a device that is not there.
    """
    from reformer.genomics.annotation import annotator
    from reformer.genomics.classification import classifier
    from reformer.genomics.tracks import predictor
    from reformer.training.model_folder import find_model_folder, load_language_model

    folder = find_model_folder(path)
    if (folder / annotator.SETTINGS_FILE).exists():
        of_bases = annotator.Annotator.load(folder, device)
        return of_bases.model, "fold", annotation_inputs(of_bases.settings)
    if (folder / classifier.SETTINGS_FILE).exists():
        of_sequences = classifier.Classifier.load(folder, device)
        return of_sequences.model, "fold", of_sequences.inputs
    if (folder / predictor.SETTINGS_FILE).exists():
        of_tracks = predictor.TrackPredictor.load(folder, device)
        return of_tracks.model, of_tracks.settings.lower_case, language_inputs
    model, tokenizer = load_language_model(path, device)
    return model, model_lower_case(tokenizer, path), language_inputs
