"""How unusual a score is among those of random changes of the same genome: what the score alone does not say.

Random changes are drawn for each kind of change that a file of variants has, on the sequences that have
variants, and scored by the same scorer. A quantile is the share of a kind's that score no higher than a
change, the change itself counted with them: (rank + 1) / (number + 1), so never 0 and a valid p-value
(Phipson and Smyth, Permutation p-values should never be zero, Statistical Applications in Genetics and
Molecular Biology 9(1), 2010).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from itertools import accumulate
from pathlib import Path

import numpy as np

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.likelihood import Nats
from reformer.genomics.variants.scorers import Scorer, quantile_of
from reformer.genomics.variants.scoring import has_reference
from reformer.genomics.variants.vcf import read_variants

_CHANGES_AT_ONCE = 1024
_TRIES = 10_000
_BASES = "ACGT"

Sizes = tuple[int, int]
"""How many bases a change takes out, and how many it puts in."""


class Kind(Enum):
    """What is compared with its like; random ones have the sizes of the file's own, as often."""

    SUBSTITUTION = "substitution"  # of one base
    REPLACEMENT = "replacement"  # of bases by others, as many or not
    INSERTION = "insertion"
    DELETION = "deletion"

    @classmethod
    def of(cls, change: Change) -> Kind | None:
        """The kind of a change; None where nothing changes."""
        match _sizes(change):
            case (0, 0):
                return None
            case (1, 1):
                return cls.SUBSTITUTION
            case (0, _):
                return cls.INSERTION
            case (_, 0):
                return cls.DELETION
        return cls.REPLACEMENT


def check_background(number: int, seed: int) -> None:
    """Raises UserError for a number of random changes or a seed that cannot be."""
    if number < 0:
        raise UserError(f"--background is {number:,}: expected 0 or more random changes")
    if seed < 0:
        raise UserError(f"--seed is {seed:,}: expected 0 or more")


def draw_changes(source: Path, genome: Genome, number: int, seed: int) -> dict[str, list[Change]]:
    """Draws random changes of each kind that a file has among those to be scored.

    Sequences that have any are drawn from by their length. The genome has A, C, G or T wherever a base is
    changed, or before which others are put in; what is put in is drawn uniformly, of a substitution from the
    three other bases. Sizes are drawn from the file's of that kind; those that do not fit where they are
    drawn, with the place.

    Args:
        source: a file of variants.
        genome: where they are.
        number: of each kind.
        seed: the same one draws the same changes, of a kind whatever others there are, in a file of whichever
            order.

    Returns:
        The changes of each sequence, from left to right, kinds mixed.

    Raises:
        UserError: the file is wrong, or the sequences have hardly any A, C, G and T.
    """
    sizes: dict[Kind, Counter[Sizes]] = {kind: Counter() for kind in Kind}
    names: set[str] = set()
    for variant in read_variants(source):
        if not has_reference(variant, genome):
            continue
        for alternative in variant.alternatives:
            change = Change.of(variant.interval.start, variant.reference, alternative)
            if change is not None and (kind := Kind.of(change)) is not None:
                sizes[kind][_sizes(change)] += 1
                names.add(variant.interval.sequence)
    lengths = {name: length for name, length in genome.lengths.items() if name in names}
    drawn: dict[str, list[Change]] = {name: [] for name in lengths}
    for stream, (kind, counted) in enumerate(sizes.items()):
        if counted:
            sampler = _Sampler(genome, lengths, counted, np.random.default_rng([seed, stream]))
            for _ in range(number):
                name, change = sampler.draw(kind)
                drawn[name].append(change)
    for changes in drawn.values():
        changes.sort(key=lambda change: (change.start, change.end, change.inserted))
    return drawn


