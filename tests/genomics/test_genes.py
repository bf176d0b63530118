"""The gene model from three formats, on real annotations and small ones."""

import gzip

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_features, read_genes
from reformer.genomics.formats.gff3 import write_gff3
from reformer.genomics.genes import Gene, Segment, Transcript, gene_features, phases, spliced

YEAST = {"ScerR64_I": 94, "SkudIFO1802_1": 88, "SmikIFO1815_1": 92}
FLY = {"DmelanDM6_4": 298, "DsecheASM438219v2_4": 354}
DIFFERENT = {"NP_001368990.1", "XP_032579779.1"}
"""A stop codon read as another amino acid (transl_except); a protein that NCBI corrected (an added base)."""


def sequences(path):
    with gzip.open(path, "rt") as file:
        return {record.id: str(record.seq) for record in SeqIO.parse(file, "fasta")}


def proteins(genes, genome):
    """Name -> amino acids of every coding transcript."""
    found = {}
    for transcript in (t for gene in genes for t in gene.transcripts if t.cds):
        letters = spliced(genome[transcript.interval.sequence], transcript.cds, transcript.strand)
        letters = letters[transcript.cds[0].phase :]
        whole = letters[: len(letters) // 3 * 3]
        found[transcript.protein] = str(Seq(whole).translate(table=transcript.genetic_code)).removesuffix("*")
    return found


@pytest.mark.parametrize("ending", ["gff", "gtf"])
@pytest.mark.parametrize(("species", "count"), [*YEAST.items(), *FLY.items()])
def test_real_coding_sequences_translate_to_the_packages_proteins(
    yeast_folder, fly_folder, species, count, ending
):
    folder = yeast_folder if species in YEAST else fly_folder
    (genome,) = folder.glob(f"{species}_GC*_genomic.fna.gz")
    expected = sequences(folder / f"{species}_protein.faa.gz")
    found = proteins(read_genes(folder / f"{species}.{ending}.gz"), sequences(genome))
    assert len(expected) == count
    assert found.keys() == expected.keys()
    # The first amino acid is M whatever the start codon; the files write it, a table does not.
    differ = {name for name in expected if found[name][1:] != expected[name][1:]}
    assert differ == DIFFERENT & expected.keys()


@pytest.mark.parametrize("species", [*YEAST, *FLY])
def test_gff3_and_gtf_of_one_annotation_are_the_same_genes(yeast_folder, fly_folder, species):
    folder = yeast_folder if species in YEAST else fly_folder
    models = [
        {
            (t.interval, t.exons, t.cds, t.protein)
            for g in read_genes(folder / name)
            for t in g.transcripts
            if t.cds
        }
        for name in (f"{species}.gff.gz", f"{species}.gtf.gz")
    ]
    assert models[0] == models[1]
    assert models[0]


def test_genes_written_as_gff3_are_read_again(yeast_folder, fly_folder, tmp_path):
    for name in (yeast_folder / "ScerR64_I.gff.gz", fly_folder / "DmelanDM6_4.gtf.gz"):
        genes = read_genes(name)
        write_gff3(tmp_path / "out.gff3", (feature for gene in genes for feature in gene_features(gene)))
        again = {gene.name: gene for gene in read_genes(tmp_path / "out.gff3")}
        assert len(again) == len(genes)
        assert any(gene.partial == (True, True) for gene in genes) == name.name.endswith(".gff.gz")
        for gene in genes:
            other = again[gene.name]
            assert (other.interval, other.type) == (gene.interval, gene.type)
            assert other.partial == gene.partial
            assert [(t.type, t.interval, t.exons, t.cds, t.protein) for t in other.transcripts] == [
                (t.type, t.interval, t.exons, t.cds, t.protein) for t in gene.transcripts
            ]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 2))
def test_phases_lead_to_whole_codons(lengths, first):
    start = 0
    for length, phase in zip(lengths, phases(lengths, first), strict=True):
        assert (start + phase - first) % 3 == 0
        start += length


