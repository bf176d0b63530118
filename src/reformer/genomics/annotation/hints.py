"""What relatives say of start and stop codons and splice sites: how much likelier a place is one than others.

Where the like of the bases on one side of a place is coding, and of those on the other is not, the relative
has a site there. Gene finders call such extrinsic evidence hints (Stanke et al., Gene prediction in
eukaryotes with a generalized hidden Markov model that uses hints from external sources, BMC Bioinformatics
7:62, 2006). What a hint is worth is counted on the training genomes, of each of which the others speak. A
model that reads what relatives say knows bases by it, but not to the base where a gene begins: that it would
have to learn from one base in a thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.coding_model import Floats, read_log_odds
from reformer.genomics.annotation.relatives import BroughtOver
from reformer.genomics.annotation.signals import Places, Site

HINTS_FILE = "hints.safetensors"

_REACH = 20  # bases on either side that are asked, as many as a reading of the relatives spans
_LEVELS = np.array([25, 128], dtype=np.uint8)
"""Weights, of 255, from which on the like of a base counts as weak and as strong."""
_NUM_LEVELS = len(_LEVELS) + 1
_SHAPE = (_NUM_LEVELS,) * 4
_PRIOR_COUNTS = 50.0


@dataclass(frozen=True)
class HintModel:
    """Log-likelihood ratios of sites to other places with the same letters.

    Attributes:
        log_odds: for each kind of site float32 ``[3, 3, 3, 3]``, nats, by how alike (not, weakly, strongly)
            the likest base is that a relative has, of the bases before the place, as what lies before such a
            site and as what lies behind it, and of the bases behind the place as the one and the other.
        scheme: the classes.
    """

    log_odds: dict[Site, Floats]
    scheme: ClassScheme

    @classmethod
    def of(
        cls, sequences: Iterable[tuple[BroughtOver, dict[Site, tuple[Places, Places]]]], scheme: ClassScheme
    ) -> HintModel:
        """Counts sites.

        Args:
            sequences: what relatives say of single strands, and of each kind of site where it is and where
                all places with the same letters are, itself among them.
            scheme: the classes of what they say.
        """
        counts = {site: np.zeros((2, *_SHAPE)) for site in get_args(Site)}
        for brought_over, places in sequences:
            for site, (mine, everywhere) in places.items():
                for kind, at in enumerate((mine, np.setdiff1d(everywhere, mine))):
                    np.add.at(counts[site][kind], _levels(site, brought_over, at, scheme), 1)
        return cls({site: _log_odds(*both) for site, both in counts.items()}, scheme)

    @property
    def reach(self) -> int:
        """Bases on either side of a place that its score depends on."""
        return _REACH

    def scores(self, site: Site, brought_over: BroughtOver, at: Places, strand: int = 0) -> Floats:
        """Nats of places.

        Args:
            site: which kind.
            brought_over: what relatives say of the bases, as they are read on "+".
            at: places, as `SignalModel.scores` takes them.
            strand: 0 "+", 1 "-".
        """
        if strand:
            other = brought_over.reverse_complement(self.scheme)
            return self.scores(site, other, len(other.classes) - at)
        return self.log_odds[site][_levels(site, brought_over, at, self.scheme)]

    def write(self, folder: Path) -> None:
        """Writes `hints.safetensors` into a model's folder."""
        from safetensors.numpy import save_file

        save_file({site: np.ascontiguousarray(t) for site, t in self.log_odds.items()}, folder / HINTS_FILE)

    @classmethod
    def read(cls, folder: Path, scheme: ClassScheme) -> HintModel:
        """Reads `hints.safetensors`.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        content = "what relatives say of start and stop codons and splice sites"
        return cls(read_log_odds(folder / HINTS_FILE, content, dict.fromkeys(get_args(Site), _SHAPE)), scheme)


def _sides(site: Site, scheme: ClassScheme) -> npt.NDArray[np.bool_]:
    """Which classes lie before a site on "+" and behind it, ``[2, 3, classes]``, by the distance modulo 3."""
    sides = np.zeros((2, 3, len(scheme.names)), dtype=np.bool_)
    before, behind = sides
    coding = [scheme.number("CDS", "+", frame) for frame in range(3)]
    introns = [n for n, name in enumerate(scheme.names) if name == "intron+"]
    if site == "start":
        before[:] = True
        before[:, coding] = False
        behind[range(3), coding] = True
    elif site == "stop":
        before[range(3), coding] = True
        behind[:] = True
        behind[:, coding] = False
    else:
        before[:, coding if site == "donor" else introns] = True
        behind[:, introns if site == "donor" else coding] = True
    return sides


def _levels(
    site: Site, brought_over: BroughtOver, at: Places, scheme: ClassScheme
) -> tuple[npt.NDArray[np.int64], ...]:
    """Indices into a table of log-odds, four int64 ``[places]``."""
    sides = _sides(site, scheme)
    length = len(brought_over.classes)
    levels = []
    for offsets in (range(-_REACH, 0), range(_REACH)):
        likest = np.zeros((2, len(at)), dtype=np.uint8)
        for offset in offsets:
            inside = (at + offset >= 0) & (at + offset < length)
            base = at[inside] + offset
            classes, weights = brought_over.classes[base], brought_over.weights[base]
            for side, is_there in enumerate(sides[:, offset % 3]):
                here = np.where(is_there[classes], weights, 0).max(axis=1, initial=0)
                likest[side, inside] = np.maximum(likest[side, inside], here)
        levels += [np.searchsorted(_LEVELS, row, side="right") for row in likest]
    return tuple(levels)


def _log_odds(sites: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> Floats:
    background = _rates(others, np.full(_SHAPE, 1 / others.size))
    return (np.log(_rates(sites, background)) - np.log(background)).astype(np.float32)


def _rates(counts: npt.NDArray[np.float64], unseen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities, drawn by a few counts halfway between `unseen` and what the levels say one by one."""
    one_by_one = unseen.copy()
    for axis in range(counts.ndim):
        others = tuple(one for one in range(counts.ndim) if one != axis)
        of_level = unseen.sum(axis=others, keepdims=True)
        one_by_one *= _drawn(counts.sum(axis=others, keepdims=True), of_level) / of_level
    return _drawn(counts, (one_by_one / one_by_one.sum() + unseen) / 2)


def _drawn(counts: npt.NDArray[np.float64], prior: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rates: npt.NDArray[np.float64] = (counts + _PRIOR_COUNTS * prior) / (counts.sum() + _PRIOR_COUNTS)
    return rates
