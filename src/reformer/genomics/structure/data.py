"""Protein chains with a label for every residue: read from files, made unlike each other, and split.

Of chains that are at least 90 % identical the longest is kept: a set counts each protein once. No chain of
the training data is in one cluster (see `.protein_clusters`) with a chain that is evaluated on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain as chained
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.build import build_record_array
from reformer.data.proteins import protein_table
from reformer.data.sources import sha256_of
from reformer.data.tokens import Source
from reformer.genomics.formats.structures import Chain
from reformer.genomics.structure.chains import NamedChain, read_chains
from reformer.genomics.structure.dssp import UNKNOWN
from reformer.genomics.structure.protein_clusters import clusters, longest_of_each, split_clusters
from reformer.layers.randomness import derive
from reformer.training.corpus import default_cache_dir
from reformer.training.progress import progress_bar
from reformer.training.run_data import TEST, VALIDATION, RunData

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.genomics.structure.recipe import StructureRecipe, StructureSection

Labels = npt.NDArray[np.uint8]

NO_LABEL = 255
SAME_PROTEIN = 0.9


@dataclass(frozen=True)
class StructureData(RunData):
    """The data of a run, with labels.

    Attributes:
        train: chains to train on.
        held_out: chains to evaluate on, by name; those of "test" only after training.
        labels: uint8 ``[tokens]`` for the tokens of all these together: a class, or `NO_LABEL`.
        files: of each set.
        left_out: files and chains that are not used, with the reason.
    """

    labels: Labels
    files: dict[str, list[Source]]
    left_out: list[str]

    @property
    def validation(self) -> dict[str, TokenArray]:
        """All held-out sets but "test"."""
        return {name: array for name, array in self.held_out.items() if name != TEST}

    @classmethod
    def of(cls, recipe: StructureRecipe) -> StructureData:
        """Reads and splits the chains that a recipe names.

        Raises:
            UserError: a file that is named cannot be read (in a folder it is left out instead), a set has no
                chain, or nothing is left to train on.
        """
        section, left_out = recipe.structure, list[str]()
        named = {"train": recipe.data.train, **recipe.data.eval}
        found = {
            name: _unlike(read_chains(paths, section, left_out), left_out) for name, paths in named.items()
        }
        sets = _split(recipe, found, left_out)
        chains = list(chained.from_iterable(sets.values()))
        files = {name: _sources(found.get(name, found["train"])) for name in sets}
        table = protein_table()
        array = build_record_array(
            [
                (f"{name}/{one.name}", one.chain.letters.encode().translate(table))
                for name in sets
                for one in sets[name]
            ],
            "protein",
            dict.fromkeys(chained.from_iterable(files.values())),
            recipe.data.cache_dir or default_cache_dir(),
        )
        records, arrays = iter(array.records), {}
        for name, members in sets.items():
            spans = [next(records)._replace(name=one.name) for one in members]
            arrays[name] = array.select(spans)
        labels = np.concatenate([_labels(one.chain, section) for one in chains])
        return cls(arrays.pop("train"), arrays, labels, files, left_out)

    def sources(self) -> dict[str, Any]:
        """What the data were, for `data.json`."""
        sources = super().sources()
        for name, files in self.files.items():
            key = "train" if name == "train" else f"eval.{name}"
            sources[key]["files"] = [
                {"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in files
            ]
        sources["train"]["left_out"] = self.left_out
        return sources


def _unlike(chains: list[NamedChain], left_out: list[str]) -> list[NamedChain]:
    """The chains without those that are nearly another, longer one."""
    letters = [one.chain.letters for one in chains]
    kept = longest_of_each(_clusters(letters, SAME_PROTEIN), letters)
    for number in sorted(set(range(len(chains))) - set(kept)):
        left_out.append(f"{chains[number].name}: nearly the same as a longer chain")
    return [chains[number] for number in kept]


def _split(
    recipe: StructureRecipe, found: dict[str, list[NamedChain]], left_out: list[str]
) -> dict[str, list[NamedChain]]:
    """The sets of the run: training chains that are like none that is evaluated on, and the others."""
    section = recipe.structure
    train, others = found["train"], {name: chains for name, chains in found.items() if name != "train"}
    everything = [*chained.from_iterable(others.values()), *train]
    cluster_of = _clusters([one.chain.letters for one in everything], section.identity)
    num_others = len(everything) - len(train)
    taken, of_train = set(cluster_of[:num_others]), cluster_of[num_others:]
    for one, cluster in zip(train, of_train, strict=True):
        if cluster in taken:
            left_out.append(
                f"{one.name}: at least {section.identity:.0%} identical to a chain to evaluate on"
            )
    free = [(one, cluster) for one, cluster in zip(train, of_train, strict=True) if cluster not in taken]
    drawn, num_free = {}, len(free)
    for number, name in enumerate((TEST, VALIDATION)):
        if share := getattr(section, name):
            of_all = share * num_free / max(len(free), 1)
            chosen = split_clusters([c for _, c in free], of_all, derive(recipe.training.seed, number))
            drawn[name] = [one for one, cluster in free if cluster in chosen]
            free = [(one, cluster) for one, cluster in free if cluster not in chosen]
    sets = {"train": [one for one, _ in free], **others, **drawn}
    if empty := next((name for name, chains in sets.items() if not chains), None):
        raise recipe.error(
            "data.train",
            f"no chain is left for {empty!r}: {len(train)} chains in {len(set(of_train))} clusters of "
            f"{section.identity:.0%} identity",
        )
    return sets


def _clusters(proteins: list[str], identity: float) -> list[int]:
    with progress_bar("comparing chains", len(proteins) * (len(proteins) - 1) // 2) as advance:
        return clusters(proteins, identity, advance)


def _labels(chain: Chain, section: StructureSection) -> Labels:
    letters = chain.three_classes if section.classes == 3 else chain.labels
    number_of = {letter: number for number, letter in enumerate(section.letters)} | {UNKNOWN: NO_LABEL}
    return np.array([number_of[letter] for letter in letters], dtype=np.uint8)


def _sources(chains: Sequence[NamedChain]) -> list[Source]:
    sources = []
    for path in dict.fromkeys(one.file for one in chains):
        status = path.stat()
        sources.append(Source(str(path), status.st_size, status.st_mtime_ns, sha256_of(path)))
    return sources
