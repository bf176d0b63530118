import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.gene_calls import CalledGene
from reformer.genomics.annotation.runs import Run, RunFinder, beside_exons, shortest_runs, with_utrs
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.features import Feature
from tests.genomics.annotation.test_classes import gene

SCHEME = ClassScheme(features={"repeat": ("repeat_region", "mobile_genetic_element")})
FEWEST = {"RNA": 20, "repeat": 30, "UTR": 10}


def probabilities(*pieces):
    """Rows of which the named class has a probability, and intergenic the rest."""
    rows = []
    for name, length, share in pieces:
        row = np.zeros(len(SCHEME.names), dtype=np.float32)
        row[SCHEME.names.index(name)] = share
        row[0] += 1 - share
        rows += [row] * length
    return np.array(rows)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_runs_are_bridged_and_long_enough_whatever_the_blocks(block):
    rows = probabilities(
        *[("intergenic", 5, 1.0), ("RNA+", 15, 0.9), ("intergenic", 10, 1.0), ("RNA+", 5, 0.7)],
        *[("intergenic", 11, 1.0), ("RNA+", 19, 0.9), ("RNA-", 20, 0.8), ("repeat", 29, 0.9)],
        *[("intron+", 40, 0.9), ("repeat", 30, 0.6)],
    )
    finder = RunFinder(SCHEME, FEWEST)
    for start in range(0, len(rows), block):
        finder.feed(rows[start : start + block])
    found = finder.finish()
    assert [(run.kind, run.strand, run.start, run.end) for run in found] == [
        ("RNA", "+", 5, 35),
        ("RNA", "-", 65, 85),
        ("repeat", ".", 154, 184),
    ]
    assert [run.probability for run in found] == pytest.approx([(15 * 0.9 + 5 * 0.7) / 20, 0.8, 0.6])


def test_the_shortest_runs_are_those_of_the_annotation():
    genes = [
        gene("a", "+", [(0, 100)], [(40, 100)]),
        gene("t", "+", [(200, 272)], [], kind="tRNA"),
        gene("odd", "+", [(300, 304)], [], kind="snRNA", gene_type="pseudogene"),
    ]
    features = [Feature(Interval("s", 0, size), "repeat_region") for size in (500, 90, 15)]
    assert shortest_runs(SCHEME, genes, features) == {"RNA": 36, "UTR": 20, "repeat": 10}
    assert shortest_runs(ClassScheme(kinds=("CDS",)), genes, features) == {}


def test_what_exons_code_is_no_rna_gene():
    genes = [CalledGene("+", ((100, 130), (200, 230)), 9.0), CalledGene("-", ((300, 330),), 9.0)]
    runs = [
        Run("RNA", "+", 0, 110, 0.9),  # an end lies in an exon
        Run("RNA", "-", 130, 200, 0.9),  # in an intron
        Run("RNA", "+", 285, 345, 0.9),  # both pieces beside the exon are too short
        Run("repeat", ".", 195, 400, 0.9),
        Run("UTR", "+", 400, 500, 0.9),
    ]
    kept = [(run.kind, run.start, run.end) for run in beside_exons(runs, genes, SCHEME, FEWEST)]
    rest = [("repeat", 230, 300), ("repeat", 330, 400)]
    assert kept == [("RNA", 0, 100), ("RNA", 130, 200), *rest]
    first = ClassScheme(kinds=("repeat", "CDS", "RNA"), features=SCHEME.features)
    kept = list(beside_exons([runs[3]], genes, first, FEWEST))
    assert kept == [runs[3]]


@pytest.mark.parametrize("is_reverse", [False, True])
def test_utr_reach_genes_and_no_further(is_reverse):
    genes = [
        CalledGene("+", ((100, 130), (200, 230)), 9.0),
        CalledGene("+", ((300, 330),), 9.0),
        CalledGene("-", ((400, 430),), 9.0),
        CalledGene("+", ((500, 600),), 9.0, partial=(False, True)),
    ]
    runs = [
        Run("UTR", "+", 80, 90, 0.9),  # ten bases before the gene
        Run("UTR", "+", 225, 300, 0.9),  # shared by two genes
        Run("UTR", "+", 341, 399, 0.9),  # eleven bases behind a gene, and of another strand than the next
        Run("UTR", "-", 430, 460, 0.9),
        Run("UTR", "+", 480, 520, 0.9),
    ]
    expected = [(20, 35), (35, 0), (0, 30), (20, 0)]
    if is_reverse:
        other = {"+": "-", "-": "+"}
        genes = [
            CalledGene(
                other[g.strand], tuple((600 - b, 600 - a) for a, b in g.exons[::-1]), 9.0, 0, g.partial[::-1]
            )
            for g in genes[::-1]
        ]
        runs = [Run("UTR", other[r.strand], 600 - r.end, 600 - r.start, 0.9) for r in runs[::-1]]
        expected = [pair[::-1] for pair in expected[::-1]]
    found = with_utrs(genes, runs)
    assert [call.utr for call in found] == expected
    (transcript,) = found[-1 if is_reverse else 0].gene("s", "g").transcripts
    spans = sorted((e.start, e.end) for e in transcript.exons)
    assert spans == ([(335, 400), (470, 520)] if is_reverse else [(80, 130), (200, 265)])
    assert sum(s.end - s.start for s in transcript.cds) == 60
