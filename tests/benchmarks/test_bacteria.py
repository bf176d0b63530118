import pytest

from benchmarks import bacteria
from tests.genomics.test_genes import GENBANK

LETTERS = "GTGAAATAG" + "C" * 11 + "CTATTTCAT" + "A" * 11 + "ATGAAAAAATAA" + "G" * 8


def gene(start: int, end: int, strand: str):
    return bacteria._gene("c", start, end, strand, start)


@pytest.fixture
def data() -> bacteria.Data:
    cut = gene(40, 49, "+")  # has no stop codon
    record = bacteria.Contig("c", LETTERS, (gene(0, 9, "+"), gene(20, 29, "-"), cut), "")
    return bacteria.Data([], [record])


def test_only_whole_genes_count(data: bacteria.Data) -> None:
    assert data.facts()["test"] == {"contigs": 1, "bases": 60, "genes": 3, "whole_genes": 2}
    called = [gene(3, 9, "+"), gene(20, 29, "-"), gene(40, 52, "+")]
    found = bacteria.score(data, called)
    assert found["genes_called"] == 3
    exact_stop = found["genes"]["exact stop"]
    assert (exact_stop["f1"], exact_stop["predicted"], exact_stop["true"]) == (1.0, 2, 2)
    assert found["genes"]["exact start and stop"]["f1"] == 0.5


def test_contigs_are_written_as_they_were_read(tmp_path) -> None:
    """What is trained on is the file's own text, of some of its records."""
    (tmp_path / "x.gbk").write_bytes(
        GENBANK + GENBANK.replace(b"c.1", b"d.1").replace(b"acgtacgtac\n//", b"acgtacgt\n//")
    )
    data = bacteria.open_data(tmp_path / "x.gbk")
    assert [[contig.name for contig in contigs] for contigs in (data.train, data.test)] == [
        ["c.1", "d.1"],
        [],
    ]
    path = bacteria.write_genbank(data.train[1:], tmp_path / "train" / "d.gbk")
    (again,) = bacteria.open_data(path).train
    assert again == data.train[1]
    assert (again.letters, len(again.genes)) == ("ACGT" * 7, 2)
