"""What scores the variants of a genome: a language model on both strands, or a model of genes or tracks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from reformer.data.vocabularies import LowerCase
from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence, model_lower_case
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.likelihood import Likelihood, Nats, likelihood_of
from reformer.genomics.variants.vcf import InfoField


class Scorer(Protocol):
    """Scores changes with one model.

    Attributes:
        fields: of INFO, one number for each ALT.
    """

    fields: tuple[InfoField, ...]

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> Nats:
        """Scores changes of a sequence.

        Args:
            genome: where the sequence is.
            name: the sequence's.
            changes: in any order.

        Returns:
            float64 `[fields, changes]`, NaN where there is nothing to compare.
        """


def quantile_of(field: InfoField) -> InfoField:
    """The field that says how unusual a score is, see `reformer.genomics.variants.background`."""
    return InfoField(
        f"{field.name}_QUANTILE", "A", "Float",
        f"Share of random changes of the same kind whose {field.name} is no higher, the ALT itself counted: "
        "(rank + 1) / (number + 1)",
    )  # fmt: skip


class LanguageScorer:
    """Of a language model, on both strands.

    Args:
        likelihood: of the model.
        lower_case: what the model was trained to do with lower-case letters.
    """

    fields: tuple[InfoField, ...] = (
        InfoField(
            "REFORMER_LLR", "A", "Float",
            "Log-likelihood of the changed sequence minus that of the genome's, in nats, "
            "mean of both strands",
        ),
        InfoField("REFORMER_LLR_FWD", "A", "Float", "The same on the strand that the genome has"),
        InfoField("REFORMER_LLR_REV", "A", "Float", "The same on the reverse complement"),
    )  # fmt: skip

    def __init__(self, likelihood: Likelihood, lower_case: LowerCase) -> None:
        self._likelihood, self._lower_case = likelihood, lower_case

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> Nats:
        """See `Scorer`."""
        length = genome.lengths[name]
        forward = self._ratios(StrandedSequence(genome, name, "+", self._lower_case), changes)
        flipped = [change.on_other_strand(length) for change in changes]
        reverse = self._ratios(StrandedSequence(genome, name, "-", self._lower_case), flipped)
        return np.stack([_mean(forward, reverse), forward, reverse])

    def _ratios(self, strand: StrandedSequence, changes: Sequence[Change]) -> Nats:
        order = sorted(range(len(changes)), key=lambda i: _place(changes[i]))
        ratios = np.empty(len(changes))
        ratios[order] = self._likelihood.ratios(strand, [changes[i] for i in order])
        return ratios


class FirstOrderScorer(LanguageScorer):
    """Of a causal language model, on both strands, by gradients; of substitutions alone."""

    fields: tuple[InfoField, ...] = (
        InfoField(
            "REFORMER_GRADIENT", "A", "Float",
            "First-order estimate, by the gradient, of the log-likelihood of the changed sequence minus that "
            "of the genome's, in nats, mean of both strands",
        ),
        InfoField("REFORMER_GRADIENT_FWD", "A", "Float", "The same on the strand that the genome has"),
        InfoField("REFORMER_GRADIENT_REV", "A", "Float", "The same on the reverse complement"),
    )  # fmt: skip


def load_first_order_scorer(path: Path, device: str, window: int, reach: int) -> Scorer:
    """Loads a causal language model to score substitutions by gradients.

    Raises:
        UserError: as `load_scorer` does, and for a model of another kind.
    """
    from reformer.genomics.variants.first_order_likelihood import FirstOrderLikelihood
    from reformer.training.model_folder import load_model

    model, tokenizer = load_model(path, device)
    return FirstOrderScorer(FirstOrderLikelihood(model, window, reach), model_lower_case(tokenizer, path))


def load_scorer(path: Path, device: str, window: int, reach: int) -> Scorer:
    """Loads what the folder has: a language model, or one of `dna annotate train` or `dna tracks train`.

    Raises:
        UserError: for a missing, damaged or foreign file, and a device that is not there.
    """
    from reformer.genomics.annotation.annotator import SETTINGS_FILE, Annotator
    from reformer.genomics.tracks import predictor
    from reformer.genomics.variants.gene_scorer import GeneScorer
    from reformer.genomics.variants.track_scorer import TrackScorer
    from reformer.training.model_folder import find_model_folder, load_language_model

    folder = find_model_folder(path)
    if (folder / SETTINGS_FILE).exists():
        return GeneScorer(Annotator.load(folder, device), window, owner=folder)
    if (folder / predictor.SETTINGS_FILE).exists():
        return TrackScorer(predictor.TrackPredictor.load(folder, device), window)
    model, tokenizer = load_language_model(folder, device)
    lower_case = model_lower_case(tokenizer, path)
    return LanguageScorer(likelihood_of(model, tokenizer, window, reach), lower_case)


def _place(change: Change) -> tuple[int, int, str]:
    return change.start, change.end, change.inserted


def _mean(forward: Nats, reverse: Nats) -> Nats:
    """The mean of strands; of one alone where the other has no base to compare."""
    return np.where(np.isnan(forward), reverse, np.where(np.isnan(reverse), forward, (forward + reverse) / 2))
