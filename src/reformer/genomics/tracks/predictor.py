"""A trained model of tracks, with what its classes mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import reverse_complement
from reformer.data.vocabularies import LowerCase
from reformer.errors import UserError
from reformer.genomics.base_encoding import known_bases
from reformer.genomics.tracks.levels import Levels
from reformer.training.atomic import write_text_atomically
from reformer.training.json_file import read_json
from reformer.training.model_folder import find_model_folder, load_without_tokenizer, resolve_device

SETTINGS_FILE = "tracks.json"
_FORMAT = "reformer tracks"


@dataclass(frozen=True)
class TrackSettings:
    """What a model's classes are.

    Attributes:
        names: of the tracks.
        levels: of each.
        other_strand: for each track the number of what it is on the other strand.
        lower_case: what lower-case letters were in training.
    """

    names: tuple[str, ...]
    levels: tuple[Levels, ...]
    other_strand: tuple[int, ...]
    lower_case: LowerCase

    def write(self, folder: Path) -> None:
        """Writes `tracks.json` into a model's folder."""
        content = {
            "format": _FORMAT,
            "names": list(self.names),
            "levels": [levels.to_json() for levels in self.levels],
            "other_strand": list(self.other_strand),
            "lower_case": self.lower_case,
        }
        write_text_atomically(folder / SETTINGS_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> TrackSettings:
        """Reads what `write` has written.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        file = folder / SETTINGS_FILE
        if not file.exists():
            raise UserError(
                f"{folder}: {SETTINGS_FILE} is missing: expected a model of `reformer dna tracks train`"
            )
        content = read_json(file)
        if content.get("format") != _FORMAT:
            raise UserError(f'{file}: expected "format": "{_FORMAT}"')
        try:
            settings = cls(
                tuple(content["names"]),
                tuple(Levels(**levels) for levels in content["levels"]),
                tuple(content["other_strand"]),
                content["lower_case"],
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{file}: damaged: {error}") from error
        numbers = range(len(settings.names))
        sizes = {len(levels.values) for levels in settings.levels}
        if (len(settings.levels), sorted(settings.other_strand)) != (len(numbers), list(numbers)):
            raise UserError(f"{file}: damaged: expected levels and a strand of {len(numbers)} tracks")
        if len(sizes) != 1 or settings.lower_case not in ("fold", "keep"):
            raise UserError(f"{file}: damaged: expected as many levels of each track, and lower_case")
        return settings


class TrackPredictor:
    """Says what tracks are along a sequence.

    Args:
        model: a `ReformerForTokenClassification`.
        settings: of its folder.
    """

    def __init__(self, model: Any, settings: TrackSettings) -> None:
        self.model = model
        self.settings = settings

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> TrackPredictor:
        """Loads a model in eval mode from its folder, or that of its run or a checkpoint.

        Raises:
            UserError: for a missing, damaged or foreign file, and a device that is not there.
        """
        folder = find_model_folder(path)
        settings = TrackSettings.read(folder)
        torch_device = resolve_device(device)
        model = load_without_tokenizer(folder, ("ReformerForTokenClassification",))
        expected = sum(len(levels.values) for levels in settings.levels)
        if model.config.num_labels != expected:
            raise UserError(
                f"{folder}: the model has {model.config.num_labels} classes, {SETTINGS_FILE} {expected}"
            )
        return cls(model.to(torch_device).eval(), settings)

    def predict(self, tokens: npt.NDArray[np.uint8], *, both_strands: bool = True) -> npt.NDArray[np.float32]:
        """The expected value of each track at each base, float32 ``[..., bases, tracks]``.

        Args:
            tokens: nucleotide token ids ``[..., bases]``, read in one pass, or one for each strand.
            both_strands: average what the model says of the sequence and of its reverse complement.
        """
        probabilities = self.probabilities(tokens, both_strands=both_strands)
        columns = [
            levels.expected(probabilities[..., track, :]) for track, levels in enumerate(self.settings.levels)
        ]
        return np.stack(columns, axis=-1)

    def predict_known(
        self, tokens: npt.NDArray[np.uint8], *, both_strands: bool = True
    ) -> npt.NDArray[np.float32]:
        """The same, but NaN where a base is unknown."""
        values = self.predict(tokens, both_strands=both_strands)
        values[~known_bases(tokens)] = np.nan
        return values

    def probabilities(
        self, tokens: npt.NDArray[np.uint8], *, both_strands: bool = True
    ) -> npt.NDArray[np.float32]:
        """The probability of each level, float32 ``[..., bases, tracks, levels]``; see `predict`."""
        forward = self._one_strand(tokens)
        if not both_strands or getattr(self.model.config, "rc_equivariant", False):
            return forward
        backward = self._one_strand(reverse_complement(np.asarray(tokens)))
        forward += backward[..., ::-1, :, :][..., list(self.settings.other_strand), :]
        forward *= 0.5
        return forward

    def _one_strand(self, tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        import torch

        ids = torch.from_numpy(np.asarray(tokens).astype(np.int64)).to(self.model.device)
        with torch.no_grad():
            logits = self.model(input_ids=ids.reshape(-1, ids.shape[-1])).logits
        by_track = logits.float().reshape(*ids.shape, len(self.settings.names), -1)
        probabilities: npt.NDArray[np.float32] = by_track.softmax(-1).cpu().numpy()
        return probabilities
