from reformer.genomics.formats.proteins import Protein, read_proteins, write_proteins


def test_what_is_written_is_read_and_biopython_reads_it_too(tmp_path):
    from Bio import SeqIO

    proteins = [Protein("a", "MKV" * 50, "first one"), Protein("b", "X")]
    assert write_proteins(tmp_path / "p.faa", proteins) == 2
    assert list(read_proteins(tmp_path / "p.faa")) == proteins
    with open(tmp_path / "p.faa") as file:
        records = list(SeqIO.parse(file, "fasta"))
    assert [(record.id, str(record.seq)) for record in records] == [(p.name, p.letters) for p in proteins]
    assert max(map(len, (tmp_path / "p.faa").read_text().splitlines())) == 60


def test_stops_case_and_white_space(tmp_path):
    (tmp_path / "p.faa").write_text(">a  d e \nmk v\n\nLU*\r\n>b\nM\n")
    assert list(read_proteins(tmp_path / "p.faa")) == [Protein("a", "MKVLU", "d e"), Protein("b", "M")]
