import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.report import Region, track_plot
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene, Segment, Transcript

SCHEME = ClassScheme(kinds=("CDS", "RNA", "intron"))


def gene(name, start, end, strand, coding=True):
    whole = Interval("s", start, end, strand)
    cds = (Segment(start + 30, end - 30, 0),) if coding else ()
    kind = "mRNA" if coding else "tRNA"
    return Gene(name, "gene", whole, (Transcript(f"{name}.t", kind, whole, (whole,), cds),))


@pytest.fixture
def plot():
    pytest.importorskip("matplotlib")
    genes = [
        gene("gene-LONG1", 100, 900, "+"),
        gene("TOOSHORT", 950, 1000, "-", coding=False),
        gene("AWAY", 2000, 2900, "+"),
    ]
    region = Region(Interval("s", 0, 1200), np.full((1200, len(SCHEME.names)), 0.1, dtype=np.float32))
    return track_plot(SCHEME, region, genes[:1], genes)


def test_annotated_genes_have_names_where_there_is_room(plot):
    svg, _ = plot
    assert svg.count(">LONG1<") == 1  # not on the row of called genes
    assert "TOOSHORT" not in svg
    assert "AWAY" not in svg


def test_rna_genes_and_utr_are_drawn_in_their_colours(plot):
    svg, legend = plot
    assert {entry.label: entry.colour for entry in legend}["RNA"] == "series-3"
    assert "series-3" in svg
    assert "series-4" in svg
