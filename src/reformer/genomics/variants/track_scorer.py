"""What a change does to tracks: how much more or less an experiment would measure around it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence, changed_ids
from reformer.genomics.tracks.predictor import TrackPredictor
from reformer.genomics.variants.changes import Change, windows_around
from reformer.genomics.variants.likelihood import Nats
from reformer.genomics.variants.vcf import InfoField

AROUND = 250
"""Bases on either side of a change that count."""

_DECIMALS = 6


class TrackScorer:
    """Of a model of tracks, on both strands; see `Scorer`.

    A score is the mean of asinh(value / mean) over the changed bases and 250 on either side, of the changed
    sequence minus that of the genome's: near 0 a difference of values, far from it of their logarithms.
    Windows are those of `windows_around`.

    Args:
        predictor: the model.
        window: bases, at least 2.
    """

    def __init__(self, predictor: TrackPredictor, window: int) -> None:
        self._predictor, self._window = predictor, window
        names = predictor.settings.names
        self.fields = tuple(
            InfoField(
                field,
                "A",
                "Float",
                f"Mean asinh(value / mean) of track {name} around the change, both strands: of the changed "
                "sequence minus that of the genome's",
            )
            for name, field in zip(names, _field_names(names), strict=True)
        )

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> Nats:
        """See `Scorer`."""
        sequence = StrandedSequence(genome, name, "+", self._predictor.settings.lower_case)
        scores = np.full((len(self.fields), len(changes)), np.nan)
        for first, inside in windows_around(changes, self._window, len(sequence)):
            unchanged: dict[int, npt.NDArray[np.float64]] = {}
            for i, end in inside:
                change = changes[i]
                if end not in unchanged:
                    unchanged[end] = self._spread(sequence.ids(first, end))
                changed = self._spread(changed_ids(sequence, change, first, end))
                left = max(change.start - AROUND - first, 0)
                here = unchanged[end][left : change.end + AROUND - first]
                there = changed[left : change.start + len(change.inserted) + AROUND - first]
                scores[:, i] = there.mean(axis=0) - here.mean(axis=0)
        return np.round(scores, _DECIMALS) + 0.0  # never -0

    def _spread(self, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """asinh(value / mean) of what is predicted, ``[bases, tracks]``."""
        values = self._predictor.predict(ids)
        columns = [
            levels.spread(values[:, track]) for track, levels in enumerate(self._predictor.settings.levels)
        ]
        return np.stack(columns, axis=1)


def _field_names(names: Sequence[str]) -> list[str]:
    """Names of INFO fields, each its own: letters, digits, "_" and "." are left of a track's."""
    found: list[str] = []
    for name in names:
        plain = "REFORMER_TRACK_" + re.sub(r"[^0-9A-Za-z_.]", "_", name)
        number = sum(other == plain or other.startswith(f"{plain}_again") for other in found)
        found.append(plain if not number else f"{plain}_again{number}")
    return found
