import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer.genomics.structure.protein_clusters import Aligner, clusters, longest_of_each, split_clusters

UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def random_protein(seed: int, length: int = 80) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), length))


def test_identity_counts_identical_residues_of_the_shorter_one():
    aligner = Aligner()
    assert aligner.identity(UBIQUITIN, UBIQUITIN) == 1
    assert aligner.identity(UBIQUITIN, f"WWWWWW{UBIQUITIN[10:50]}") == pytest.approx(40 / 46)
    changed = UBIQUITIN[:30] + "W" * 6 + UBIQUITIN[36:]
    assert aligner.identity(UBIQUITIN, changed) == pytest.approx(70 / 76)
    assert aligner.identity("AAAA", "WWWW") == 0
    assert aligner.identity("MKUVLOEFJ", "mkuvloefj") == 1


def test_a_gap_is_bridged():
    gapped = UBIQUITIN[:38] + UBIQUITIN[42:]
    assert Aligner().identity(UBIQUITIN, gapped) == 1


def test_single_linkage_joins_what_others_link():
    one, other = random_protein(1), random_protein(2)
    link = one[:40] + other[40:]  # half of each
    assert Aligner().identity(one, other) < 0.3
    assert clusters([one, other], 0.4) == [0, 1]
    assert clusters([one, other, link], 0.4) == [0, 0, 0]
    assert clusters([one, other, link], 0.9) == [0, 1, 2]


@pytest.mark.parametrize("identity", [0.25, 0.5, 0.8, 0.9, 1.0])
def test_pairs_that_are_passed_over_are_not_so_identical(identity):
    """Clusters are those of all pairs aligned, with changed, cut and joined versions of proteins."""
    generator, proteins = np.random.default_rng(0), []
    for seed in range(4):
        one = random_protein(seed, 60)
        for share in (0.02, 0.1, 0.12, 0.25, 0.6):
            changed = np.where(generator.random(60) < share, list(random_protein(seed + 50, 60)), list(one))
            proteins.append("".join(changed)[generator.integers(10) :])
    aligner, expected = Aligner(), list(range(len(proteins)))
    for i, j in itertools.combinations(range(len(proteins)), 2):
        if aligner.identity(proteins[i], proteins[j]) >= identity:
            old, new = max(expected[i], expected[j]), min(expected[i], expected[j])
            expected = [new if one == old else one for one in expected]
    assert clusters(proteins, identity) == expected


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.floats(0, 1), st.integers(0, 99))
def test_a_split_takes_whole_clusters_and_no_more_than_it_needs(cluster_of, share, seed):
    drawn = split_clusters(cluster_of, share, seed)
    taken = sum(cluster in drawn for cluster in cluster_of)
    assert taken >= share * len(cluster_of)
    assert drawn <= set(cluster_of)
    assert all(taken - cluster_of.count(one) < share * len(cluster_of) for one in drawn) or taken - max(
        cluster_of.count(one) for one in drawn
    ) < share * len(cluster_of)
    assert drawn == split_clusters(cluster_of, share, seed)


def test_another_seed_draws_other_clusters():
    draws = {split_clusters(range(20), 0.3, seed) for seed in range(10)}
    assert len(draws) > 1
    assert all(len(a) == 6 for a in draws)
    assert not all(a & b for a, b in itertools.combinations(draws, 2)) or len(draws) > 5


def test_the_longest_of_each_is_kept():
    assert longest_of_each([0, 0, 2, 2], ["AA", "AAA", "C", "D"]) == [1, 2]
