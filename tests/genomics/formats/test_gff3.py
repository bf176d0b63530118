import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.gff3 import format_gff3, read_gff3, write_gff3
from reformer.genomics.formats.gtf import read_gtf

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(words, words, words, st.lists(words, min_size=1, max_size=3))
def test_any_text_survives_writing_and_reading(tmp_path_factory, sequence, kind, tag, values):
    path = tmp_path_factory.mktemp("gff") / "a.gff3"
    tag = f"x{tag.strip()}"
    feature = Feature(Interval(sequence, 4, 9, "-"), f"t{kind}", "s", 0.1, 2, {tag: tuple(values)})
    write_gff3(path, [feature])
    (again,) = read_gff3(path)
    assert again.place is not None
    assert (again.interval, again.type, again.score, again.phase) == (
        feature.interval,
        feature.type,
        feature.score,
        feature.phase,
    )
    assert dict(again.attributes) == dict(feature.attributes)


def test_real_lines_survive(yeast_folder, tmp_path):
    features = list(read_gff3(yeast_folder / "ScerR64_I.gff.gz"))
    write_gff3(tmp_path / "a.gff3", features, {"NC_001133.9": 230218})
    again = list(read_gff3(tmp_path / "a.gff3"))
    assert [format_gff3(feature) for feature in again] == [format_gff3(feature) for feature in features]
    assert "##sequence-region NC_001133.9 1 230218" in (tmp_path / "a.gff3").read_text()
    notes = [feature.first("Note") or "" for feature in features]
    assert any("TEL01L; Telomeric region" in note for note in notes)


def test_a_fasta_section_ends_the_features(write):
    content = b"##gff-version 3.1.26\n#!x\n\n"
    content += b"c\t.\tgene\t1\t3\t.\t?\t.\tID=g\r\n###\n##FASTA\n>c d\nACG\nT\n>e\nAA\n"
    path = write("a.gff3", content)
    (feature,) = read_gff3(path)
    assert feature.interval == Interval("c", 0, 3, ".")
    assert feature.attributes == {"ID": ("g",)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'gene_id "a; b"; note "x \\"y\\" z"; level 2;',
            {"gene_id": ("a; b",), "note": ('x "y" z',), "level": ("2",)},
        ),
        ('gene_id "a"; tag "x"; tag "y"', {"gene_id": ("a",), "tag": ("x", "y")}),
        ('gene_id "Dmel\\\\CG1"; transcript_id ""; ', {"gene_id": ("Dmel\\\\CG1",), "transcript_id": ("",)}),
    ],
)
def test_attributes_of_gtf(write, text, expected):
    (feature,) = read_gtf(write("a.gtf", f"#!x\nc\ts\texon\t1\t3\t.\t+\t.\t{text}\n".encode()))
    assert feature.attributes == expected
