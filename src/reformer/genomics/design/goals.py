"""What a sequence can be designed to: a number that a trained model gives of a whole sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import nucleotide_table, reverse_complement
from reformer.data.vocabularies import LowerCase
from reformer.errors import UserError
from reformer.genomics.strands import IS_BASE, TokenIds, model_lower_case
from reformer.training.masking import MASKED_SHARE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reformer.genomics.annotation.annotator import Annotator
    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.design.evolution import Values
    from reformer.genomics.tracks.predictor import TrackPredictor

LIKELIHOOD, GENES = "likelihood", "genes"

_DECIMALS = 6  # what is less is rounding, which should not choose between substitutions


@dataclass(frozen=True)
class Goal:
    """A number to make larger or smaller.

    Attributes:
        name: as the command takes it.
        description: what the number is, with its unit.
        longest: the most bases that the model reads; None for no limit.
        values: gives the numbers, float64 ``[sequences]``, of letters of sequences of one length.
    """

    name: str
    description: str
    longest: int | None
    values: Callable[[Sequence[str]], Values]


def load_goal(path: Path, name: str | None, device: str = "auto") -> Goal:
    """Loads what the folder has: a model of language, genes, labels of sequences or tracks.

    Args:
        path: a model, a checkpoint or a run folder.
        name: of a label or track; of a language model "likelihood", of a model of genes "genes". None where
            there is only one.
        device: "auto", "cpu" or "cuda".

    Raises:
        UserError: for a missing, damaged or foreign file, a device that is not there, and a name that is not
            among those of the model.
    """
    from reformer.genomics.annotation import annotator
    from reformer.genomics.classification import classifier
    from reformer.genomics.tracks import predictor
    from reformer.genomics.variants.gene_scorer import check_grammar
    from reformer.training.model_folder import find_model_folder, load_language_model

    folder = find_model_folder(path)
    if (folder / annotator.SETTINGS_FILE).exists():
        name = _chosen(path, (GENES,), name)
        of_bases = annotator.Annotator.load(folder, device)
        check_grammar(of_bases.settings, folder)
        description = "log-likelihood ratio of the best reading as genes to no gene, both strands, in nats"
        return _goal(of_bases.model, name, description, _genes(of_bases))
    if (folder / classifier.SETTINGS_FILE).exists():
        of_sequences = classifier.Classifier.load(folder, device)
        name = _chosen(path, of_sequences.settings.classes, name)
        description = f"log-probability of label {name}, in nats"
        return _goal(of_sequences.model, name, description, _label(of_sequences, name))
    if (folder / predictor.SETTINGS_FILE).exists():
        of_tracks = predictor.TrackPredictor.load(folder, device)
        name = _chosen(path, of_tracks.settings.names, name)
        description = f"mean of track {name} over the bases, both strands"
        scale = of_tracks.settings.levels[of_tracks.settings.names.index(name)].scale
        return _goal(of_tracks.model, name, description, _track(of_tracks, name), scale)
    name = _chosen(path, (LIKELIHOOD,), name)
    model, tokenizer = load_language_model(folder, device)
    what = "log-likelihood" if model.config.is_decoder else "pseudo-log-likelihood"
    description = f"{what} of the bases, in nats, mean of both strands"
    return _goal(model, name, description, _likelihood(model, tokenizer, path))


def _chosen(owner: Path, names: Sequence[str], name: str | None) -> str:
    """The goal of that name, or the only one there is."""
    if name is None and len(names) == 1:
        return names[0]
    if name is None or name not in names:
        given = "no goal is named" if name is None else f"no goal {name!r}"
        raise UserError(f"{owner}: {given}: expected --goal to be one of {', '.join(names)}")
    return name


def _goal(
    model: Any, name: str, description: str, values: Callable[[Sequence[str]], Values], scale: float = 1.0
) -> Goal:
    """A goal whose values are rounded, in units of `scale`."""

    def rounded(sequences: Sequence[str]) -> Values:
        return scale * np.round(values(sequences) / scale, _DECIMALS) + 0.0  # never -0

    return Goal(name, description, model.config.longest_input, rounded)


def _ids(sequences: Sequence[str], lower_case: LowerCase) -> TokenIds:
    """Token ids ``[sequences, bases]``."""
    text = "".join(sequences).encode().translate(nucleotide_table(lower_case))
    return np.frombuffer(text, dtype=np.uint8).reshape(len(sequences), -1)


def _genes(annotator: Annotator) -> Callable[[Sequence[str]], Values]:
    from reformer.genomics.variants.gene_scorer import best_reading

    relatives = annotator.settings.relatives

    def values(sequences: Sequence[str]) -> Values:
        ids = _ids(sequences, "fold")
        brought_over = [None] * len(ids) if relatives is None else relatives.bring_over(ids)
        return np.array([best_reading(annotator, *one) for one in zip(ids, brought_over, strict=True)])

    return values


def _label(classifier: Classifier, name: str) -> Callable[[Sequence[str]], Values]:
    settings = classifier.settings
    number = settings.classes.index(name)

    def values(sequences: Sequence[str]) -> Values:
        logits = classifier.logits_of(list(_ids(sequences, "fold")))
        return settings.log_probabilities(logits)[:, number]

    return values


def _track(predictor: TrackPredictor, name: str) -> Callable[[Sequence[str]], Values]:
    settings = predictor.settings
    number = settings.names.index(name)

    def values(sequences: Sequence[str]) -> Values:
        predicted = predictor.predict(_ids(sequences, settings.lower_case))
        return predicted[:, :, number].mean(axis=1, dtype=np.float64)  # type: ignore[no-any-return]

    return values


def _likelihood(
    model: Any, tokenizer: PreTrainedTokenizerBase, owner: Path
) -> Callable[[Sequence[str]], Values]:
    lower_case = model_lower_case(tokenizer, owner)

    def of_strand(ids: TokenIds) -> Values:
        if model.config.is_decoder:
            return _causal(model, ids)
        return _masked(model, ids, tokenizer.mask_token_id)

    def values(sequences: Sequence[str]) -> Values:
        ids = _ids(sequences, lower_case)
        if getattr(model.config, "rc_equivariant", False):
            return of_strand(ids)
        return (of_strand(ids) + of_strand(reverse_complement(ids))) / 2

    return values


def _causal(model: Any, ids: TokenIds) -> Values:
    """Nats of every base but the first, which nothing comes before, given those before it."""
    found = _log_probabilities(model, ids)[:, :-1]
    return _sum(found, ids[:, 1:])


def _masked(model: Any, ids: TokenIds, mask_id: Any) -> Values:
    """Nats of every base, masked, given those that are not.

    In one pass as large a share is masked as in training, bases as far from each other as can be.
    """
    total = np.zeros(len(ids))
    every = round(1 / MASKED_SHARE)
    for first in range(min(every, ids.shape[1])):
        inputs = ids.copy()
        inputs[:, first::every] = mask_id
        total += _sum(_log_probabilities(model, inputs)[:, first::every], ids[:, first::every])
    return total


def _log_probabilities(model: Any, ids: TokenIds) -> npt.NDArray[np.float64]:
    """Of every token at every place, ``[sequences, bases, vocabulary]``."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids.astype(np.int64)).to(model.device)).logits
        return logits.double().log_softmax(-1).cpu().numpy()  # type: ignore[no-any-return]


def _sum(log_probabilities: npt.NDArray[np.float64], ids: TokenIds) -> Values:
    """Of the bases of each sequence; N does not count."""
    found = np.take_along_axis(log_probabilities, ids[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    return np.where(IS_BASE[ids], found, 0.0).sum(axis=1)  # type: ignore[no-any-return]
