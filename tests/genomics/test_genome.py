import os

import pyfaidx
import pysam
import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome

NAME = "ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz"


@pytest.fixture
def fasta(yeast_folder, tmp_path):
    """The yeast chromosome plain and BGZF, in folders of their own."""
    from gzip import open as open_gzip

    for folder in ("plain", "bgzf", "reference"):
        (tmp_path / folder).mkdir()
    with open_gzip(yeast_folder / NAME) as file:
        unpacked = file.read()
    content = unpacked + b">second\nACGTNRYK\nacg\n"
    for folder in ("plain", "reference"):
        (tmp_path / folder / "g.fa").write_bytes(content)
    with pysam.BGZFile(str(tmp_path / "bgzf" / "g.fa.gz"), "wb") as file:
        file.write(content)
    return tmp_path


@pytest.mark.parametrize("name", ["plain/g.fa", "bgzf/g.fa.gz"])
def test_letters_are_those_of_pyfaidx(fasta, name):
    intervals = [
        ("NC_001133.9", 0, 80),
        ("NC_001133.9", 79, 1000),
        ("NC_001133.9", 230200, 230218),
        ("second", 0, 11),
    ]
    before = sorted(os.listdir((fasta / name).parent))
    with Genome(fasta / name) as genome, pyfaidx.Fasta(str(fasta / "reference/g.fa")) as reference:
        assert genome.lengths == {"NC_001133.9": 230218, "second": 11}
        for sequence, start, end in intervals:
            piece = reference[sequence][start:end]
            assert genome.letters(Interval(sequence, start, end, "+")) == str(piece)
            assert genome.letters(Interval(sequence, start, end, "-")) == str(piece.reverse.complement)
    assert sorted(os.listdir((fasta / name).parent)) == before


def test_gzip_is_unpacked(yeast_folder):
    with Genome(yeast_folder / NAME) as genome:
        folder = genome._folder.name
        assert genome.letters(Interval("NC_001133.9", 0, 12)).upper() == "CCACACCACACC"
    assert not os.path.exists(folder)


def test_an_index_beside_the_file_is_used_unless_it_is_older(fasta):
    path = fasta / "plain/g.fa"
    pysam.faidx(str(path))
    index = path.with_name("g.fa.fai")
    index.write_text(index.read_text().splitlines()[1] + "\n")
    with Genome(path) as genome:
        assert list(genome.lengths) == ["second"]
    os.utime(index, (1, 1))
    with Genome(path) as genome:
        assert list(genome.lengths) == ["NC_001133.9", "second"]


def test_what_is_not_in_the_genome_is_named(fasta):
    with Genome(fasta / "plain/g.fa") as genome:
        with pytest.raises(UserError, match=r"g.fa: no sequence 'chrI'"):
            genome.letters(Interval("chrI", 0, 3))
        with pytest.raises(UserError, match=r"'second' has 11 bases: expected 12"):
            genome.letters(Interval("second", 0, 12))
