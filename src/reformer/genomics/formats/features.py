"""A line of an annotation, the same for GFF3 and GTF."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reformer.genomics.coordinates import STRANDS, Interval
from reformer.genomics.formats.lines import Place

Phase = Literal[0, 1, 2]
Attributes = Mapping[str, tuple[str, ...]]
PHASES: dict[str, Phase | None] = {"0": 0, "1": 1, "2": 2, ".": None}
NUM_COLUMNS = 9


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of an annotation.

    Attributes:
        interval: where it is.
        type: "gene", "CDS" and so on, as the file names it.
        source: what made it, "." where unknown.
        score: the score, None where there is none.
        phase: bases to skip from the feature's 5' end to the first base of a codon; None outside CDS.
        attributes: tag -> values, in the order of the file.
        place: the line it comes from, None if it was made here.
    """

    interval: Interval
    type: str
    source: str = "."
    score: float | None = None
    phase: Phase | None = None
    attributes: Attributes = field(default_factory=dict)
    place: Place | None = None

    def first(self, tag: str) -> str | None:
        """The first value of an attribute, None if the feature does not have it."""
        values = self.attributes.get(tag)
        return values[0] if values else None


def feature_of(columns: list[str], attributes: Attributes, place: Place) -> Feature:
    """Makes a feature of the first eight columns, which GFF3 and GTF share, and its attributes.

    Raises:
        UserError: a column is not what it should be.
    """
    name, source, kind, first, last, score, strand, phase = columns[:8]
    if not name or not kind:
        raise place.error(f"the {'type' if name else 'sequence name'} is empty: expected a name")
    strand = "." if strand == "?" else strand  # GFF3: stranded, but unknown
    if strand not in STRANDS:
        raise place.error(f'strand is {strand!r}: expected "+", "-" or "."')
    if phase not in PHASES or (kind == "CDS" and phase == "."):
        raise place.error(f"phase of a {kind} is {phase!r}: expected 0, 1 or 2")
    start, end = place.number(first, "start"), place.number(last, "end")
    try:
        interval = Interval.from_closed(name, start, end, STRANDS[strand])
    except ValueError as error:
        raise place.error(str(error)) from error
    return Feature(interval, kind, source, _score(score, place), PHASES[phase], attributes, place)


def split_columns(line: str, place: Place) -> list[str]:
    """Splits a line at its tabs; raises UserError unless there are nine columns."""
    columns = line.split("\t")
    if len(columns) != NUM_COLUMNS:
        raise place.error(f"{len(columns)} columns: expected {NUM_COLUMNS}, separated by tabs")
    return columns


def _score(text: str, place: Place) -> float | None:
    if text == ".":
        return None
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise place.error(f'score is {text!r}: expected a number or "."')
    return score
