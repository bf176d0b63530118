"""Secondary structure from coordinates: the classes of DSSP (Kabsch and Sander 1983), through mdtraj."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reformer.genomics.extras import require

UNKNOWN = "?"
_BACKBONE = ("N", "CA", "C", "O")
_LONGEST_BOND = 2.5
"""Angstrom between C and the next N; further apart, residues between them are missing."""


def dssp_labels(chains: Sequence[Sequence[Any]]) -> list[str]:
    """Labels the residues of the chains of one model, which see each other's hydrogen bonds.

    Args:
        chains: gemmi's residues.

    Returns:
        A text for each chain, of the letters H B E G I T S, C for all else, and "?" where one of N, CA, C
        and O is missing.

    Raises:
        UserError: mdtraj is missing.
    """
    mdtraj = require("mdtraj", "to assign secondary structure from coordinates")
    topology, positions, places = mdtraj.Topology(), [], []
    for number, residues in enumerate(chains):
        before = None
        for i, residue in enumerate(residues):
            atoms = {atom.name: atom for atom in residue if atom.name in _BACKBONE}
            if len(atoms) < len(_BACKBONE):
                continue
            if before is None or before.pos.dist(atoms["N"].pos) > _LONGEST_BOND:
                part = topology.add_chain()
            before = atoms["C"]
            added = topology.add_residue(residue.name, part)
            for name in _BACKBONE:
                topology.add_atom(name, mdtraj.element.get_by_symbol(name[0]), added)
                positions.append(atoms[name].pos.tolist())
            places.append((number, i))
    labels = [[UNKNOWN] * len(residues) for residues in chains]
    if places:
        nanometres = np.asarray(positions, dtype=np.float32)[None] / 10
        found = mdtraj.compute_dssp(mdtraj.Trajectory(nanometres, topology), simplified=False)[0]
        for (number, i), label in zip(places, found, strict=True):
            labels[number][i] = label.strip() or "C"
    return ["".join(letters) for letters in labels]
