"""A trained model that labels sequences, with all that its probabilities are read by."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.nucleotides import reverse_complement
from reformer.errors import UserError
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.batches import padded
from reformer.genomics.classification.metrics import (
    Classified,
    OneLabel,
    SeveralLabels,
    Targets,
    sigmoid,
    softmax,
)
from reformer.genomics.formats.label_files import Labels, target_matrix, targets
from reformer.training.atomic import write_text_atomically
from reformer.training.batches import by_length
from reformer.training.json_file import read_json
from reformer.training.model_folder import find_model_folder, load_without_tokenizer, resolve_device

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

Logits = npt.NDArray[np.float32]

ProblemType = Literal["single_label_classification", "multi_label_classification"]
SINGLE_LABEL: Final = "single_label_classification"
MULTI_LABEL: Final = "multi_label_classification"

SETTINGS_FILE = "classification.json"
_FORMAT = "reformer classification"
_TOKENS_PER_BATCH = 1 << 15


@dataclass(frozen=True)
class ClassificationSettings:
    """What a model's tokens and classes are.

    Attributes:
        classes: their names, by number.
        encoding: of the sequences.
        temperature: what logits are divided by before they become probabilities, fitted on the validation
            sequences (see `.metrics.fit_temperature`); 1 where there were none.
        problem_type: whether a sequence has one of the classes or several.
    """

    classes: tuple[str, ...]
    encoding: BaseEncoding
    temperature: float = 1.0
    problem_type: ProblemType = SINGLE_LABEL

    def targets(self, array: TokenArray, labels: Labels) -> Targets:
        """What is true of the records of an array; raises UserError as `label_files.targets` does."""
        numbers = targets if self.problem_type == SINGLE_LABEL else target_matrix
        return numbers(array, labels, self.classes)

    def scored(self, logits: Logits, true: Targets) -> tuple[Classified, Classified]:
        """Calibrated probabilities of logits ``[records, classes]`` beside the truth, and those before."""
        kind = OneLabel if self.problem_type == SINGLE_LABEL else SeveralLabels
        raw = replace(self, temperature=1.0)
        after, before = (kind(self.classes, true, one.probabilities(logits)) for one in (self, raw))
        return after, before

    def probabilities(self, logits: Logits) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of logits, ``[records, classes]``."""
        return (softmax if self.problem_type == SINGLE_LABEL else sigmoid)(logits / self.temperature)

    def log_probabilities(self, logits: Logits) -> npt.NDArray[np.float64]:
        """Their logarithms, in nats, finite where a probability rounds to 0."""
        scaled = logits.astype(np.float64) / self.temperature
        if self.problem_type == SINGLE_LABEL:
            return scaled - np.logaddexp.reduce(scaled, axis=-1, keepdims=True)  # type: ignore[no-any-return]
        return -np.logaddexp(0, -scaled)  # type: ignore[no-any-return]

    def write(self, folder: Path) -> None:
        """Writes `classification.json` into a model's folder."""
        content = {"format": _FORMAT, **asdict(self)}
        write_text_atomically(folder / SETTINGS_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> ClassificationSettings:
        """Reads `classification.json`.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        file = folder / SETTINGS_FILE
        if not file.exists():
            raise UserError(
                f"{folder}: {SETTINGS_FILE} is missing: expected a model of `reformer dna classify train`"
            )
        content = read_json(file)
        if content.pop("format", None) != _FORMAT:
            raise UserError(f'{file}: expected "format": "{_FORMAT}"')
        try:
            classes, temperature = tuple(content["classes"]), float(content["temperature"])
            if not temperature > 0:
                raise ValueError(f"temperature {temperature}")
            problem_type = content.get("problem_type", SINGLE_LABEL)
            if problem_type not in get_args(ProblemType):
                raise ValueError(f"problem_type {problem_type!r}")
            return cls(classes, BaseEncoding(**content["encoding"]), temperature, problem_type)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: damaged: {error}") from error


class Classifier:
    """Gives the logits and probabilities of the classes of sequences.

    Args:
        model: a `ReformerForSequenceClassification`; any callable that takes int64 ``[batch, bases]`` tokens
            as `input_ids`, with an `attention_mask` where some are padding, and returns an object with
            `logits` ``[batch, classes]`` will do.
        settings: of its folder.
    """

    def __init__(self, model: Any, settings: ClassificationSettings) -> None:
        self.model = model
        self.settings = settings

    @property
    def is_rc_equivariant(self) -> bool:
        """Whether a sequence and its reverse complement have the same probabilities."""
        return bool(getattr(getattr(self.model, "config", None), "rc_equivariant", False))

    def inputs(self, sequences: list[npt.NDArray[np.uint8]]) -> dict[str, torch.Tensor]:
        """What the model takes of a batch of nucleotide token ids ``[bases]``."""
        return padded(self.settings.encoding, sequences, self.is_rc_equivariant)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Classifier:
        """Loads a model in eval mode from its folder, or that of its run or a checkpoint.

        Raises:
            UserError: for a missing, damaged or foreign file, and a device that is not there.
        """
        folder = find_model_folder(path)
        settings = ClassificationSettings.read(folder)
        torch_device = resolve_device(device)
        model = load_without_tokenizer(folder, ("ReformerForSequenceClassification",))
        if model.config.num_labels != len(settings.classes):
            raise UserError(
                f"{folder}: the model has {model.config.num_labels} classes, {SETTINGS_FILE} "
                f"{len(settings.classes)}"
            )
        return cls(model.to(torch_device).eval(), settings)

    def logits(
        self,
        array: TokenArray,
        *,
        other_strand: bool = False,
        process: tuple[int, int] = (0, 1),
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Logits:
        """Reads every sequence whole, those of about the same length together.

        Args:
            array: the sequences.
            other_strand: read their reverse complements.
            process: (index, number) of this process among those that share the batches.
            on_progress: called with the number of bases read since the last call.

        Returns:
            float32 ``[records, classes]``, 0 in rows of other processes.

        Raises:
            UserError: a sequence is longer than the model takes.
        """
        check_lengths(array, getattr(self.model, "config", None))
        windows = [array.window(record.start, record.length) for record in array.records]
        return self.logits_of(windows, other_strand=other_strand, process=process, on_progress=on_progress)

    def logits_of(
        self,
        sequences: Sequence[npt.NDArray[np.uint8]],
        *,
        other_strand: bool = False,
        process: tuple[int, int] = (0, 1),
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Logits:
        """The same of sequences in memory, nucleotide token ids ``[bases]`` each, none of them too long."""
        logits = np.zeros((len(sequences), len(self.settings.classes)), dtype=np.float32)
        device = getattr(self.model, "device", "cpu")
        index, number = process
        for rows in by_length([len(one) for one in sequences], _TOKENS_PER_BATCH)[index::number]:
            windows = [sequences[row] for row in rows]
            if other_strand:
                windows = [reverse_complement(window) for window in windows]
            batch = {name: values.to(device) for name, values in self.inputs(windows).items()}
            with torch.no_grad():
                found = self.model(**batch).logits
            logits[rows] = found.float().cpu().numpy()
            on_progress(sum(map(len, windows)))
        return logits


def check_lengths(array: TokenArray, config: Any) -> None:
    """Raises UserError where a sequence is longer than what a model of this `ReformerConfig` reads."""
    longest = getattr(config, "longest_input", None)
    lengths = array.records.lengths
    if longest is not None and lengths.max() > longest:
        record = array.records[int(lengths.argmax())]
        raise UserError(
            f"{array.sources[0].path}: record {record.name!r} has {record.length:,} bases: expected "
            f"{longest:,} at most, the positions of the model (max_position_embeddings)"
        )
