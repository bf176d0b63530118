"""Which proteins are similar: pairwise alignment, single linkage, and a split that no similar pair crosses.

Identity of two proteins: identical residues in their best local alignment (BLOSUM62, a gap of n costs
10 + n) divided by the length of the shorter one. All pairs are aligned, in time that grows with the square
of the number of proteins (docs/structure.md says what a pair costs), but for those that earlier ones have
already put into one cluster and, where the identity asked for is so high that similar proteins must have a
word of some residues in common, those that have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from reformer.genomics.extras import require

_UNCOMMON = str.maketrans("UOJ", "CKL")
"""Letters that BLOSUM62 lacks, each as the residue that it is most like."""


class Aligner:
    """Aligns proteins through Biopython.

    Raises:
        UserError: Biopython is missing.
    """

    def __init__(self) -> None:
        align = require("Bio.Align", "to compare proteins")
        matrices = require("Bio.Align.substitution_matrices", "to compare proteins")
        self._aligner: Any = align.PairwiseAligner(mode="local", open_gap_score=-11, extend_gap_score=-1)
        self._aligner.substitution_matrix = matrices.load("BLOSUM62")

    def identity(self, first: str, second: str) -> float:
        """Identical residues in the best local alignment, as a share of the shorter protein."""
        first, second = first.upper().translate(_UNCOMMON), second.upper().translate(_UNCOMMON)
        found = self._aligner.align(first, second)
        if not len(found) or found.score <= 0:
            return 0.0
        one, two = np.frombuffer(first.encode(), np.uint8), np.frombuffer(second.encode(), np.uint8)
        pieces = zip(*found[0].aligned, strict=True)
        same = sum(int(np.sum(one[a:b] == two[c:d])) for (a, b), (c, d) in pieces)
        return same / min(len(first), len(second))


def clusters(
    proteins: Sequence[str], identity: float, on_progress: Callable[[int], None] = lambda pairs: None
) -> list[int]:
    """Single-linkage clusters: proteins at least so identical are in one, and so are those linked by others.

    Args:
        proteins: their letters.
        identity: 0 to 1.
        on_progress: called with the number of pairs that are done since the last call.

    Returns:
        For each protein the number of the first one in its cluster.
    """
    aligner, linked = Aligner(), list(range(len(proteins)))
    words = [_words(protein, _word_length(identity, min(map(len, proteins)))) for protein in proteins]

    def first_of(number: int) -> int:
        while linked[number] != number:
            linked[number] = linked[linked[number]]
            number = linked[number]
        return number

    for i, protein in enumerate(proteins):
        for j in range(i):
            one, other = sorted((first_of(i), first_of(j)))
            if one == other or words[i].isdisjoint(words[j]):
                continue
            if aligner.identity(protein, proteins[j]) >= identity:
                linked[other] = one
        on_progress(i)
    return [first_of(number) for number in range(len(proteins))]


def _word_length(identity: float, shortest: int) -> int:
    """Residues of a run that two proteins so identical have in common, at most 5.

    Of n residues of the shorter one n * identity are identical, and the others part these into at most
    n * (1 - identity) + 1 runs. Gaps in it part them too, which the cap leaves room for.
    """
    return min(5, int(identity / (1 - identity + 1 / shortest)))


def _words(protein: str, length: int) -> frozenset[str]:
    return frozenset(protein[i : i + length] for i in range(len(protein) - length + 1))


def split_clusters(cluster_of: Sequence[int], share: float, seed: int) -> frozenset[int]:
    """Draws clusters, one by one, until they have at least that share of the proteins.

    Args:
        cluster_of: of each protein its cluster, as `clusters` returns it.
        share: 0 to 1; at 0 nothing is drawn.
        seed: determines the draw.
    """
    names, counts = np.unique(np.asarray(cluster_of, dtype=np.int64), return_counts=True)
    drawn, num = [], 0
    for place in np.random.Generator(np.random.Philox(key=seed)).permutation(len(names)):
        if num >= share * len(cluster_of):
            break
        drawn.append(int(names[place]))
        num += int(counts[place])
    return frozenset(drawn)


def longest_of_each(cluster_of: Iterable[int], proteins: Sequence[str]) -> list[int]:
    """The numbers of the longest protein of each cluster, the first of those of one length, in order."""
    best: dict[int, int] = {}
    for number, cluster in enumerate(cluster_of):
        if cluster not in best or len(proteins[number]) > len(proteins[best[cluster]]):
            best[cluster] = number
    return sorted(best.values())