GFF3 = b"""##gff-version 3
c\t.\tCDS\t11\t14\t.\t-\t0\tID=p;Parent=t1,t2;protein_id=P
c\t.\tCDS\t2\t6\t.\t-\t2\tID=p;Parent=t1,t2;protein_id=P
c\t.\texon\t1\t6\t.\t-\t.\tParent=t1,t2
c\t.\texon\t11\t20\t.\t-\t.\tParent=t1
c\t.\tmRNA\t1\t20\t.\t-\t.\tID=t1;Parent=g
c\t.\tmRNA\t1\t14\t.\t-\t.\tID=t2;Parent=g
c\t.\texon\t11\t14\t.\t-\t.\tParent=t2
c\t.\tgene\t1\t20\t.\t-\t.\tID=g;Name=abc
"""


def test_parents_may_come_last_and_parts_may_have_two(write):
    (gene,) = read_genes(write("a.gff3", GFF3))
    one, two = gene.transcripts
    assert (gene.symbol, gene.interval) == ("abc", Interval("c", 0, 20, "-"))
    assert one.cds == two.cds == (Segment(10, 14, 0), Segment(1, 6, 2))
    assert one.exons == (Interval("c", 10, 20, "-"), Interval("c", 0, 6, "-"))
    assert two.exons == (Interval("c", 10, 14, "-"), Interval("c", 0, 6, "-"))
    assert one.introns == (Interval("c", 6, 10, "-"),)
    assert one.protein == "P"


def test_a_bacterial_coding_sequence_stands_under_its_gene_or_alone(write):
    content = b"c\t.\tgene\t1\t9\t.\t+\t.\tID=g\nc\t.\tCDS\t1\t9\t.\t+\t0\tParent=g;transl_table=11\n"
    content += b"c\t.\tCDS\t21\t29\t.\t-\t0\tID=only\n"
    one, two = read_genes(write("a.gff", content))
    assert one.transcripts[0].cds == (Segment(0, 9, 0),)
    assert one.transcripts[0].genetic_code == 11
    assert (two.name, two.transcripts[0].interval) == ("only", Interval("c", 20, 29, "-"))


@pytest.mark.parametrize("strand", "+-")
def test_a_ribosome_may_slip_back(write, strand):
    """Programmed frameshifting: a base is in two coding segments, and counts in both."""
    content = "".join(
        f"c\t.\tCDS\t{first}\t{last}\t.\t{strand}\t0\tID=slips\n" for first, last in ((1, 9), (9, 20))
    )
    (found,) = read_genes(write("a.gff", content.encode()))
    assert sum(segment.end - segment.start for segment in found.transcripts[0].cds) == 21


def test_a_split_stop_codon_of_gtf_becomes_part_of_the_coding_sequence(write):
    ids = 'gene_id "g"; transcript_id "t";'
    lines = ["CDS\t1\t5\t.\t+\t0", "stop_codon\t6\t6\t.\t+\t0", "stop_codon\t11\t12\t.\t+\t2"]
    lines += ["exon\t1\t6\t.\t+\t.", "exon\t11\t20\t.\t+\t."]
    content = "".join(f"c\tx\t{line}\t{ids}\n" for line in lines)
    (gene,) = read_genes(write("a.gtf", content.encode()))
    assert gene.transcripts[0].cds == (Segment(0, 6, 0), Segment(10, 12, 2))
    assert gene.interval == Interval("c", 0, 20, "+")


GENBANK = b"""LOCUS       c                         30 bp    DNA     linear   BCT 01-JAN-2020
DEFINITION  x.
ACCESSION   c
VERSION     c.1
FEATURES             Location/Qualifiers
     gene            complement(1..20)
                     /gene="abc"
                     /locus_tag="g"
     mRNA            complement(join(1..6,11..20))
                     /locus_tag="g"
                     /transcript_id="t1"
     CDS             complement(join(2..6,11..14))
                     /locus_tag="g"
                     /protein_id="P"
     CDS             22..29
                     /locus_tag="h"
                     /codon_start=3
                     /transl_table=11
ORIGIN
        1 acgtacgtac gtacgtacgt acgtacgtac
//
"""


