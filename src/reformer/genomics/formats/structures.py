"""Protein chains of PDB and mmCIF files with their secondary structure, through gemmi.

The labels are those of the file's records (HELIX and SHEET, struct_conf and struct_sheet_range), or assigned
from the coordinates by DSSP (see `reformer.genomics.structure.dssp`). Records know neither turns nor bends
nor bridges, so of the eight classes of DSSP five can occur in them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from reformer.data.sources import SourceFile
from reformer.errors import UserError
from reformer.genomics.extras import require
from reformer.genomics.structure.dssp import UNKNOWN, dssp_labels

Assignment = Literal["records", "coordinates"]
HELIX, HELIX_3_10, HELIX_PI, STRAND, COIL = "H", "G", "I", "E", "C"
_HELIX_3_10_CLASS, _HELIX_PI_CLASS = "R310", "RPi"
EIGHT_CLASSES = {"records": "HGIEC", "coordinates": "HGIEBTSC"}
"""The classes of DSSP that each kind of assignment can give."""
THREE_CLASSES = "HEC"
_TO_THREE = str.maketrans("HGIEBTSC", "HHHEECCC")


def to_three_classes(labels: str) -> str:
    """All helices as H, strands and bridges as E, turns, bends and the rest as C."""
    return labels.translate(_TO_THREE)


@dataclass(frozen=True)
class Chain:
    """A protein chain.

    Attributes:
        name: the chain's name in the file (of mmCIF, the author's).
        letters: amino acids that the file has coordinates of, "X" for those without a letter.
        labels: a letter for each: H alpha helix, G 3-10 helix, I pi helix, E strand, C all else; assigned
            from coordinates also B bridge, T turn, S bend and "?" where atoms of the backbone are missing.
        numbers: the author's residue numbers with insertion codes, "52A"; they jump where residues are
            missing.
    """

    name: str
    letters: str
    labels: str
    numbers: tuple[str, ...]

    @property
    def three_classes(self) -> str:
        """The labels with all helices as H, strands and bridges as E, all else as C."""
        return to_three_classes(self.labels)


def read_structure(path: str | os.PathLike[str], assignment: Assignment = "records") -> list[Chain]:
    """Reads the protein chains of a PDB or mmCIF file, plain or gzip; of several models, the first.

    Args:
        path: the file.
        assignment: where the labels come from.

    Raises:
        UserError: gemmi (or, for coordinates, mdtraj) is missing, the file is neither PDB nor mmCIF, has no
            protein, or has records of secondary structure at residues that are not in it.
    """
    gemmi = require("gemmi", "to read protein structures")
    source = SourceFile.at(path)
    try:
        structure = gemmi.read_structure(str(source.path))
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{source.path}: neither PDB nor mmCIF: {reason}") from error
    if not len(structure):
        raise UserError(f"{source.path}: no atoms: expected a PDB or mmCIF file with ATOM records")
    structure.setup_entities()
    residues = {chain.name: _amino_acids(gemmi, chain) for chain in structure[0]}
    residues = {name: found for name, found in residues.items() if found}
    if not residues:
        raise UserError(f"{source.path}: no protein chain")
    if assignment == "coordinates":
        labels = dict(zip(residues, dssp_labels(list(residues.values())), strict=True))
    else:
        labels = _labels_of_records(structure, residues, str(source.path))
    return [
        Chain(name, _letters(gemmi, found), labels[name], tuple(str(residue.seqid) for residue in found))
        for name, found in residues.items()
    ]


def has_labels(chains: Iterable[Chain]) -> bool:
    """Whether a file says anything of secondary structure: a class other than coil, of whichever chain."""
    return any(set(chain.labels) - {COIL, UNKNOWN} for chain in chains)


def _amino_acids(gemmi: Any, chain: Any) -> list[Any]:
    polymer = chain.get_polymer()
    kind = polymer.check_polymer_type()
    if kind not in (gemmi.PolymerType.PeptideL, gemmi.PolymerType.PeptideD):
        return []
    return list(polymer.first_conformer())


def _letters(gemmi: Any, residues: Iterable[Any]) -> str:
    letters = (gemmi.find_tabulated_residue(r.name).one_letter_code.upper() for r in residues)
    return "".join(letter if letter.isalpha() else "X" for letter in letters)


def _helices(structure: Any) -> Iterable[tuple[Any, Any, str, str]]:
    kinds = {_HELIX_3_10_CLASS: HELIX_3_10, _HELIX_PI_CLASS: HELIX_PI}
    for number, helix in enumerate(structure.helices, 1):
        label = kinds.get(helix.pdb_helix_class.name, HELIX)
        yield helix.start, helix.end, label, f"helix {number}"


def _strands(structure: Any) -> Iterable[tuple[Any, Any, str, str]]:
    for sheet in structure.sheets:
        for number, strand in enumerate(sheet.strands, 1):
            yield strand.start, strand.end, STRAND, f"strand {number} of sheet {sheet.name}"


def _labels_of_records(structure: Any, residues: dict[str, list[Any]], path: str) -> dict[str, str]:
    labels = {name: [COIL] * len(found) for name, found in residues.items()}
    index = {
        name: {str(residue.seqid): i for i, residue in enumerate(found)} for name, found in residues.items()
    }
    for first, last, label, what in [*_strands(structure), *_helices(structure)]:
        _label(labels, index, first, last, label, f"{path}, {what}")
    return {name: "".join(letters) for name, letters in labels.items()}


def _label(
    labels: dict[str, list[str]],
    index: dict[str, dict[str, int]],
    first: Any,
    last: Any,
    label: str,
    what: str,
) -> None:
    chain = first.chain_name
    positions = [
        index.get(address.chain_name, {}).get(str(address.res_id.seqid)) for address in (first, last)
    ]
    if first.chain_name != last.chain_name or None in positions or positions[0] > positions[1]:  # type: ignore[operator]
        raise UserError(
            f"{what}: from {first.chain_name} {first.res_id.seqid} to {last.chain_name} {last.res_id.seqid}: "
            "expected two residues of one chain in the file, in order"
        )
    for i in range(positions[0], positions[1] + 1):  # type: ignore[arg-type, operator]
        labels[chain][i] = label
