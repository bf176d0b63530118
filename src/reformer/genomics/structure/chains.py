"""The protein chains of folders of structure files, and why some are not used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reformer.errors import UserError
from reformer.genomics.formats.structures import Chain, has_labels, read_structure
from reformer.genomics.structure.dssp import UNKNOWN

if TYPE_CHECKING:
    from reformer.genomics.structure.recipe import StructureSection

_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif")
_LEAST_LABELLED = 0.5


@dataclass(frozen=True)
class NamedChain:
    """A chain under a name of its own, "FILE:CHAIN", with its file."""

    name: str
    chain: Chain
    file: Path


def read_chains(paths: Sequence[str], section: StructureSection, left_out: list[str]) -> list[NamedChain]:
    """Reads the chains of files and folders; exact copies of an earlier one are passed over.

    Args:
        paths: files and folders.
        section: says which chains are long enough, and where labels come from.
        left_out: takes a line for each file and chain that is not used, with the reason.

    Raises:
        UserError: a file that is named itself cannot be read, or there is no chain at all.
    """
    found: dict[str, NamedChain] = {}
    names: set[str] = set()
    for path, is_named in _files(paths):
        try:
            chains = read_structure(path, section.assignment)
        except UserError as error:
            if is_named:
                raise
            left_out.append(str(error))
            continue
        if not has_labels(chains):
            left_out.append(f"{path}: no secondary structure in its {section.assignment}")
            continue
        for chain in chains:
            name = _new_name(f"{path.name}:{chain.name}", names)
            labelled = sum(label != UNKNOWN for label in chain.labels)
            if len(chain.letters) < section.min_length:
                left_out.append(f"{path}, chain {chain.name}: {len(chain.letters)} residues")
            elif labelled < _LEAST_LABELLED * len(chain.letters):
                left_out.append(
                    f"{path}, chain {chain.name}: {labelled} of {len(chain.letters)} residues whole"
                )
            else:
                found.setdefault(chain.letters, NamedChain(name, chain, path))
    if not found:
        raise UserError(
            f"{', '.join(map(str, paths))}: no protein chain of {section.min_length} residues or more: "
            f"expected PDB or mmCIF files, or folders of files *{', *'.join(_SUFFIXES)}, plain or .gz"
        )
    return list(found.values())


def _files(paths: Sequence[str]) -> Iterator[tuple[Path, bool]]:
    """Each file, and whether it was named itself; those of a folder in the order of their names."""
    for name in paths:
        path = Path(name)
        if not path.is_dir():
            yield path, True
            continue
        for folder, folders, files in os.walk(path):
            folders.sort()
            for file in sorted(files):
                if file.removesuffix(".gz").lower().endswith(_SUFFIXES):
                    yield Path(folder) / file, False


def _new_name(name: str, names: set[str]) -> str:
    unique, number = name, 1
    while unique in names:
        number += 1
        unique = f"{name}#{number}"
    names.add(unique)
    return unique
