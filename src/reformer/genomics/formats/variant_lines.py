"""The lines of a VCF file, checked before a library reads them, which repairs or skips what it dislikes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from reformer.errors import UserError
from reformer.genomics.formats.lines import Place, numbered_lines

_COLUMNS = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO"]
_REFERENCE = re.compile("[ACGTUNRYSWKMBDHVacgtunryswkmbdhv]+")
_ALTERNATIVE = re.compile(
    r"[ACGTUNRYSWKMBDHVacgtunryswkmbdhv]+|\*|\.|<[^<>\s]+>|\S*[\[\]]\S*|\.[A-Za-z]+|[A-Za-z]+\."
)


def check_variant_lines(path: str | os.PathLike[str]) -> Iterator[tuple[Place, list[str]]]:
    """Yields place and columns of every variant of a VCF file, plain or gzip, once they have been looked at.

    Raises:
        UserError: no header, too few columns, a position that is no number from 1 on, REF or ALT that is no
            allele, a quality that is no number.
    """
    num_columns = 0
    for place, line in numbered_lines(path):
        if line.startswith("##"):
            continue
        columns = line.split("\t")
        if line.startswith("#"):
            if columns[: len(_COLUMNS)] != _COLUMNS:
                raise place.error(f"expected the columns {' '.join(_COLUMNS)}, separated by tabs")
            num_columns = len(columns)
        elif line:
            if not num_columns:
                raise place.error('a variant before the header: expected a line that starts with "#CHROM"')
            _check(columns, num_columns, place)
            yield place, columns
    if not num_columns:
        raise UserError(f'{path}: no header: expected a line that starts with "#CHROM"')


def _check(columns: list[str], num_columns: int, place: Place) -> None:
    if len(columns) != num_columns:
        raise place.error(f"{len(columns)} columns: expected {num_columns}, as in the header")
    name, position, _, reference, alternatives, quality = columns[:6]
    if not name or name != name.strip():
        raise place.error(f"CHROM is {name!r}: expected a name without spaces")
    if place.number(position, "POS") < 1:
        raise place.error("POS is 0: expected 1 or more")
    if not _REFERENCE.fullmatch(reference):
        raise place.error(f"REF is {reference!r}: expected nucleotide letters")
    for alternative in alternatives.split(","):
        if not _ALTERNATIVE.fullmatch(alternative):
            raise place.error(f"ALT is {alternatives!r}: expected nucleotide letters, *, <NAME> or .")
    if quality != ".":
        try:
            float(quality)
        except ValueError as error:
            raise place.error(f'QUAL is {quality!r}: expected a number or "."') from error
