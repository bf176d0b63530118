import json

import numpy as np
import pytest

from reformer.genomics.annotation.classes import ClassScheme, label_bases, labelled_transcripts
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.gff3 import write_gff3
from reformer.genomics.genes import Gene, Segment, Transcript, gene_features
from reformer.genomics.genome import Genome
from reformer.genomics.quickstart import TRAIN_FILE, yeast_file

SCHEME = ClassScheme()


def gene(name, strand, exons, cds, kind="mRNA", gene_type="gene", sequence="s"):
    order = -1 if strand == "-" else 1
    intervals = tuple(Interval(sequence, a, b, strand) for a, b in sorted(exons)[::order])
    segments, done = [], 0
    for a, b in sorted(cds)[::order]:
        segments.append(Segment(a, b, -done % 3))
        done += b - a
    whole = Interval(sequence, min(a for a, _ in exons), max(b for _, b in exons), strand)
    return Gene(name, gene_type, whole, (Transcript(name, kind, whole, intervals, tuple(segments)),))


def shown(labels, scheme=SCHEME):
    """One letter a base: . intergenic, the frame of coding bases, i u r for the rest."""
    letter = {"intergenic": ".", "intron": "i", "UTR": "u", "RNA": "r", "exon": "e", "CDS": "c"}
    names = [scheme.names[number] for number in labels]
    return "".join(n[-1] if n[-1].isdigit() else letter[n.rstrip("+-")] for n in names)


def test_a_gene_of_two_exons_on_each_strand():
    exons, cds = [(2, 9), (13, 20)], [(4, 9), (13, 17)]
    plus = label_bases(SCHEME, [gene("g", "+", exons, cds)], {"s": 22})["s"]
    assert shown(plus) == "..uu01201iiii2012uuu.."
    minus = label_bases(SCHEME, [gene("g", "-", exons, cds)], {"s": 22})["s"]
    assert shown(minus) == "..uu21021iiii0210uuu.."
    assert {SCHEME.names[n][:4] for n in np.unique(minus)} == {"inte", "CDS-", "intr", "UTR-"}
    assert all("+" not in SCHEME.names[n] for n in np.unique(minus))


def test_the_other_strand_is_what_reading_the_reversed_annotation_gives():
    genes = [
        gene("a", "+", [(2, 9), (13, 20)], [(4, 9), (13, 17)]),
        gene("b", "-", [(24, 30)], [(24, 30)]),
        gene("c", "-", [(32, 36)], [], kind="tRNA"),
    ]
    reversed_genes = [
        gene("a", "-", [(20, 27), (31, 38)], [(23, 27), (31, 36)]),
        gene("b", "+", [(10, 16)], [(10, 16)]),
        gene("c", "+", [(4, 8)], [], kind="tRNA"),
    ]
    labels = label_bases(SCHEME, genes, {"s": 40})["s"]
    assert np.array_equal(
        SCHEME.reverse_complement(labels), label_bases(SCHEME, reversed_genes, {"s": 40})["s"]
    )
    assert np.array_equal(SCHEME.reverse_complement(SCHEME.reverse_complement(labels)), labels)


def test_the_kind_that_comes_first_wins_whichever_gene_comes_first():
    inside = gene("inside", "-", [(8, 11)], [(8, 11)])
    around = gene("around", "+", [(0, 6), (12, 18)], [(0, 6), (12, 18)])
    for genes in ([inside, around], [around, inside]):
        assert shown(label_bases(SCHEME, genes, {"s": 18})["s"]) == "012012ii210i012012"
    introns_first = ClassScheme(kinds=("intron", "CDS"))
    assert (
        shown(label_bases(introns_first, [inside, around], {"s": 18})["s"], introns_first)
        == "012012iiiiii012012"
    )


def test_the_longer_of_two_coding_genes_wins():
    short, long = gene("short", "+", [(0, 6)], [(0, 6)]), gene("long", "-", [(3, 12)], [(3, 12)])
    for genes in ([short, long], [long, short]):
        assert shown(label_bases(SCHEME, genes, {"s": 12})["s"]) == "012210210210"


def test_of_several_transcripts_the_one_with_most_coding_bases_counts():
    short, long = gene("g", "+", [(0, 20)], [(0, 3)]), gene("g", "+", [(0, 9)], [(0, 9)])
    whole = Gene("g", "gene", short.interval, (short.transcripts[0], long.transcripts[0]))
    assert labelled_transcripts([whole]) == [long.transcripts[0]]
    assert shown(label_bases(SCHEME, [whole], {"s": 20})["s"]) == "012012012" + "." * 11


def test_a_segment_whose_phase_breaks_the_count_keeps_its_phase():
    made = gene("g", "+", [(0, 12)], [(0, 4), (4, 12)])  # a ribosome that slips: the phase says so
    transcript = made.transcripts[0]
    slipped = Transcript(
        "g", "mRNA", transcript.interval, transcript.exons, (Segment(0, 4, 0), Segment(4, 12, 0))
    )
    labels = label_bases(SCHEME, [Gene("g", "gene", made.interval, (slipped,))], {"s": 12})["s"]
    assert shown(labels) == "012001201201"


