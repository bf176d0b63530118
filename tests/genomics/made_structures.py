"""Protein chains with ideal coordinates, built from torsion angles with gemmi."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import gemmi
import numpy as np

HELIX, EXTENDED = (-57.0, -47.0), (-135.0, 135.0)
"""phi and psi, degrees."""

_SIDES = {"N": (1.33, 116.6), "CA": (1.46, 121.7), "C": (1.52, 111.0)}
"""Of each atom of the backbone: the bond to the atom before it, angstrom, and the angle there, degrees."""


def _next_atom(before: Sequence[np.ndarray], bond: float, angle: float, torsion: float) -> np.ndarray:
    """Where an atom is, from the three before it (natural extension of the reference frame)."""
    a, b, c = before
    angle, torsion = np.radians(angle), np.radians(torsion)
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    local = [-np.cos(angle), np.cos(torsion) * np.sin(angle), np.sin(torsion) * np.sin(angle)]
    return c + bond * (local[0] * axis + local[1] * np.cross(normal, axis) + local[2] * normal)


def backbone(angles: Sequence[tuple[float, float]]) -> list[dict[str, np.ndarray]]:
    """N, CA, C and O of residues with these phi and psi."""
    atoms = [np.array([0.0, 0.0, 0.0]), np.array([1.46, 0.0, 0.0]), np.array([2.0, 1.42, 0.0])]
    for (_, psi), (phi, _) in pairwise(angles):
        for name, torsion in (("N", psi), ("CA", 180.0), ("C", phi)):
            atoms.append(_next_atom(atoms[-3:], *_SIDES[name], torsion))
    residues = []
    for i, (_, psi) in enumerate(angles):
        n, ca, c = atoms[3 * i : 3 * i + 3]
        oxygen = _next_atom((n, ca, c), 1.23, 120.5, psi + 180.0)
        residues.append({"N": n, "CA": ca, "C": c, "O": oxygen})
    return residues


def write_chains(
    path: Path, chains: dict[str, tuple[str, Sequence[tuple[float, float]]]], without: str = ""
) -> Path:
    """Writes a PDB or mmCIF file.

    Args:
        path: *.pdb or *.cif.
        chains: by name, letters and angles.
        without: names of atoms that are left out of the last residue of each chain.
    """
    made = gemmi.Structure()
    made.name, model = "MADE", gemmi.Model(1)
    made.cell = gemmi.UnitCell(90, 90, 90, 90, 90, 90)
    for number, (name, (letters, angles)) in enumerate(chains.items()):
        chain = gemmi.Chain(name)
        for i, (letter, places) in enumerate(zip(letters, backbone(angles), strict=True)):
            residue = gemmi.Residue()
            residue.name = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA)
            residue.seqid, residue.het_flag = gemmi.SeqId(str(i + 1)), "A"
            for atom_name, place in places.items():
                if i == len(letters) - 1 and atom_name in without.split():
                    continue
                atom = gemmi.Atom()
                atom.name, atom.element = atom_name, gemmi.Element(atom_name[0])
                atom.pos = gemmi.Position(*np.add(place, (0, 0, 60.0 * number)))
                residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    made.add_model(model)
    made.setup_entities()
    made.assign_label_seq_id()
    if path.suffix == ".pdb":
        made.write_pdb(str(path))
    else:
        made.make_mmcif_document().write_file(str(path))
    return path


def made_chain(letters: str, num_helix: int) -> tuple[str, list[tuple[float, float]]]:
    """A chain that begins with a helix of so many residues and goes on extended."""
    return letters, [HELIX] * num_helix + [EXTENDED] * (len(letters) - num_helix)
