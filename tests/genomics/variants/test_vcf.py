from pathlib import Path

import numpy as np
import pysam
import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.variants.vcf import (
    Filter,
    InfoField,
    Scored,
    read_variants,
    write_scored_variants,
)

VCF = b"""##fileformat=VCFv4.2
##contig=<ID=c,length=100>
##contig=<ID=d,length=50>
##FILTER=<ID=q10,Description="low">
##INFO=<ID=DP,Number=1,Type=Integer,Description="Depth">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\ts1
c\t1\trs1\tA\tC,G\t50\tPASS\tDP=3\tGT\t0/1
c\t10\t.\tACG\tA\t.\tq10\t.\tGT\t1/1
c\t10\t.\tN\t<DEL>,*\t.\t.\t.\tGT\t0/0
d\t7\t.\tT\t.\t.\t.\tDP=9\tGT\t0/0
"""
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
FIELDS = [InfoField("LLR", "A", "Float", 'score of "each" ALT'), InfoField("WIN", "1", "Integer", "window")]


def score(variant):
    values = tuple(-1.5 * (i + 1) for i in range(len(variant.alternatives)))
    return {"LLR": values, "WIN": 64} if values else {}


def one_by_one(score):
    return lambda variants: (Scored(score(variant)) for variant in variants)


def test_positions_count_from_0(write):
    variants = list(read_variants(write("a.vcf", VCF)))
    assert [v.interval for v in variants] == [
        Interval("c", 0, 1), Interval("c", 9, 12), Interval("c", 9, 10), Interval("d", 6, 7)
    ]  # fmt: skip
    assert [v.alternatives for v in variants] == [("C", "G"), ("A",), ("<DEL>", "*"), ()]
    assert variants[0].name == "rs1"
    assert variants[1].where.endswith("a.vcf, line 9")


@pytest.mark.parametrize("kind", ["vcf", "vcf.gz", "bcf"])
def test_scores_are_added_and_all_else_stays(write, tmp_path, kind):
    source = write("a.vcf", VCF)
    if kind == "vcf.gz":
        source = tmp_path / "b.vcf.gz"
        with pysam.BGZFile(str(source), "wb") as out:
            out.write(VCF)
    elif kind == "bcf":
        # pysam writes INFO/END for <DEL>, and damages the file unless the header declares it.
        end = b'##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n#CHROM'
        plain, source = write("a.vcf", VCF.replace(b"#CHROM", end)), tmp_path / "b.bcf"
        with (
            pysam.VariantFile(str(plain)) as file,
            pysam.VariantFile(str(source), "wb", header=file.header) as out,
        ):
            for record in file:
                out.write(record)
    path = tmp_path / "out" / "scored.vcf.gz"
    path.parent.mkdir()
    write_scored_variants(path, source, FIELDS, one_by_one(score))
    assert sorted(file.name for file in path.parent.iterdir()) == ["scored.vcf.gz", "scored.vcf.gz.tbi"]
    with pysam.VariantFile(str(path)) as found, pysam.VariantFile(str(source)) as before:
        assert str(found.header).startswith("##fileformat=VCFv4.2")
        assert found.header.info["LLR"].description == "score of 'each' ALT"
        for record, original, variant in zip(found, before, read_variants(source), strict=True):
            expected = score(variant)
            assert variant.interval.start == original.start
            assert record.info.get("WIN") == expected.get("WIN")
            assert record.info.get("LLR") == expected.get("LLR")
            assert record.info.get("DP") == original.info.get("DP")
            assert record.samples["s1"]["GT"] == original.samples["s1"]["GT"]
            assert str(record).split("\t")[:7] == str(original).split("\t")[:7]
        assert [record.pos for record in found.fetch("d", 0, 50)] == [7]
        assert [record.pos for record in found.fetch("c", 5, 50)] == [10, 10]


def test_columns_are_copied_as_they_are(write, tmp_path):
    write_scored_variants(tmp_path / "o.vcf.gz", write("a.vcf", VCF), FIELDS, one_by_one(score))
    with pysam.BGZFile(str(tmp_path / "o.vcf.gz")) as file:
        lines = file.read().splitlines()
    assert [line for line in VCF.splitlines() if line.startswith(b"##")] == lines[:6]
    assert lines[9] == b"c\t1\trs1\tA\tC,G\t50\tPASS\tDP=3;LLR=-1.5,-3;WIN=64\tGT\t0/1"
    assert lines[12] == VCF.splitlines()[-1]


def test_twice_the_same_file(write, tmp_path):
    source = write("a.vcf", VCF)
    for name in ("1.vcf.gz", "2.vcf.gz"):
        write_scored_variants(tmp_path / name, source, FIELDS, one_by_one(score))
    assert (tmp_path / "1.vcf.gz").read_bytes() == (tmp_path / "2.vcf.gz").read_bytes()
    # What is scored already can be scored again.
    write_scored_variants(tmp_path / "3.vcf.gz", tmp_path / "1.vcf.gz", FIELDS, one_by_one(score))
    assert len(list(read_variants(tmp_path / "3.vcf.gz"))) == 4


