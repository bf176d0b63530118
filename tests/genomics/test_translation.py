"""Genes to proteins: by hand, and against the proteins that NCBI has of real annotations."""

import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.formats.proteins import Protein, read_proteins
from reformer.genomics.genes import Gene, Segment, Transcript
from reformer.genomics.genome import Genome
from reformer.genomics.translation import translate, translate_file, translated


def test_a_start_is_m_and_the_stop_is_dropped():
    assert translate("ATGGCTTAA") == "MA"
    assert translate("TTGGCTTAA") == "MA"  # table 1 lists TTG as a start
    assert translate("gctttgtaa") == "AL"
    assert translate("GTGGCTTAA", 11) == "MA"
    assert translate("GTGGCTTAA", 1) == "VA"


def test_codes_differ():
    assert translate("ATGTGATAA", 4) == "MW"
    assert translate("ATGATATAA", 2) == "MM"
    assert translate("ATGCTGTAA", 12) == "MS"
    with pytest.raises(UserError, match="genetic code 7: expected one of 1, 2, 3, 4, 5, 6, 9"):
        translate("ATG", 7)


def test_ambiguous_bases():
    assert translate("ATGGCNNNNTAR") == "MAX"


def test_what_is_odd_is_said():
    lines: list[str] = []
    assert translate("ATGTAAGCTTAA", warn=lines.append) == "MXA"
    assert lines == ["stop codon before the end, residue 2 of 3: now X"]
    lines.clear()
    assert translate("CATGGCTT", phase=1, warn=lines.append) == "MA"
    assert lines == ["1 base(s) after its last codon", "no stop codon at its end"]
    lines.clear()
    assert translate("AT", warn=lines.append) == ""
    assert lines == ["no whole codon"]


def genome(tmp_path, letters):
    (tmp_path / "g.fa").write_text(f">c\n{letters}\n")
    return Genome(tmp_path / "g.fa")


def gene(name, strand, *segments, code=1):
    cds = tuple(Segment(*segment) for segment in segments)
    interval = Interval("c", min(s.start for s in cds), max(s.end for s in cds), strand)
    exons = tuple(Interval("c", s.start, s.end, strand) for s in cds)
    return Gene(name, "gene", interval, (Transcript("t", "mRNA", interval, exons, cds, None, code),))


def test_introns_are_cut_out_on_either_strand(tmp_path):
    coding, intron = "ATGGCTTGGAAATAA", "gtaagtttag"
    plus = coding[:7] + intron + coding[7:]
    letters = "CC" + plus + "CCCC" + reverse_complement(plus) + "G"
    start = 2 + len(plus) + 4
    genes = [
        gene("p", "+", (2, 9, 0), (19, 27, 2)),
        gene("m", "-", (start + 18, start + 25, 0), (start, start + 8, 2)),
    ]
    warnings: list[str] = []
    with genome(tmp_path, letters) as opened:
        found = list(translated(genes, opened, warn=warnings.append))
    assert warnings == []
    assert found == [
        Protein("t", "MAWK", "gene=p c:3-27(+)"),
        Protein("m.t", "MAWK", f"gene=m c:{start + 1}-{start + 25}(-)"),
    ]


def test_a_wrong_phase_is_reported(tmp_path):
    warnings: list[str] = []
    with genome(tmp_path, "ATGGCTTGGAAATAA") as opened:
        (protein,) = translated([gene("g", "+", (0, 7, 0), (7, 15, 0))], opened, warn=warnings.append)
    assert protein.letters == "MAWK"
    assert warnings == [
        "gene g, transcript t: segment 2 of its coding sequence has phase 0: expected 2 after the segments "
        "before it, by which it is read"
    ]


def test_a_gene_beyond_its_sequence_is_an_error(tmp_path):
    with genome(tmp_path, "ATGGCT") as opened, pytest.raises(UserError, match="'c' has 6 bases: expected 15"):
        list(translated([gene("g", "+", (0, 15, 0))], opened))


def test_the_gene_has_its_own_code_unless_another_is_asked_for(tmp_path):
    with genome(tmp_path, "ATGTGATAA") as opened:
        one = gene("g", "+", (0, 9, 0), code=4)
        assert [p.letters for p in translated([one], opened)] == ["MW"]
        assert [p.letters for p in translated([one], opened, code=1)] == ["MX"]


@pytest.mark.parametrize("ending", ["gff.gz", "gtf.gz"])
def test_proteins_are_those_of_ncbi(yeast_folder, tmp_path, ending):
    (fasta,) = yeast_folder.glob("SkudIFO1802_1_GCF*_genomic.fna.gz")
    count, warnings = translate_file(fasta, yeast_folder / f"SkudIFO1802_1.{ending}", tmp_path / "p.faa")
    ours = {protein.name: protein.letters for protein in read_proteins(tmp_path / "p.faa")}
    theirs = {p.name: p.letters for p in read_proteins(yeast_folder / "SkudIFO1802_1_protein.faa.gz")}
    assert ours == theirs
    assert (count, warnings) == (88, [])


def test_an_annotation_without_coding_genes_is_an_error(tmp_path):
    (tmp_path / "g.fa").write_text(">c\nACGT\n")
    (tmp_path / "g.gff").write_text("##gff-version 3\nc\t.\tgene\t1\t4\t.\t+\t.\tID=g\n")
    with pytest.raises(UserError, match=r"g.gff: no coding sequence"):
        translate_file(tmp_path / "g.fa", tmp_path / "g.gff", tmp_path / "p.faa")
    assert not (tmp_path / "p.faa").exists()
