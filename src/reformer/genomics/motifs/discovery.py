"""Motifs that a model has learnt: what recurs where single bases matter.

Simpler than TF-MoDISco (Shrikumar et al. 2018), whose steps it takes in their simplest form: windows that
matter more than shuffled ones (seqlets), and greedy clusters of those that look alike on either strand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.bed import Region, write_bed
from reformer.genomics.formats.motifs import BASES, Motif, write_meme
from reformer.genomics.motifs.contributions import Contributions

MOTIFS_FILE, SITES_FILE = "motifs.meme", "sites.bed"

_CORE, _FLANK = 10, 5  # bases of a seqlet that must matter, and on either side of these
_LENGTH = _CORE + 2 * _FLANK
_WIDEST = _LENGTH + 20
_MAX_SHIFT = 10
_NOT_SHIFTED = 2 * _MAX_SHIFT  # among the windows of a seqlet, which are on "+" and "-" by turns
_SHUFFLES, _FALSE_DISCOVERIES = 10, 0.05
_MAX_SEQLETS = 5000
_ALIKE = 0.7  # cosine; windows of noise that align at random stay below
_ROUNDS = 3
_EDGE = 0.3  # of the largest column: what a motif ends with
_MIN_WIDTH = 4

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FoundMotif:
    """A motif and its sites.

    Attributes:
        motif: counts of the bases at the sites.
        sites: where, with strands; and what each adds to the score, the mean over its bases.
    """

    motif: Motif
    sites: list[tuple[Interval, float]]


def find_motifs(map_: Contributions, min_sites: int, seed: int = 0) -> tuple[list[FoundMotif], int]:
    """Finds motifs, those with most sites first, and the number of seqlets.

    Args:
        map_: what each base adds.
        min_sites: of a motif.
        seed: of the shuffles that seqlets are compared with.
    """
    starts = seqlets(map_, seed) - _FLANK
    if len(starts) < min_sites:
        return [], len(starts)
    shifts = np.repeat(np.arange(-_MAX_SHIFT, _MAX_SHIFT + 1), 2)
    is_minus = np.arange(len(shifts)) % 2 == 1
    windows = _windows(
        map_.effects, starts[:, None] + shifts, np.broadcast_to(is_minus, (len(starts), len(shifts)))
    )
    windows = windows.reshape(len(starts), len(shifts), -1)
    clusters = _clusters(_unit(windows), windows, min_sites)
    found = []
    for members, aligned in clusters:
        at = starts[members] + shifts[aligned]
        one = _found(map_, at, is_minus[aligned], min_sites)
        if one is not None:
            found.append(one)
    found.sort(key=lambda one: -len(one.sites))
    named = [
        FoundMotif(Motif(f"motif{number}", one.motif.counts), one.sites)
        for number, one in enumerate(found, start=1)
    ]
    return named, len(starts)


def seqlets(map_: Contributions, seed: int = 0) -> Ints:
    """First positions of windows of 10 bases whose sum stands out, the strongest first, no two overlapping.

    As many stand out as leave a twentieth of them to chance, by the sums that the same contributions have in
    shuffled order.
    """
    own, known = map_.own, map_.bases >= 0
    inside = np.convolve(known, np.ones(_CORE), mode="valid") == _CORE
    sums = np.where(inside, np.abs(np.convolve(own, np.ones(_CORE), mode="valid")), 0)
    generator, shuffled, by_chance = np.random.default_rng(seed), np.zeros_like(own), []
    for _ in range(_SHUFFLES):
        shuffled[known] = generator.permutation(own[known])
        by_chance.append(np.abs(np.convolve(shuffled, np.ones(_CORE), mode="valid"))[inside])
    null = np.sort(np.concatenate(by_chance))
    order = np.argsort(-sums, kind="stable")[: int(inside.sum())]
    above = (len(null) - np.searchsorted(null, sums[order])) / _SHUFFLES
    good = np.flatnonzero((above <= _FALSE_DISCOVERIES * np.arange(1, len(order) + 1)) & (sums[order] > 0))
    chosen, taken = list[int](), np.zeros(len(sums) + _CORE, dtype=np.bool_)
    for start in order[: good[-1] + 1 if len(good) else 0].tolist():
        if not taken[start]:
            chosen.append(start)
            taken[max(start - _CORE + 1, 0) : start + _CORE] = True
            if len(chosen) == _MAX_SEQLETS:
                break
    return np.array(chosen, dtype=np.int64)


def _windows(rows: Floats, starts: Ints, is_minus: npt.NDArray[np.bool_], length: int = _LENGTH) -> Floats:
    """Rows ``[..., length, 4]`` from each start on, as the other strand has them where `is_minus`."""
    found = rows[starts[..., None] + np.arange(length)]
    return np.where(is_minus[..., None, None], found[..., ::-1, ::-1], found)


def _unit(vectors: Floats) -> Floats:
    """Scaled to length 1 along the last axis; zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _clusters(unit: Floats, windows: Floats, min_sites: int) -> list[tuple[Ints, Ints]]:
    """Members of each cluster, largest first, and which of their windows is aligned with it.

    Args:
        unit: ``[seqlets, windows, values]``, windows scaled to length 1.
        windows: the same, not scaled.
        min_sites: of a cluster.
    """
    sums = np.zeros((0, unit.shape[2]), dtype=np.float32)
    for seqlet, candidates in enumerate(unit):
        if len(sums):
            which, best, likeness = _closest(candidates[None], sums)
            if likeness[0] >= _ALIKE:
                sums[which[0]] += windows[seqlet, best[0]]
                continue
        sums = np.vstack([sums, windows[seqlet, _NOT_SHIFTED]])
    for _ in range(_ROUNDS):
        which, best, likeness = _closest(unit, sums)
        which[likeness < _ALIKE] = -1
        sizes = np.bincount(which + 1, minlength=len(sums) + 1)[1:]
        kept = [one for one in np.argsort(-sizes, kind="stable").tolist() if sizes[one] >= min_sites]
        distinct: list[Floats] = []
        for cluster in kept:
            members = np.flatnonzero(which == cluster)
            if distinct:
                _, _, to_larger = _closest(unit[members], np.array(distinct))
                if np.median(to_larger) >= _ALIKE:
                    continue
            distinct.append(windows[members, best[members]].sum(axis=0))
        if not distinct:
            return []
        sums = np.array(distinct)
    which, best, likeness = _closest(unit, sums)
    which[likeness < _ALIKE] = -1
    members_of = [np.flatnonzero(which == cluster) for cluster in range(len(sums))]
    return [(members, best[members]) for members in members_of if len(members) >= min_sites]