def test_genbank_gives_the_same_genes_as_gff3(write):
    gene, alone = read_genes(write("a.gbk", GENBANK))
    (expected, _) = read_genes(write("a.gff3", GFF3.replace(b"c\t", b"c.1\t")))[0].transcripts
    (found,) = gene.transcripts
    assert (gene.name, gene.symbol) == ("g", "abc")
    assert (found.interval, found.exons, found.cds) == (expected.interval, expected.exons, expected.cds)
    assert found.protein == "P"
    assert alone.transcripts[0].cds == (Segment(21, 29, 2),)
    assert alone.transcripts[0].genetic_code == 11


def test_features_of_a_partial_gene_with_utr_say_so(tmp_path):
    exons = (Interval("c", 50, 80, "-"), Interval("c", 0, 20, "-"))
    made = Transcript("t", "mRNA", Interval("c", 0, 80, "-"), exons, (Segment(50, 70, 0), Segment(0, 20, 1)))
    gene = Gene("g", "gene", made.interval, (made,), partial=(True, False))
    features = list(gene_features(gene))
    utr = [(f.type, f.interval.start, f.interval.end) for f in features if f.type.endswith("UTR")]
    assert utr == [("five_prime_UTR", 70, 80)]
    cut = [(f.type, f.interval.start) for f in features if f.first("partial") == "true"]
    assert cut == [("gene", 0), ("mRNA", 0), ("exon", 0), ("CDS", 0)]
    assert {f.attributes.get("start_range") for f in features} == {(".", "1"), None}
    assert not any("end_range" in f.attributes for f in features)
    write_gff3(tmp_path / "g.gff3", features)
    assert "partial=true;start_range=.,1" in (tmp_path / "g.gff3").read_text()
    (again,) = read_genes(tmp_path / "g.gff3")
    assert (again.partial, again.transcripts[0].cds) == (gene.partial, made.cds)


GENBANK_FEATURES = """LOCUS       c                         60 bp    DNA     linear   UNK 01-JAN-1980
FEATURES             Location/Qualifiers
     gene            <1..>9
                     /locus_tag="a"
     gene            complement(10..18)
                     /locus_tag="b"
                     /pseudo
     repeat_region   join(20..25,complement(30..33))
     repeat_region   complement(40..45)
ORIGIN
        1 acgtacgtac gtacgtacgt acgtacgtac gtacgtacgt acgtacgtac gtacgtacgt
//
"""


def test_features_of_all_formats(tmp_path):
    gff = "\n".join(
        f"c\t.\t{kind}\t{first}\t{last}\t.\t{strand}\t.\t{rest}"
        for kind, first, last, strand, rest in [
            ("gene", 1, 9, "+", "ID=a"),
            ("gene", 10, 18, "-", "ID=b;pseudo=true"),
            ("repeat_region", 40, 45, "-", "ID=r"),
        ]
    )
    gtf = gff.replace("ID=a", 'gene_id "a";').replace("ID=b;pseudo=true", 'gene_id "b"; pseudo "true";')
    texts = {"x.gff3": gff, "x.gtf": gtf.replace("ID=r", 'gene_id "r";'), "x.gbk": GENBANK_FEATURES}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        found = [(f.type, f.interval) for f in read_features(tmp_path / name)]
        assert read_genes(tmp_path / name)[0].partial == ((True, True) if name == "x.gbk" else (False, False))
        assert found == [
            ("gene", Interval("c", 0, 9, "+")),
            ("pseudogene", Interval("c", 9, 18, "-")),
            ("repeat_region", Interval("c", 39, 45, "-")),
        ]
