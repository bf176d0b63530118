from pathlib import Path

import pytest

from reformer.errors import UserError
from reformer.genomics.classification.labelled_features import Choice, extract_labelled

GENOME = ">c\nATGAAATAGCCCCTATTTCATGGGGG\n"
GFF = """##gff-version 3
c\tx\tgene\t1\t9\t.\t+\t.\tID=g1
c\tx\tCDS\t1\t3\t.\t+\t0\tID=c1;product=kinase;Ontology_term=GO:0000001,GO:0000002
c\tx\tCDS\t7\t9\t.\t+\t0\tID=c1;product=kinase;Ontology_term=GO:0000001,GO:0000002
c\tx\tCDS\t13\t21\t.\t-\t0\tID=c2;product=kinase;Ontology_term=GO:0000002
c\tx\tCDS\t20\t25\t.\t+\t0\tID=c3;product=a b;note=is GO:0000003
c\tx\tCDS\t20\t24\t.\t-\t0\tID=c4;product=a b
c\tx\ttRNA\t22\t25\t.\t+\t.\tID=t 1
c\tx\ttRNA\t22\t26\t.\t+\t.\tID=t 1x
"""
GENBANK = """LOCUS       c  21 bp    DNA     linear   UNK
ACCESSION   c
VERSION     c
FEATURES             Location/Qualifiers
     CDS             join(1..3,7..9)
                     /locus_tag="g1"
                     /product="kinase"
     CDS             complement(13..21)
                     /locus_tag="g2"
                     /product="kinase"
     CDS             <1..3
                     /locus_tag="g2"
                     /product="other"
     CDS             4..6
                     /locus_tag="g3"
                     /product="other"
ORIGIN
        1 atgaaatagc ccctatttca t
//
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    (tmp_path / "g.gff3").write_text(GFF)
    (tmp_path / "g.fa").write_text(GENOME)
    return tmp_path / "g.gff3", tmp_path / "g.fa"


def read(out: Path) -> tuple[dict[str, str], dict[str, str]]:
    records = (out / "sequences.fa").read_text().split(">")[1:]
    sequences = {record.split("\n")[0]: "".join(record.split("\n")[1:]) for record in records}
    labels = dict(line.split("\t") for line in (out / "labels.tsv").read_text().splitlines())
    return sequences, labels


def test_coding_sequences_are_spliced_and_labelled(files: tuple[Path, Path], tmp_path: Path) -> None:
    lines = extract_labelled(*files, tmp_path / "out", Choice.of("product", None, 2))
    sequences, labels = read(tmp_path / "out")
    assert sequences == {"c1": "ATGTAG", "c2": "ATGAAATAG", "c3": "ATGGGG", "c4": "CCCAT"}
    assert labels == {"c1": "kinase", "c2": "kinase", "c3": "a b", "c4": "a b"}
    assert "4 of 4 features, in 2 classes" in lines[0]


def test_types_and_terms_are_labels_too(files: tuple[Path, Path], tmp_path: Path) -> None:
    extract_labelled(*files, tmp_path / "types", Choice.of("type", None, 2))
    assert read(tmp_path / "types")[1]["t_1"] == "tRNA"
    extract_labelled(*files, tmp_path / "terms", Choice.of("GO", None, 1, several=False))
    terms = read(tmp_path / "terms")[1]
    assert terms == {"c1": "GO:0000002", "c2": "GO:0000002", "c3": "GO:0000003"}  # c1: the more common one


def test_a_gene_has_all_of_its_terms(files: tuple[Path, Path], tmp_path: Path) -> None:
    extract_labelled(*files, tmp_path / "all", Choice.of("GO", None, 1))
    lines = (tmp_path / "all" / "labels.tsv").read_text().splitlines()
    assert lines == ["c1\tGO:0000001", "c1\tGO:0000002", "c2\tGO:0000002", "c3\tGO:0000003"]
    with pytest.raises(UserError, match=r"1 label\(s\) by 'GO' of 2 or more"):
        extract_labelled(*files, tmp_path / "two", Choice.of("GO", None, 2))
    annotation = tmp_path / "several.gff3"
    annotation.write_text(GFF.replace("product=a b", "product=a b,kinase,a  b"))
    extract_labelled(annotation, files[1], tmp_path / "products", Choice.of("product", None, 2, several=True))
    lines = (tmp_path / "products" / "labels.tsv").read_text().splitlines()
    assert lines == [
        "c1\tkinase",
        "c2\tkinase",
        *(f"{name}\t{x}" for name in ("c3", "c4") for x in ("a b", "kinase")),
    ]


def test_genbank_has_its_own_sequences(files: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "g.gbk").write_text(GENBANK)
    extract_labelled(tmp_path / "g.gbk", None, tmp_path / "out", Choice.of("product", None, 2))
    sequences, labels = read(tmp_path / "out")
    assert sequences == {"g1": "ATGTAG", "g2": "ATGAAATAG", "g2:c:1-3:CDS": "ATG", "g3": "AAA"}
    assert list(labels.values()) == ["kinase", "kinase", "other", "other"]
    with pytest.raises(UserError, match="has its sequences itself"):
        extract_labelled(tmp_path / "g.gbk", files[1], tmp_path / "no", Choice.of("product", None, 2))


def test_mistakes_leave_nothing(files: tuple[Path, Path], tmp_path: Path) -> None:
    annotation, genome = files
    for arguments, message in (
        ((annotation, None, "product", None), "has no sequences: expected --genome"),
        ((annotation, genome, "function", None), "0 label(s) by 'function'"),
        ((annotation, genome, "product", ["exon"]), "no feature of type exon"),
        ((tmp_path / "x.txt", genome, "product", None), "not known as an annotation"),
    ):
        with pytest.raises(UserError) as caught:
            extract_labelled(*arguments[:2], tmp_path / "no", Choice.of(*arguments[2:], 2))
        assert message in str(caught.value)
        assert not (tmp_path / "no").exists()
    with pytest.raises(UserError, match="not empty"):
        extract_labelled(annotation, genome, tmp_path, Choice.of("product", None, 2))