class _Sampler:
    """Draws changes of one kind."""

    def __init__(
        self,
        genome: Genome,
        lengths: Mapping[str, int],
        sizes: Mapping[Sizes, int],
        generator: np.random.Generator,
    ) -> None:
        self._genome, self._generator = genome, generator
        self._names, self._sizes = list(lengths), sorted(sizes)
        self._ends = list(accumulate(lengths.values()))  # of the sequences, one behind the other
        self._shares = list(accumulate(sizes[one] for one in self._sizes))

    def draw(self, kind: Kind) -> tuple[str, Change]:
        """The name of a sequence and a change of it."""
        for _ in range(_TRIES):
            number, _ = self._pick(self._shares)
            deleted, inserted = self._sizes[number]
            number, start = self._pick(self._ends)
            name, end = self._names[number], start + deleted
            if max(end, start + 1) > self._genome.lengths[name]:
                continue
            letters = self._genome.letters(Interval(name, start, max(end, start + 1))).upper()
            new = "".join(_BASES[one] for one in self._generator.integers(4, size=inserted))
            is_known = not set(letters) - set(_BASES)
            is_whole = not (deleted and inserted) or (letters[0] != new[0] and letters[-1] != new[-1])
            if is_known and is_whole:
                return name, Change(start, end, new)
        raise UserError(
            f"{self._genome.path}: no place for a random {kind.value} in {_TRIES:,} tries: expected more of "
            "A, C, G and T in the sequences that have variants"
        )

    def _pick(self, ends: Sequence[int]) -> tuple[int, int]:
        """One of some stretches, as often as it is long, by its number, and a place in it."""
        place = int(self._generator.integers(ends[-1]))
        number = bisect_right(ends, place)
        return number, place - (ends[number - 1] if number else 0)


class QuantileScorer:
    """A scorer that says of each of its scores how unusual it is as well; see `Scorer`.

    Behind each field of the scorer comes one named FIELD_QUANTILE. A quantile is NaN where the score is, and
    of a kind that has no random changes. Kept are sorted scores alone.

    Args:
        scorer: what scores.
        genome: where the random changes are.
        drawn: random changes of each sequence, see `draw_changes`; they are scored here.
        on_changes: called with the number of random changes that have been scored since the last call.

    Raises:
        UserError: a field of the scorer has the name of another one's quantile.
    """

    def __init__(
        self,
        scorer: Scorer,
        genome: Genome,
        drawn: Mapping[str, Sequence[Change]],
        on_changes: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._scorer = scorer
        self.fields = tuple(one for field in scorer.fields for one in (field, quantile_of(field)))
        name, times = Counter(field.name for field in self.fields).most_common(1)[0]
        if times > 1:
            raise UserError(f"{name} is both a score and a quantile: expected other names of tracks")
        found: dict[Kind, list[Nats]] = {}
        for sequence, changes in drawn.items():
            for start in range(0, len(changes), _CHANGES_AT_ONCE):
                batch = changes[start : start + _CHANGES_AT_ONCE]
                scores = scorer.scores(genome, sequence, batch)
                for kind, columns in _by_kind(batch).items():
                    found.setdefault(kind, []).append(scores[:, columns])
                on_changes(len(batch))
        self._background = {
            kind: [np.sort(row[~np.isnan(row)]) for row in np.concatenate(parts, axis=1)]
            for kind, parts in found.items()
        }

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> Nats:
        """See `Scorer`."""
        scores = self._scorer.scores(genome, name, changes)
        quantiles = np.full_like(scores, np.nan)
        for kind, columns in _by_kind(changes).items():
            for row, background in enumerate(self._background.get(kind, ())):
                if len(background):
                    ranks = np.searchsorted(background, scores[row, columns], side="right")
                    quantiles[row, columns] = (ranks + 1) / (len(background) + 1)
        quantiles[np.isnan(scores)] = np.nan
        return np.stack([scores, quantiles], axis=1).reshape(len(self.fields), len(changes))


def _sizes(change: Change) -> Sizes:
    return change.end - change.start, len(change.inserted)


def _by_kind(changes: Sequence[Change]) -> dict[Kind, list[int]]:
    """The numbers of the changes of each kind."""
    found: dict[Kind, list[int]] = {}
    for number, change in enumerate(changes):
        if (kind := Kind.of(change)) is not None:
            found.setdefault(kind, []).append(number)
    return found
