"""Files of motifs, next to what Bio.motifs reads of them."""

import gzip

import numpy as np
import pytest
from Bio import motifs as bio

from reformer.errors import UserError
from reformer.genomics.formats.motifs import Motif, read_motifs, write_meme

JASPAR = """>MA0001.1 AGL3
A  [ 0  3 79 ]
C  [94 75  4 ]
G  [ 1  0  3 ]
T  [ 2 19 11 ]
>MA0002.1
0\t3.5
94\t75
1\t0
2\t19
"""
MEME = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.303 C 0.183 G 0.209 T 0.306

MOTIF MA0001.1 AGL3
letter-probability matrix: alength= 4 w= 2 nsites= 10 E= 4.1e-009
0.500000 0.250000 0.250000 0.000000
  0.1 0.2 0.3 0.4
URL http://x

MOTIF second
letter-probability matrix: alength=4 w=1
1 0 0 0
"""


def test_jaspar_is_what_bio_reads(tmp_path):
    (tmp_path / "a.jaspar").write_text(JASPAR)
    found = read_motifs(tmp_path / "a.jaspar")
    assert [one.name for one in found] == ["MA0001.1_AGL3", "MA0002.1"]
    with open(tmp_path / "a.jaspar") as file:
        for ours, theirs in zip(found, bio.parse(file, "jaspar"), strict=True):
            np.testing.assert_array_equal(ours.counts, np.array([theirs.counts[base] for base in "ACGT"]).T)
    with gzip.open(tmp_path / "b.gz", "wt") as file:
        file.write(JASPAR.replace("\n", "\r\n"))
    for plain, packed in zip(found, read_motifs(tmp_path / "b.gz"), strict=True):
        np.testing.assert_array_equal(plain.counts, packed.counts)


def test_meme_keeps_the_probabilities(tmp_path):
    (tmp_path / "a.meme").write_text(MEME)
    first, second = read_motifs(tmp_path / "a.meme")
    assert (first.name, len(first), second.name) == ("MA0001.1_AGL3", 2, "second")
    np.testing.assert_allclose(first.counts, [[5, 2.5, 2.5, 0], [1, 2, 3, 4]])
    np.testing.assert_allclose(second.counts, [[20, 0, 0, 0]])


def test_what_meme_prints_is_read_too(tmp_path):
    text = MEME.replace("MOTIF second", "MOTIF second width = 1 sites = 20")
    (tmp_path / "a.txt").write_text("*****\n" + text)
    assert [one.name for one in read_motifs(tmp_path / "a.txt")] == ["MA0001.1_AGL3", "second"]


def test_bio_reads_what_we_write(tmp_path):
    generator = np.random.default_rng(0)
    written = [Motif(f"m{i}", generator.multinomial(30, [0.4, 0.1, 0.2, 0.3], 5 + i) * 1.0) for i in range(3)]
    write_meme(tmp_path / "a.meme", written, {"A": 0.3, "C": 0.2, "G": 0.2, "T": 0.3})
    with open(tmp_path / "a.meme") as file:
        theirs = bio.parse(file, "minimal")
    for ours, bios, again in zip(written, theirs, read_motifs(tmp_path / "a.meme"), strict=True):
        assert (bios.name, again.name) == (ours.name, ours.name)
        np.testing.assert_array_equal(np.array([bios.counts[base] for base in "ACGT"]).T, ours.counts)
        np.testing.assert_allclose(again.counts, ours.counts, atol=1e-4)
    assert theirs.background["C"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("\n\n", "a: no motifs"),
        ("ACGT\n", 'line 1: not motifs: expected JASPAR, a line that starts with ">", or "MEME version"'),
        ("<?xml version='1.0'?>\n", "line 1: not motifs"),
        (">\n1\n1\n1\n1\n", "line 1: a motif without a name"),
        (JASPAR + ">x\n1\n2\n3\n", "line 11: motif 'x' has 3 rows"),
        (JASPAR + "5 5\n", "line 11: a fifth row"),
        (JASPAR + JASPAR, "line 11: motif 'MA0001.1_AGL3' is there twice"),
        (">x\n1 2\n1\n1 2\n1 2\n", "line 3: 1 counts: expected 2"),
        (">x\n1 2\n1 nan\n1 2\n1 2\n", "line 3: nan: expected a number from 0 on"),
        (">x\n1 2\n1 -3\n1 2\n1 2\n", "line 3: -3: expected a number from 0 on"),
        (">x\n1 2\n1 inf\n1 2\n1 2\n", "line 3: inf: expected a number from 0 on"),
        (">x\n1 2\n1 u\n1 2\n1 2\n", "line 3: 'u': expected a number"),
        (">x\nA [1]\nU [1]\n", "line 3: a row for 'U'"),
        (">x\nA [1]\nA [1]\n", "line 3: a row for 'A'"),
        (">x\nA []\nC []\nG []\nT []\n", "line 2: 0 counts: expected one at least"),
        (">x\n1 0\n1 0\n1 0\n1 0\n", "line 1: motif 'x': all counts of column 2 are 0"),
        ("MEME version 4\n", "a: no motifs"),
        (MEME.replace("ACGT", "ACDEFGHIKLMNPQRSTVWY"), "line 3: 'ALPHABET= ACDE"),
        (MEME.replace("ACGT", "ACGU"), "line 3: 'ALPHABET= ACGU': expected the alphabet ACGT"),
        (MEME.replace("alength=4", "alength=20"), "line 17: alength is 20"),
        (MEME.replace("w=1", "w=0"), "line 17: w is 0"),
        (MEME.replace("w=1", ""), 'line 17: expected "w="'),
        (MEME.replace("w=1", "w=2"), "line 17: 1 rows follow: expected 2"),
        (MEME.replace("w= 2", "w= 3"), "line 14: 2 numbers"),
        (MEME.replace("0.4\n", "0.9\n"), "line 13: probabilities with the sum 1.5"),
        (MEME.replace("0.4\n", "nan\n"), "line 13: nan: expected a number from 0 on"),
        (MEME.replace("0.4\n", "0.4 0\n"), "line 13: 5 numbers"),
        (
            MEME.replace("MOTIF second", "MOTIF MA0001.1 AGL3"),
            "line 16: motif 'MA0001.1_AGL3' is there twice",
        ),
        (MEME[: MEME.index("letter-probability matrix: alength=4")], "line 16: motif 'second' has no letter"),
        (MEME.replace("letter-probability matrix: alength= 4", "x"), "line 10: motif 'MA0001.1_AGL3' has no"),
    ],
)
def test_bad_files(write, text, message):
    path = write("a", text.encode())
    with pytest.raises(UserError) as error:
        read_motifs(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
