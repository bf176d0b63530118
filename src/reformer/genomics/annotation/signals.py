"""What surrounds start codons and splice sites: how much likelier a place is one of them than others alike.

Of each kind of site a Markov chain is counted whose probabilities depend on the place in a window around it,
against the same chain of all places that have the same letters at the site itself (weight arrays; Zhang and
Marr, A weight array method for splicing signal analysis, Bioinformatics 9(5), 1993). Each probability is
drawn towards that of a shorter context, and at last towards the background, by a few counts, so that a small
annotation says little rather than anything wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.coding_model import (
    UNKNOWN,
    Codes,
    Floats,
    contexts,
    other_strand,
    read_log_odds,
)

SIGNALS_FILE = "signals.safetensors"

Site = Literal["start", "stop", "donor", "acceptor"]
Places = npt.NDArray[np.int64]

FIRST: dict[Site, int] = {"start": -20, "donor": -3, "acceptor": -20}
"""Where windows begin, from the first base of a start codon, of an intron, of the exon after it.

Those that stop codons are in are not counted: which stop codon ends a gene its reading frame says.
"""

_LENGTH: dict[Site, int] = {"start": 26, "donor": 9, "acceptor": 23}
_ORDER = 1
_PRIOR_COUNTS = 10.0
_MARGIN = 64  # more than any window reaches beyond the ends


@dataclass(frozen=True)
class SignalModel:
    """Log-likelihood ratios of sites to places with the same letters.

    Attributes:
        log_odds: for each kind of site float32 ``[bases, 4**order, 4]``, nats, by the place in the window,
            the bases before it read as a number to the base 4, and the base.
    """

    log_odds: dict[Site, Floats]

    @classmethod
    def of(
        cls, sequences: Iterable[tuple[Codes, dict[Site, tuple[Places, Places]]]], order: int = _ORDER
    ) -> SignalModel:
        """Counts sites.

        Args:
            sequences: base codes ``[bases]`` of single strands, and of each kind of site where it is and
                where all places with the same letters are, itself among them.
            order: bases of context.
        """
        counts = {site: np.zeros((2, order + 1, _LENGTH[site], 4**order, 4)) for site in FIRST}
        for codes, places in sequences:
            for site in FIRST:
                for kind, at in enumerate(places[site]):
                    for length in range(order + 1):
                        _count(counts[site][kind, length], codes, at + FIRST[site], length)
        return cls({site: _log_odds(pair) for site, pair in counts.items()})

    @property
    def reach(self) -> int:
        """Bases on either side of a place that its score depends on."""
        order = (next(iter(self.log_odds.values())).shape[1].bit_length() - 1) // 2
        return max(max(order - FIRST[site], FIRST[site] + _LENGTH[site]) for site in FIRST)

    def scores(self, site: Site, codes: Codes, at: Places, strand: int = 0) -> Floats:
        """Nats of places; what lies beyond the ends, and N, counts as 0, and so do stop codons.

        Args:
            site: which kind.
            codes: base codes ``[bases]``, as they are read on "+".
            at: places; on "-" they are where the window of "+" would have its mirror image.
            strand: 0 "+", 1 "-".
        """
        if site not in FIRST:
            return np.zeros(len(at), dtype=np.float32)
        if strand:
            return self.scores(site, other_strand(codes), len(codes) - at)
        table = self.log_odds[site]
        order = (table.shape[1].bit_length() - 1) // 2
        before, base = _window(codes, at + FIRST[site], len(table), order)
        known = (before >= 0) & (base != UNKNOWN)
        nats = table[np.arange(len(table)), np.maximum(before, 0), np.minimum(base, 3)]
        return np.where(known, nats, np.float32(0)).sum(axis=1)

    def write(self, folder: Path) -> None:
        """Writes `signals.safetensors` into a model's folder."""
        from safetensors.numpy import save_file

        save_file({site: np.ascontiguousarray(t) for site, t in self.log_odds.items()}, folder / SIGNALS_FILE)

    @classmethod
    def read(cls, folder: Path) -> SignalModel:
        """Reads `signals.safetensors`.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        shapes = {site: (_LENGTH[site], 4**_ORDER, 4) for site in FIRST}
        return cls(read_log_odds(folder / SIGNALS_FILE, "the start codons and splice sites", shapes))


def _window(codes: Codes, starts: Places, length: int, order: int) -> tuple[Codes, Codes]:
    """Contexts and bases of windows, both ``[windows, length]``."""
    padded = np.pad(codes, _MARGIN, constant_values=UNKNOWN)
    at = starts[:, None] + _MARGIN + np.arange(length)
    return contexts(padded, order)[at], padded[at]


def _count(counts: npt.NDArray[np.float64], codes: Codes, starts: Places, order: int) -> None:
    before, base = _window(codes, starts, len(counts), order)
    known = (before >= 0) & (base != UNKNOWN)
    place = np.broadcast_to(np.arange(len(counts)), base.shape)
    np.add.at(counts, (place[known], before[known], base[known]), 1)


def _log_odds(counts: npt.NDArray[np.float64]) -> Floats:
    """Of counts ``[sites or all, context lengths, bases, contexts, 4]``."""
    sites, everywhere = counts
    background = np.full((everywhere.shape[1], 1, 4), 0.25)
    rates = None
    for length in range(len(everywhere)):
        background = _smooth(everywhere[length, :, : 4**length], background)
        rates = _smooth(sites[length, :, : 4**length], background if rates is None else rates)
    assert rates is not None
    return (np.log(rates) - np.log(background)).astype(np.float32)


def _smooth(counts: npt.NDArray[np.float64], shorter: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities ``[bases, contexts, 4]``, drawn towards those of contexts shorter by their first base."""
    prior = np.tile(shorter, (1, counts.shape[1] // shorter.shape[1], 1))
    total = counts.sum(axis=2, keepdims=True)
    return (counts + _PRIOR_COUNTS * prior) / (total + _PRIOR_COUNTS)
