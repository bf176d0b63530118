import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.metrics import ClassCounts, gene_scores
from tests.genomics.annotation.test_classes import gene

SCHEME = ClassScheme(kinds=("CDS", "intron"))


def labels(*names):
    return np.array([SCHEME.names.index(name) for name in names], dtype=np.uint8)


def test_frames_do_not_count_per_class_but_in_the_accuracy():
    true = labels("CDS+0", "CDS+1", "CDS+2", "CDS-0", "intergenic", "intergenic")
    found = labels("CDS+0", "CDS+0", "intergenic", "CDS+0", "intergenic", "CDS-1")
    counts = ClassCounts.of(SCHEME, true, found)
    scores = counts.by_class()
    assert set(scores) == {"intergenic", "CDS+", "CDS-"}  # no intron anywhere
    plus = scores["CDS+"]
    assert (plus.precision, plus.recall) == (2 / 3, 2 / 3)
    assert plus.f1 == pytest.approx(2 / 3)
    assert scores["CDS-"].f1 == 0.0
    assert scores["intergenic"].f1 == pytest.approx(1 / 2)
    assert counts.macro_f1() == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert counts.macro_f1(["CDS+"]) == pytest.approx(2 / 3)
    assert counts.accuracy() == pytest.approx(2 / 6)
    assert (counts + counts).by_class()["CDS+"].num_true == 6


def test_genes_match_by_structure_by_stop_and_by_both_ends():
    true = [
        gene("a", "+", [(0, 9), (12, 21)], [(0, 9), (12, 21)]),
        gene("b", "-", [(30, 42)], [(30, 42)]),
        gene("c", "-", [(50, 62)], [(50, 62)]),
        gene("rna", "+", [(70, 80)], [], kind="tRNA"),
    ]
    called = [
        gene("1", "+", [(0, 12), (15, 21)], [(0, 12), (15, 21)]),  # both ends, another intron
        gene("2", "-", [(30, 36)], [(30, 36)]),  # the stop, on "-" the left end, alone
        gene("3", "+", [(50, 62)], [(50, 62)]),  # the other strand
        gene("4", "-", [(90, 96)], [(90, 96)]),
    ]
    scores = gene_scores(true, called)
    assert scores["exact structure"].num_right == 0
    assert scores["exact stop"].num_right == 2
    assert scores["exact start and stop"].num_right == 1
    assert {(score.num_predicted, score.num_true) for score in scores.values()} == {(4, 3)}
    assert all(score.f1 == 1 for score in gene_scores(true, true).values())
