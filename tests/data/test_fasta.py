from __future__ import annotations

import gzip
from collections import Counter
from io import StringIO
from pathlib import Path

import numpy as np
import pyfaidx
import pytest
from Bio.bgzf import BgzfWriter
from Bio.SeqIO.FastaIO import SimpleFastaParser
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer.data import TokenArray, build_token_array
from reformer.data.fasta import LETTERS, read_fasta
from reformer.data.nucleotides import nucleotide_table
from reformer.errors import UserError
from tests.data.conftest import expected_ids


class ListSink:
    """Collects records in memory."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytearray]] = []
        self.letter_counts: list[dict[str, int]] = []

    def begin_record(self, name: str, place: str) -> None:
        self.records.append((name, bytearray()))

    def append(self, ids: bytes) -> None:
        self.records[-1][1].extend(ids)

    def end_record(self, letter_counts: np.ndarray | None = None) -> int:
        assert letter_counts is not None
        self.letter_counts.append({a: n for a, n in zip(LETTERS, letter_counts.tolist(), strict=True) if n})
        return len(self.records[-1][1])


def read(blocks: list[bytes], lower_case: str = "keep") -> ListSink:
    sink = ListSink()
    read_fasta(blocks, Path("genome.fa"), nucleotide_table(lower_case), sink)
    return sink


def biopython_records(path: Path) -> list[tuple[str, str]]:
    with gzip.open(path, "rt") as file:
        return [(title.split()[0], sequence) for title, sequence in SimpleFastaParser(file)]


def assert_holds(array: TokenArray, expected: list[tuple[str, str]], lower_case: str) -> None:
    assert [record.name for record in array.records] == [name for name, _ in expected]
    assert len(array) == sum(len(sequence) for _, sequence in expected)
    for i, (record, (_, sequence)) in enumerate(zip(array.records, expected, strict=True)):
        np.testing.assert_array_equal(
            array.window(record.start, record.length), expected_ids(sequence, lower_case)
        )
        assert array.letter_counts(i) == Counter(sequence)


@pytest.mark.parametrize("lower_case", ["fold", "keep"])
def test_yeast_files_equal_biopython(yeast_folder: Path, tmp_path: Path, lower_case: str) -> None:
    paths = sorted(yeast_folder.glob("*.fna.gz"))
    assert len(paths) >= 8
    for path in paths:
        array = build_token_array(path, tmp_path, lower_case=lower_case)
        assert_holds(array, biopython_records(path), lower_case)


@pytest.mark.parametrize("lower_case", ["fold", "keep"])
def test_fly_chromosome_equals_biopython(fly_folder: Path, tmp_path: Path, lower_case: str) -> None:
    (path,) = fly_folder.glob("DmelanDM6_4_GCF*_genomic.fna.gz")
    array = build_token_array(path, tmp_path, lower_case=lower_case)
    assert array.records[0] == ("NC_004353.4", 0, 1_348_131)
    assert_holds(array, biopython_records(path), lower_case)


def test_fly_chromosome_equals_pyfaidx(fly_folder: Path, tmp_path: Path) -> None:
    (path,) = fly_folder.glob("DsimulPrinDsim_4_GCF*_genomic.fna.gz")
    plain = tmp_path / "simulans.fa"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    array = build_token_array(plain, tmp_path, lower_case="keep")
    with pyfaidx.Fasta(str(plain), as_raw=True) as fasta:
        assert_holds(array, [(name, fasta[name][:]) for name in fasta.keys()], "keep")  # noqa: SIM118


def test_plain_gzip_multi_member_and_bgzf_are_the_same(yeast_folder: Path, tmp_path: Path) -> None:
    (path,) = yeast_folder.glob("ScerR64_I_GCF*_genomic.fna.gz")
    content = gzip.decompress(path.read_bytes())
    (tmp_path / "plain.fa").write_bytes(content)
    (tmp_path / "members.gz").write_bytes(gzip.compress(content[:777]) + gzip.compress(content[777:]))
    with BgzfWriter(str(tmp_path / "blocks.whatever")) as bgzf:
        bgzf.write(content)
    arrays = [build_token_array(p, tmp_path / "cache") for p in (path, *sorted(tmp_path.glob("*.*")))]
    assert len(arrays) == 4
    assert len({array.folder for array in arrays}) == 4
    for array in arrays:
        assert array.records[:] == [("NC_001133.9", 0, 230_218)]
        np.testing.assert_array_equal(array.tokens, arrays[0].tokens)


letters = st.text(st.sampled_from(LETTERS), min_size=1, max_size=40)
line_ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r\n \r\n", " \n", "\n\t\n"])


@st.composite
def fasta_texts(draw: st.DrawFn) -> str:
    """FASTA with every line of its own width and end, blank lines anywhere, the last end perhaps missing."""
    names = draw(st.lists(st.text("abcXYZ0189_.|>-", min_size=1), min_size=1, max_size=5, unique=True))
    text = draw(st.sampled_from(["", "\n", "\r\n\r\n"]))
    for name in names:
        description = draw(st.sampled_from(["", " some > words", "\ttab"]))
        text += f">{name}{description}" + draw(st.sampled_from(["\n", "\r\n"]))
        text += draw(st.sampled_from(["", "\n"]))
        for line in draw(st.lists(letters, min_size=1, max_size=6)):
            text += line + draw(line_ends)
    return text if draw(st.booleans()) else text.rstrip()


@settings(max_examples=300, deadline=None)
@given(
    text=fasta_texts(),
    block_sizes=st.lists(st.integers(1, 30), min_size=1),
    lower_case=st.sampled_from(["fold", "keep"]),
)
def test_any_layout_in_any_blocks_equals_biopython(
    text: str, block_sizes: list[int], lower_case: str
) -> None:
    content, blocks = text.encode(), []
    while content:
        size = block_sizes[len(blocks) % len(block_sizes)]
        blocks.append(content[:size])
        content = content[size:]
    # universal newlines, as Biopython reads a file; it leaves tabs and blanks between lines in
    parsed = SimpleFastaParser(StringIO(text.replace("\r\n", "\n").lstrip("\n")))
    expected = [(title.split()[0], "".join(sequence.split())) for title, sequence in parsed]
    sink = read(blocks, lower_case)
    assert [name for name, _ in sink.records] == [name for name, _ in expected]
    for (_, ids), (_, sequence) in zip(sink.records, expected, strict=True):
        np.testing.assert_array_equal(np.frombuffer(bytes(ids), np.uint8), expected_ids(sequence, lower_case))
    assert sink.letter_counts == [Counter(sequence) for _, sequence in expected]


BAD_FILES = {
    "letter": (b">a\nACGT\n>b x\nAC\nGTZ\n", "line 5, column 3, record 'b': 'Z' is not a nucleotide letter"),
    "protein": (b">a\nMSRKQYLE\n", "line 2, column 5, record 'a': 'Q' .* looks like protein, expected nucl"),
    "lower-case protein": (b">a\nmsrkqyle\n", "column 5, record 'a': 'q' .* looks like protein"),
    "x is not protein": (b">a\nACXX\n", "column 3, record 'a': 'X' .*; expected A C G T U N or R Y"),
    "gap": (b">a\nAC-GT\n", "line 2, column 3, record 'a': '-' is not .*; gaps are not read"),
    "dot": (b">a\nAC..\n", "line 2, column 3, record 'a': '.' is not .*; gaps are not read"),
    "binary": (b">a\nAC\0\n", "line 2, column 3, record 'a': byte 0x00 is not"),
    "not ascii": (b">a\nAC\xc3\xa9\n", "line 2, column 3, record 'a': byte 0xC3 is not"),
    "> inside a line": (b">a\nAC>b\nGT\n", "line 2, column 3, record 'a': '>' is not"),
    "semicolon inside": (b">a\nAC\n;note\nGT\n", "line 3, column 1, record 'a': ';' is not"),
    "text first": (b"\n \nACGT\n>a\nAC\n", "line 3: text before the first record: expected a line"),
    "indented header": (b" >a\nAC\n", "line 1: text before the first record: expected a line that starts"),
    "old style": (b"\n;comment\n>a\nAC\n", 'line 2: old-style FASTA \\(";" lines\\) is not read'),
    "no sequence": (b">a\nAC\n>b\n\n  \n>c\nA\n", "line 3: record 'b' has no sequence"),
    "no sequence at the end": (b">a\nAC\n>b", "line 3: record 'b' has no sequence"),
    "no name": (b">a\nAC\n>  \nAC\n", 'line 3: a record without a name: expected ">name"'),
    "no record": (b"\n\n", ': no record: expected a line that starts with ">"'),
    "carriage returns only": (b">a\rACGT\r>b\rAC", "line 1: record 'a' has no sequence"),
    "endless header": (
        b">a" + b"x" * (1 << 20) + b"\n",
        "line 1: a header line of more than 1,048,576 bytes",
    ),
}


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 22])
@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_content_is_refused_and_its_place_named(case: str, block_bytes: int) -> None:
    content, message = BAD_FILES[case]
    if block_bytes == 1 and len(content) > 1000:
        block_bytes = 1000
    blocks = [content[i : i + block_bytes] for i in range(0, len(content), block_bytes)]
    with pytest.raises(UserError, match=f"^genome.fa.*{message}") as error:
        read(blocks)
    assert "\n" not in str(error.value)


def test_protein_file_of_a_real_genome_is_named_protein(yeast_folder: Path, tmp_path: Path) -> None:
    (path,) = yeast_folder.glob("ScerR64_I_protein.faa.gz")
    with pytest.raises(UserError, match=r"faa\.gz, line 2, column \d+, .* looks like protein"):
        build_token_array(path, tmp_path)
    assert list(tmp_path.iterdir()) == []
