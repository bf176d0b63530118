"""Names of sequences in files that are to be used together."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from reformer.errors import UserError

_NUM_EXAMPLES = 3


def check_names(
    names: Iterable[str],
    file: str | os.PathLike[str],
    genome_names: Collection[str],
    genome: str | os.PathLike[str],
) -> None:
    """Checks that every sequence that `file` speaks of is in the genome, under the same name.

    Args:
        names: the names in an annotation, a list of regions or of variants.
        file: that file, named in the error.
        genome_names: the names in the genome.
        genome: its file, named in the error.

    Raises:
        UserError: a name is missing. Where adding or dropping "chr" or a version (".1") would make names
            meet, the message says so; nothing is renamed, for a guess could pick the wrong sequence.
    """
    known = frozenset(genome_names)
    missing = sorted(set(names) - known)
    if not missing:
        return
    by_bare_name = {bare_name(name): name for name in sorted(known, reverse=True)}
    for name in missing:
        if (other := by_bare_name.get(bare_name(name))) is not None:
            raise UserError(
                f"{file}: sequence {name!r} is not in {genome}, which has {other!r}: "
                "expected the same names in both files"
            )
    raise UserError(
        f"{file}: {_examples(missing)} not in {genome}, which has {_examples(sorted(known))}: "
        "expected the same names in both files"
    )


def bare_name(name: str) -> str:
    """A name without "chr", version and case: what differing names of one sequence have in common."""
    name = name.lower().removeprefix("chr")
    stem, point, version = name.rpartition(".")
    name = stem if point and version.isdigit() else name
    return "mt" if name == "m" else name


def _examples(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:_NUM_EXAMPLES]))
    more = len(names) - _NUM_EXAMPLES
    return f"{shown} and {more:,} more" if more > 0 else shown or "no sequence"
