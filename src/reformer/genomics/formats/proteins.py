"""Proteins in FASTA files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reformer.data.proteins import EXPECTED_AMINO_ACIDS, NOT_AN_AMINO_ACID, protein_table
from reformer.errors import UserError
from reformer.genomics.formats.lines import Place, numbered_lines
from reformer.training.atomic import atomic_file

_LINE = 60


@dataclass(frozen=True, slots=True)
class Protein:
    """A protein: the first word of its header, the rest of it, and its letters."""

    name: str
    letters: str
    description: str = ""


def read_proteins(path: str | os.PathLike[str]) -> Iterator[Protein]:
    """Yields the proteins of a FASTA file, plain or gzip; a "*" at the end of one, its stop, is dropped.

    Raises:
        UserError: the file is not FASTA, or has a record without name or sequence, a name twice, or a letter
            that is no amino acid; the message names file and line.
    """
    header: tuple[Place, str, str] | None = None
    pieces: list[str] = []
    names: set[str] = set()
    table = protein_table()
    for place, line in numbered_lines(path):
        if line.startswith(">"):
            if header is not None:
                yield _protein(header, pieces)
            header, pieces = _header(line, place, names), []
        elif line.strip():
            if header is None:
                raise place.error('text before the first record: expected a line that starts with ">"')
            if pieces and pieces[-1].endswith("*"):
                raise place.error(f'record {header[1]!r}: a "*" that is not its last letter')
            pieces.append(_checked(line, place, header[1], table))
    if header is None:
        raise UserError(f'{path}: no record: expected a line that starts with ">"')
    yield _protein(header, pieces)


def write_proteins(path: str | os.PathLike[str], proteins: Iterable[Protein]) -> int:
    """Writes proteins as they come; the file is either whole or not there.

    Returns:
        How many they were.
    """
    count = 0
    with atomic_file(Path(path)) as partial, open(partial, "w", encoding="utf-8") as file:
        for protein in proteins:
            file.write(f">{protein.name} {protein.description}".rstrip() + "\n")
            for start in range(0, len(protein.letters), _LINE):
                file.write(protein.letters[start : start + _LINE] + "\n")
            count += 1
    return count


def _header(line: str, place: Place, names: set[str]) -> tuple[Place, str, str]:
    name, _, description = line[1:].strip().partition(" ")
    if not name:
        raise place.error('a record without a name: expected ">name"')
    if name in names:
        raise place.error(f"duplicate record name {name!r}; expected every name once")
    names.add(name)
    return place, name, description.strip()


def _checked(line: str, place: Place, name: str, table: bytes) -> str:
    letters = "".join(line.split())
    ids = letters.removesuffix("*").encode("ascii", errors="replace").translate(table)
    if (bad := ids.find(NOT_AN_AMINO_ACID)) >= 0:
        column = line.index(letters[bad]) + 1
        raise place.error(
            f"column {column}, record {name!r}: {letters[bad]!r} is not the letter of an amino acid; "
            f"expected {EXPECTED_AMINO_ACIDS}"
        )
    return letters


def _protein(header: tuple[Place, str, str], pieces: list[str]) -> Protein:
    place, name, description = header
    letters = "".join(pieces).removesuffix("*").upper()
    if not letters:
        raise place.error(f"record {name!r} has no sequence")
    return Protein(name, letters, description)
