import pytest

from benchmarks import bacteria
from reformer.genomics.formats.genbank import GenBankRecord

LETTERS = "GTGAAATAG" + "C" * 11 + "CTATTTCAT" + "A" * 11 + "ATGAAAAAATAA" + "G" * 8


def gene(start: int, end: int, strand: str):
    return bacteria._gene("c", start, end, strand, start)


@pytest.fixture
def data() -> bacteria.Data:
    cut = gene(40, 49, "+")  # has no stop codon
    record = GenBankRecord("c", LETTERS, (gene(0, 9, "+"), gene(20, 29, "-"), cut), ())
    return bacteria.Data([], [record])


def test_only_whole_genes_count(data: bacteria.Data) -> None:
    assert data.facts()["test"] == {"contigs": 1, "bases": 60, "genes": 3, "whole_genes": 2}
    called = [gene(3, 9, "+"), gene(20, 29, "-"), gene(40, 52, "+")]
    found = bacteria.score(data, called)
    assert found["genes_called"] == 3
    exact_stop = found["genes"]["exact stop"]
    assert (exact_stop["f1"], exact_stop["predicted"], exact_stop["true"]) == (1.0, 2, 2)
    assert found["genes"]["exact start and stop"]["f1"] == 0.5


def test_files_of_records_are_read_back(data: bacteria.Data, tmp_path) -> None:
    from reformer.genomics.formats.annotation import read_genes

    genome, genes = bacteria._write(data.test, tmp_path)
    assert genome.read_text() == f">c\n{LETTERS}\n"
    assert [one.interval for one in read_genes(genes)] == [one.interval for one in data.test[0].genes]