def _closest(unit: Floats, sums: Floats) -> tuple[Ints, Ints, Floats]:
    """For each seqlet the cluster that one of its windows is most like, that window, and the cosine."""
    means = _unit(sums).T
    which, best = np.zeros(len(unit), dtype=np.int64), np.zeros(len(unit), dtype=np.int64)
    likeness = np.zeros(len(unit), dtype=np.float32)
    for seqlet, candidates in enumerate(unit):
        cosines = candidates @ means
        best[seqlet], which[seqlet] = np.unravel_index(int(cosines.argmax()), cosines.shape)
        likeness[seqlet] = cosines[best[seqlet], which[seqlet]]
    return which, best, likeness


def _found(
    map_: Contributions, starts: Ints, is_minus: npt.NDArray[np.bool_], min_sites: int
) -> FoundMotif | None:
    """The motif of aligned windows, wider or narrower than these as its columns have it."""
    more = (_WIDEST - _LENGTH) // 2
    placed = np.unique(np.stack([starts - more, is_minus], axis=1), axis=0)
    starts, is_minus = placed[:, 0], placed[:, 1].astype(np.bool_)
    mean = _windows(map_.effects, starts, is_minus, _WIDEST).mean(axis=0)
    heights = np.abs(mean).sum(axis=1)
    columns = np.flatnonzero(heights >= _EDGE * heights.max())
    first, end = int(columns[0]), int(columns[-1]) + 1
    width = end - first
    starts = starts + np.where(is_minus, _WIDEST - end, first)
    here = np.eye(len(BASES) + 1, len(BASES), dtype=np.float32)[map_.bases]  # -1 is the last row, of zeros
    letters = _windows(here, starts, is_minus, width)
    whole = letters.sum(axis=(1, 2)) == width
    starts, is_minus, letters = starts[whole], is_minus[whole], letters[whole]
    if width < _MIN_WIDTH or len(starts) < min_sites:
        return None
    added = _windows(map_.effects, starts, is_minus, width) * letters
    scores = added.sum(axis=2).mean(axis=1)
    sites = [
        (map_.interval(start, width, "-" if minus else "+"), float(score))
        for start, minus, score in zip(starts.tolist(), is_minus.tolist(), scores, strict=True)
    ]
    return FoundMotif(Motif("", letters.sum(axis=0).astype(np.float64)), sites)


def write_found(folder: Path, found: Sequence[FoundMotif], map_: Contributions) -> None:
    """Writes `motifs.meme` and `sites.bed`, sorted as the map is, into a folder."""
    shares = np.bincount(map_.bases[map_.bases >= 0], minlength=len(BASES)) / (map_.bases >= 0).sum()
    composition = dict(zip(BASES, shares.tolist(), strict=True))
    write_meme(folder / MOTIFS_FILE, [one.motif for one in found], composition)
    order = {
        name: number for number, name in enumerate(dict.fromkeys(at.sequence for _, at in map_.stretches))
    }
    regions = [Region(at, one.motif.name, score) for one in found for at, score in one.sites]
    regions.sort(key=lambda one: (order[one.interval.sequence], one.interval.start, one.interval.end))
    write_bed(folder / SITES_FILE, regions)
