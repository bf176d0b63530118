"""GenBank as a genome: the same tokens as Biopython's letters, errors where they are in the file."""

import gzip
import io
from pathlib import Path

import pytest
from Bio import SeqIO
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer.data.build import build_token_array
from reformer.data.genbank import genbank_annotations, genbank_as_fasta
from reformer.errors import UserError
from tests.data.test_build import Write


def genbank(*sequences: str) -> bytes:
    """Records c0, c1 and so on as Biopython writes them."""
    text = io.StringIO()
    for number, sequence in enumerate(sequences):
        record = SeqRecord(Seq(sequence), f"c{number}.1", f"c{number}", annotations={"molecule_type": "DNA"})
        SeqIO.write([record], text, "genbank")
    return text.getvalue().encode()


def fasta(*sequences: str) -> bytes:
    return "".join(f">c{n}.1\n{sequence}\n" for n, sequence in enumerate(sequences)).encode()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=3), st.integers(1, 400), st.booleans())
def test_blocks_and_line_ends_do_not_matter(lengths: list[int], size: int, with_returns: bool) -> None:
    sequences = [("ACGTRYKMSWBDHVN" * 10)[-length:] for length in lengths]
    content = genbank(*sequences)
    content = content.replace(b"\n", b"\r\n") if with_returns else content
    blocks = [content[start : start + size] for start in range(0, len(content), size)]
    found = b"".join(genbank_as_fasta(blocks, Path("x.gb")))
    assert found.count(b"\n") == content.count(b"\n")
    assert b"".join(found.split()) == b"".join(fasta(*sequences).split())
    assert [(name, line) for name, line, _ in genbank_annotations(blocks, Path("x.gb"))] == [
        (f"c{n}.1", line)
        for n, line in enumerate(
            number for number, text in enumerate(content.splitlines(), 1) if text.startswith(b"LOCUS")
        )
    ]


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_the_tokens_are_those_of_the_same_fasta(write: Write, tmp_path: Path, compress) -> None:
    sequences = "ACGT" * 200 + "N", "GGTTA"
    one = build_token_array(write("x.gbff", compress(genbank(*sequences))), tmp_path, lower_case="keep")
    two = build_token_array(write("x.fa", fasta(*sequences)), tmp_path, lower_case="keep")
    assert one.tokens.tobytes() == two.tokens.tobytes()
    assert [r.name for r in one.records] == [r.name for r in two.records] == ["c0.1", "c1.1"]
    both = build_token_array([one.sources[0].path, write("y.fa", b">z\nAC\n")], tmp_path)
    assert [r.name for r in both.records] == ["c0.1", "c1.1", "z"]
    forced = build_token_array(one.sources[0].path, tmp_path, format="fasta")
    assert forced.tokens.tobytes() == two.tokens.tobytes()
    assert build_token_array(one.sources[0].path, tmp_path, format="text").tokenizer_name == "byte"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"VERSION     c0.1", b"VERSION", "c0"),
        (b"ACCESSION   c0\nVERSION     c0.1", b"ACCESSION\nVERSION", "c0"),
        (b"VERSION     c0.1", b"VERSION     c0.1  GI:7", "c0.1"),
        (b"ACCESSION   c0", b"ACCESSION   c0 z9", "c0.1"),
        (b"ACCESSION   c0\nVERSION     c0.1\n", b"", "c0"),
    ],
)
def test_a_record_has_the_name_that_it_has(old: bytes, new: bytes, expected: str) -> None:
    content = genbank("ACGT")
    assert old in content
    found = b"".join(genbank_as_fasta([content.replace(old, new)], Path("x.gb")))
    assert found.split() == [f">{expected}".encode(), b"ACGT"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"61 acgt", b"61 ac-t", "column 13, record 'c0.1': '-' is not a nucleotide letter; gaps"),
        (b"61 acgt", b"121 acgt", "record 'c0.1': begins with '121': expected 61, the number of"),
        (b"61 acgt", b"acgt", "record 'c0.1': begins with 'acgtacgtac': expected 61"),
        (b"61 acgt", b"61acgt", "record 'c0.1': begins with '61acgtacgtac': expected 61"),
        (b"61 acgt", b"61 aclt", "column 13, record 'c0.1': 'L' is not"),
    ],
)
def test_places_in_errors_are_those_of_the_file(
    write: Write, tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    content = genbank("ACGT" * 30)
    line = content[: content.index(old)].count(b"\n") + 1
    path = write("x.gb", content.replace(old, new))
    with pytest.raises(UserError) as caught:
        build_token_array(path, tmp_path / "cache")
    assert str(caught.value).startswith(f"{path}, line {line}, ")
    assert message in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_a_name_that_promises_genbank_is_believed(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="named like GenBank, but begins with 'A': expected \"LOCUS\""):
        build_token_array(write("x.gbk.gz", gzip.compress(b"ACGT\n")), tmp_path)