def test_pseudogenes_are_intergenic_and_feature_types_are_configurable():
    genes = [
        gene("p", "+", [(0, 6)], [(0, 6)], gene_type="pseudogene"),
        gene("t", "+", [(8, 10)], [], kind="tRNA"),
        gene("x", "+", [(11, 12)], [], kind="odd_RNA"),
    ]
    assert shown(label_bases(SCHEME, genes, {"s": 12})["s"]) == "." * 8 + "rr.."
    odd = ClassScheme(rna_types=("odd_RNA",))
    assert shown(label_bases(odd, genes, {"s": 12})["s"]) == "." * 11 + "r"
    exons = ClassScheme(kinds=("exon", "intron"), by_frame=False)
    assert exons.names == ("intergenic", "exon+", "exon-", "intron+", "intron-")
    assert shown(label_bases(exons, genes, {"s": 12})["s"], exons) == "." * 8 + "ee.e"


def test_mistakes_are_told():
    with pytest.raises(ValueError, match="each once"):
        ClassScheme(kinds=("CDS", "CDS"))
    with pytest.raises(ValueError, match="ends at base 6"):
        label_bases(SCHEME, [gene("g", "+", [(0, 6)], [(0, 6)])], {"s": 5})


def test_the_scheme_survives_json():
    scheme = ClassScheme(kinds=("exon",), by_frame=False, rna_types=("tRNA",))
    assert ClassScheme(**scheme.to_json()) == scheme


def test_yeast_chromosome_from_gff3_and_gtf(tmp_path):
    genes = read_genes(yeast_file("ScerR64_I.gff.gz"))
    with Genome(yeast_file(TRAIN_FILE)) as genome:
        lengths = dict(genome.lengths)
        letters = genome.letters(Interval("NC_001133.9", 0, lengths["NC_001133.9"])).upper()
    labels = label_bases(SCHEME, genes, lengths)["NC_001133.9"]
    from_gtf = label_bases(SCHEME, read_genes(yeast_file("ScerR64_I.gtf.gz")), lengths)["NC_001133.9"]
    coding = SCHEME.coarse["CDS+"] + SCHEME.coarse["CDS-"]
    assert np.array_equal(np.isin(labels, coding), np.isin(from_gtf, coding))
    # No stop codon stands in frame but at the end of a gene: the frames are those of the proteins.
    first = np.flatnonzero(labels == SCHEME.number("CDS", "+", 0))
    in_frame = first[(labels[first + 1] == labels[first] + 1) & (labels[first + 2] == labels[first] + 2)]
    stops = [p for p in in_frame if letters[p : p + 3] in ("TAA", "TAG", "TGA")]
    num_plus = sum(t.strand == "+" and bool(t.cds) for t in labelled_transcripts(genes))
    assert len(stops) == num_plus > 40
    write_gff3(tmp_path / "again.gff3", (feature for one in genes for feature in gene_features(one)))
    again = label_bases(SCHEME, read_genes(tmp_path / "again.gff3"), lengths)["NC_001133.9"]
    assert np.array_equal(again, labels)


def features(*places):
    return [Feature(Interval("s", start, end, strand), kind) for kind, start, end, strand in places]


def test_classes_of_features_with_strand_and_without():
    scheme = ClassScheme(
        kinds=("origin", "CDS", "intron"),
        features={"repeat": ("repeat_region", "LTR"), "origin": ("ori",)},
        by_strand=("repeat",),
    )
    assert scheme.kinds == ("origin", "CDS", "intron", "repeat")
    assert scheme.names[:2] == ("intergenic", "origin")
    assert scheme.names[-4:] == ("intron+", "intron-", "repeat+", "repeat-")
    assert list(scheme.coarse) == [
        *("intergenic", "origin", "CDS+", "CDS-", "intron+", "intron-"),
        *scheme.names[-2:],
    ]
    found = features(
        *[("ori", 8, 11, "+"), ("LTR", 0, 6, "-"), ("repeat_region", 4, 14, "."), ("gene", 0, 30, "+")],
        ("repeat_region", 18, 20, "-"),
    )
    labels = label_bases(scheme, [gene("g", "+", [(6, 12)], [(6, 12)])], {"s": 21}, found)["s"]
    names = [scheme.names[number] for number in labels]
    assert names[:6] == ["repeat-"] * 6  # of two strands the first in the file
    assert names[6:12] == ["CDS+0", "CDS+1", "origin", "origin", "origin", "CDS+2"]
    assert names[12:] == ["repeat+"] * 2 + ["intergenic"] * 4 + ["repeat-"] * 2 + ["intergenic"]
    other = [scheme.names[number] for number in scheme.reverse_complement(labels)]
    assert other[::-1][:9] == [*["repeat+"] * 6, "CDS-0", "CDS-1", "origin"]
    assert ClassScheme(**json.loads(json.dumps(scheme.to_json()))) == scheme
    with pytest.raises(ValueError, match="ori ends at base 11, but 's' has 10"):
        label_bases(scheme, [], {"s": 10}, found[:1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"features": {"intron": ["repeat_region"]}}, "features: class 'intron': expected a name"),
        ({"features": {"line1": ["repeat_region"]}}, "features: class 'line1': expected a name of letters"),
        ({"features": {"repeat": []}}, "features: class 'repeat' has no types"),
        ({"by_strand": ["repeat"]}, "by_strand: 'repeat': expected names of classes in features"),
        ({"features": {"a" * n: ["x"] for n in range(1, 300)}}, "expected at most 256"),
    ],
)
def test_mistakes_in_classes_of_features(values, message):
    with pytest.raises(ValueError, match=message):
        ClassScheme(**values)
