import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.bed import Region, read_bed, write_bed

names = st.text("abcXYZ0189_-.", min_size=1, max_size=8).filter(lambda name: name != ".")


@st.composite
def regions(draw):
    start = draw(st.integers(0, 10**8))
    sizes = draw(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 99)), min_size=1, max_size=4))
    strand, blocks, position = draw(st.sampled_from("+-.")), [], start
    for number, (gap, size) in enumerate(sizes):
        position += gap if number else 0
        blocks.append(Interval("chr1", position, position + size, strand))
        position += size
    interval = Interval("chr1", start, position, strand)
    thick = tuple(sorted(draw(st.tuples(st.integers(start, position), st.integers(start, position)))))
    color = draw(st.none() | st.tuples(*[st.integers(0, 255)] * 3))
    return Region(interval, draw(names), draw(st.integers(0, 1000)), thick, color, tuple(blocks))


@given(st.lists(regions(), min_size=1, max_size=4))
def test_twelve_columns_survive(tmp_path_factory, expected):
    path = tmp_path_factory.mktemp("bed") / "a.bed"
    write_bed(path, expected, 12)
    assert list(read_bed(path)) == expected


def test_pysam_reads_ours(tmp_path):
    expected = [Region(Interval("c", 5, 9, "-"), "x", 7.5), Region(Interval("c", 8, 20, "+"), "y", 1)]
    write_bed(tmp_path / "a.bed", expected)
    pysam.tabix_index(str(tmp_path / "a.bed"), preset="bed")
    with pysam.TabixFile(str(tmp_path / "a.bed.gz"), parser=pysam.asBed()) as file:
        found = [(r.contig, r.start, r.end, r.name, float(r.score), r.strand) for r in file.fetch("c")]
    assert found == [("c", 5, 9, "x", 7.5, "-"), ("c", 8, 20, "y", 1.0, "+")]
    assert list(read_bed(tmp_path / "a.bed.gz")) == expected


@pytest.mark.parametrize("columns", [3, 4, 5, 6, 8, 9, 12])
def test_every_width_is_read_again(tmp_path, columns):
    region = Region(Interval("c", 5, 9, "-"), "x", 3, (6, 7), (1, 2, 3), (Interval("c", 5, 9, "-"),))
    write_bed(tmp_path / "a.bed", [region], columns)
    assert len((tmp_path / "a.bed").read_text().split("\t")) == columns
    (found,) = read_bed(tmp_path / "a.bed")
    assert found.interval == Interval("c", 5, 9, "-" if columns >= 6 else ".")
    assert found.thick == ((6, 7) if columns >= 8 else None)
    assert (found.blocks != ()) == (columns == 12)


def test_comments_tracks_and_spaces(write):
    path = write(
        "a.bed", b"track name=x\nbrowser position c\n#c 1 2\n\nc 0 0 point\nc\t3\t5\tname with space\n"
    )
    assert [(len(r.interval), r.name) for r in read_bed(path)] == [(0, "point"), (2, "name with space")]


def test_a_width_that_no_bed_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="num_columns is 7"):
        write_bed(tmp_path / "a.bed", [], 7)
    assert list(tmp_path.iterdir()) == []