def test_filters_join_those_that_are_there(write, tmp_path):
    found = [("odd",), ("odd",), (), ("odd",)]

    def score(variants):
        return (Scored({}, filters) for _, filters in zip(list(variants), found, strict=True))

    source = write("a.vcf", VCF)
    for name in ("1.vcf.gz", "2.vcf.gz"):
        write_scored_variants(tmp_path / name, source, [], score, [Filter("odd", "not even")])
        source = tmp_path / name
    with pysam.VariantFile(str(source)) as file:
        assert file.header.filters["odd"].description == "not even"
        assert [list(record.filter) for record in file] == [["odd"], ["q10", "odd"], [], ["odd"]]
    assert (tmp_path / "1.vcf.gz").read_bytes() == (tmp_path / "2.vcf.gz").read_bytes()
    write_scored_variants(
        tmp_path / "3.vcf.gz", source, [], one_by_one(lambda v: {}), [Filter("odd", "not even")]
    )
    with pysam.VariantFile(str(tmp_path / "3.vcf.gz")) as file:
        assert [list(record.filter) for record in file] == [[], ["q10"], [], []]


def test_a_score_too_few_is_found(write, tmp_path):
    def score(variants):
        return (Scored({}) for _ in list(variants)[1:])

    with pytest.raises(ValueError, match="1 variants were not scored"):
        write_scored_variants(tmp_path / "o.vcf.gz", write("in/a.vcf", VCF), [], score)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("length", "position", "info", "index"),
    [
        (600_000_000, 7, ".", "csi"),
        (None, 600_000_000, ".", "csi"),
        (None, 7, "END=600000000", "csi"),
        (1 << 29, 7, ".", "tbi"),
        (None, 1 << 29, ".", "tbi"),
        (None, (1 << 29) + 1, ".", "csi"),
    ],
)
def test_the_index_is_one_that_can_hold_the_positions(write, tmp_path, length, position, info, index):
    contig = "##contig=<ID=c" + (f",length={length}" if length else "") + ">\n"
    line = f"c\t{position}\tv\tA\tC\t.\t.\t{info}\n"
    end = '##INFO=<ID=END,Number=1,Type=Integer,Description="End">\n'
    text = f"##fileformat=VCFv4.2\n{contig}{end}{COLUMNS}{line}"
    path = tmp_path / "o.vcf.gz"
    for ending in ("tbi", "csi"):
        Path(f"{path}.{ending}").write_bytes(b"of an earlier file")
    write_scored_variants(path, write("in/a.vcf", text.encode()), FIELDS, one_by_one(lambda variant: {}))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "o.vcf.gz", f"o.vcf.gz.{index}"]
    with pysam.VariantFile(str(path)) as file:
        assert [record.id for record in file.fetch("c", position - 1, position)] == ["v"]
        assert list(file.fetch("c", 100, 200)) == [] or info != "."


def test_provenance_is_kept_for_each_field(write, tmp_path):
    """Scored again, a file has what made the scores that it has."""
    source = write("a.vcf", VCF)
    other = [InfoField("OTHER", "1", "Float", "o")]
    for number, (fields, made) in enumerate([(FIELDS, "one"), (other, "two"), (FIELDS, "three")]):
        path = tmp_path / f"{number}.vcf.gz"
        write_scored_variants(path, source, fields, one_by_one(lambda variant: {}), provenance=made)
        source = path
    with pysam.VariantFile(str(source)) as file:
        found = {r.key: r.value for r in file.header.records if r.key.endswith("_provenance")}
    assert found == {f"{FIELDS[0].name}_provenance": "three", "OTHER_provenance": "two"}


def test_a_contig_that_the_header_lacks_is_read_and_written(write, tmp_path):
    source = write("a.vcf", VCF.replace(b"##contig=<ID=c,length=100>\n", b""))
    write_scored_variants(tmp_path / "o.vcf.gz", source, FIELDS, one_by_one(score))
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        assert [record.chrom for record in file] == ["c", "c", "c", "d"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"c\t1\t", b"c\t11\t", "line 9: comes after position 11: expected a sorted file"),
        (b"c\t10\t.\tN", b"d\t10\t.\tN", "line 11: comes after position 10: expected a sorted file"),
        (b"c\t10\t.\tACG", b"d\t1\t.\tACG", "line 10: 'c' comes again: expected a sorted file"),
        (
            b"##INFO=<ID=DP,Number=1",
            b"##INFO=<ID=LLR,Number=1",
            "'LLR' is declared as Number=1, Type=Integer",
        ),
    ],
)
def test_what_cannot_be_scored_leaves_nothing(write, tmp_path, old, new, message):
    source = write("in/a.vcf", VCF.replace(old, new))
    path = tmp_path / "o.vcf.gz"
    with pytest.raises(UserError) as caught:
        write_scored_variants(path, source, FIELDS, one_by_one(score))
    assert message in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_an_error_while_scoring_leaves_what_was_there(write, tmp_path):
    source, path = write("in/a.vcf", VCF), tmp_path / "o.vcf.gz"
    path.write_bytes(b"before")

    def fail(variant):
        raise RuntimeError(variant.where)

    with pytest.raises(RuntimeError):
        write_scored_variants(path, source, FIELDS, one_by_one(fail))
    assert path.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "o.vcf.gz"]


def test_scores_keep_float32_precision(write, tmp_path):
    values = iter(np.float32([0.1, -12.345678, 1e-8]).tolist() * 2)
    write_scored_variants(
        tmp_path / "o.vcf.gz", write("a.vcf", VCF), FIELDS[:1],
        one_by_one(lambda v: {"LLR": tuple(next(values) for _ in v.alternatives)} if v.alternatives else {}),
    )  # fmt: skip
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        found = [value for record in file for value in record.info.get("LLR", ())]
    np.testing.assert_allclose(found, np.float32([0.1, -12.345678, 1e-8, 0.1, -12.345678]), rtol=1e-5)
