"""Variants of a VCF file, scored by a model: the work of `reformer dna score`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Literal

import numpy as np

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.genome import Genome
from reformer.genomics.provenance import Provenance, one_line
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.scorers import Scorer, quantile_of
from reformer.genomics.variants.vcf import (
    Filter,
    Scored,
    Variant,
    read_variants,
    write_scored_variants,
)
from reformer.training.atomic import check_writable

MAX_WINDOW = 1 << 20
REF_MISMATCH = Filter("REF_MISMATCH", "REF is not what the genome has there; not scored")
_VARIANTS_AT_ONCE = 1024


def check_window(window: int, reach: int) -> None:
    """Raises UserError for a window or a reach that is out of range."""
    if not 2 <= window <= MAX_WINDOW:
        raise UserError(f"--window is {window:,}: expected 2 to {MAX_WINDOW:,} bases")
    if not 1 <= reach <= MAX_WINDOW:
        raise UserError(f"--reach is {reach:,}: expected 1 to {MAX_WINDOW:,} bases")


def check_output(path: Path) -> None:
    """Raises UserError unless a scored file can be written there."""
    if not path.name.endswith(".vcf.gz"):
        raise UserError(f"{path}: expected a name that ends with .vcf.gz")
    check_writable(path)


def check_variants(source: Path, genome: Genome, on_mismatch: Literal["error", "filter"]) -> tuple[int, int]:
    """Looks at all variants before any is scored.

    Returns:
        How many there are, and how many have a REF that is not the genome's.

    Raises:
        UserError: the file is wrong or not sorted, the names of its sequences are not those of the genome, or
            a REF is not the genome's and `on_mismatch` is "error".
    """
    num_variants, num_mismatches = 0, 0
    known: set[str] = set()
    for variant in read_variants(source, is_sorted=True):
        if variant.interval.sequence not in known:
            check_names([variant.interval.sequence], source, genome.lengths, genome.path)
            known.add(variant.interval.sequence)
        num_variants += 1
        if not has_reference(variant, genome):
            num_mismatches += 1
            if on_mismatch == "error":
                raise UserError(
                    f"{variant.where}: REF is {_short(variant.reference)}, but {genome.path} has "
                    f"{_short(_letters(variant, genome)) or 'no base'} there; --on-mismatch filter goes on"
                )
    return num_variants, num_mismatches


def has_reference(variant: Variant, genome: Genome) -> bool:
    """Whether the genome has what REF says, in whichever case."""
    return _letters(variant, genome).upper() == variant.reference.upper()


def _letters(variant: Variant, genome: Genome) -> str:
    """What the genome has in the place of REF, as far as the sequence goes."""
    interval = variant.interval
    length = genome.lengths[interval.sequence]
    start, end = min(interval.start, length), min(interval.end, length)
    return genome.letters(type(interval)(interval.sequence, start, end))


def _short(letters: str) -> str:
    return letters if len(letters) <= 20 else f"{letters[:17]}..."


def write_scores(
    path: Path,
    source: Path,
    genome: Genome,
    scorer: Scorer,
    on_variants: Callable[[int], None] = lambda number: None,
    made: Provenance | None = None,
) -> None:
    """Scores the variants of a file, see `write_scored_variants`.

    An allele that is not made of A, C, G and T gets ".", as do all of a variant whose REF is not the
    genome's, which the filter `REF_MISMATCH` marks.

    Args:
        path: the file to write.
        source: the file to read.
        genome: where the variants are.
        scorer: the model.
        on_variants: called with the number of variants that have been scored since the last call.
        made: what makes the scores, for the header.
    """

    def score(variants: Iterator[Variant]) -> Iterator[Scored]:
        for name, of_sequence in groupby(variants, key=lambda variant: variant.interval.sequence):
            while batch := tuple(islice(of_sequence, _VARIANTS_AT_ONCE)):
                yield from _scored(batch, genome, name, scorer)
                on_variants(len(batch))

    line = None if made is None else one_line(made)
    outdated = [quantile_of(field).name for field in scorer.fields]  # of other scores than these
    write_scored_variants(path, source, scorer.fields, score, [REF_MISMATCH], line, outdated)


def _scored(variants: tuple[Variant, ...], genome: Genome, name: str, scorer: Scorer) -> Iterator[Scored]:
    matches = [has_reference(variant, genome) for variant in variants]
    changes = [
        Change.of(variant.interval.start, variant.reference, alternative) if is_match else None
        for variant, is_match in zip(variants, matches, strict=True)
        for alternative in variant.alternatives
    ]
    scores = np.full((len(scorer.fields), len(changes)), np.nan)
    there = [index for index, change in enumerate(changes) if change is not None]
    if there:
        scores[:, there] = scorer.scores(genome, name, [change for change in changes if change is not None])
    start = 0
    for variant, is_match in zip(variants, matches, strict=True):
        here = slice(start, start + len(variant.alternatives))
        start = here.stop
        values = zip(scorer.fields, scores[:, here].tolist(), strict=True)
        yield Scored(
            {field.name: tuple(numbers) for field, numbers in values} if variant.alternatives else {},
            () if is_match else (REF_MISMATCH.name,),
        )
