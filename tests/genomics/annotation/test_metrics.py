from dataclasses import replace

import numpy as np
import pytest

from reformer.genomics.annotation.classes import RNA_TYPES, ClassScheme
from reformer.genomics.annotation.metrics import ClassCounts, gene_scores, rna_gene_scores
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


def test_genes_that_an_end_cuts_off_must_agree_in_frame():
    def cut(name, start, end, phase, strand="+"):
        made = gene(name, strand, [(start, end)], [(start, end)])
        segment = replace(made.transcripts[0].cds[0], phase=phase)
        return replace(made, transcripts=(replace(made.transcripts[0], cds=(segment,)),))

    true = [cut("right", 80, 100, 0), cut("left", 0, 14, 2), cut("inner", 40, 52, 0)]
    same = [cut("1", 83, 100, 0), cut("2", 0, 14, 2), cut("3", 40, 52, 1)]
    shifted = [cut("1", 82, 100, 0), cut("2", 0, 14, 1), cut("3", 40, 52, 0)]
    lengths = {"s": 100}
    assert gene_scores(true, same, lengths)["exact stop"].num_right == 3
    assert gene_scores(true, same, lengths)["exact start and stop"].num_right == 2
    assert gene_scores(true, shifted, lengths)["exact stop"].num_right == 1
    assert gene_scores(true, shifted)["exact stop"].num_right == 3
    minus = [cut("a", 90, 100, 1, "-")]
    assert gene_scores(minus, [cut("1", 90, 100, 1, "-")], lengths)["exact structure"].num_right == 1
    assert gene_scores(minus, [cut("1", 90, 100, 2, "-")], lengths)["exact structure"].num_right == 0


def test_an_rna_gene_is_found_by_half_of_its_bases():
    true = [
        gene("a", "+", [(0, 100)], [], kind="tRNA"),
        gene("again", "+", [(0, 100)], [], kind="tRNA"),
        gene("b", "-", [(200, 230), (300, 330)], [], kind="tRNA"),
        gene("c", "+", [(400, 500)], [], kind="rRNA"),
        gene("m", "+", [(600, 660)], [(600, 660)]),
    ]
    called = [
        gene("1", "+", [(20, 120)], [], kind="ncRNA"),  # 80 of 120 bases
        gene("2", "+", [(10, 100)], [], kind="ncRNA"),  # another one of the same
        gene("3", "-", [(200, 330)], [], kind="ncRNA"),  # 60 of 130
        gene("4", "-", [(400, 500)], [], kind="ncRNA"),  # the other strand
    ]
    (score,) = rna_gene_scores(true, called, RNA_TYPES).values()
    assert (score.num_right, score.num_predicted, score.num_true) == (1, 4, 3)
    (score,) = rna_gene_scores(true, true, RNA_TYPES).values()
    assert (score.num_right, score.num_true) == (3, 3)
