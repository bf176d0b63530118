import numpy as np
import pysam
import pytest

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.variants import InfoField, read_variants, variant_sequences, write_scored_variants

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
FIELDS = [InfoField("LLR", "A", "Float", 'score of "each" ALT'), InfoField("WIN", "1", "Integer", "window")]


def score(variant):
    values = tuple(-1.5 * (i + 1) for i in range(len(variant.alternatives)))
    return {"LLR": values, "WIN": 64} if values else {}


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
    if kind != "vcf":
        packed = tmp_path / f"b.{kind}"
        with (
            pysam.VariantFile(str(source)) as file,
            pysam.VariantFile(str(packed), "wb" if kind == "bcf" else "wz", header=file.header) as out,
        ):
            for record in file:
                out.write(record)
        source = packed
    path = tmp_path / "out" / "scored.vcf.gz"
    path.parent.mkdir()
    write_scored_variants(path, source, FIELDS, score)
    assert sorted(file.name for file in path.parent.iterdir()) == ["scored.vcf.gz", "scored.vcf.gz.tbi"]
    with pysam.VariantFile(str(path)) as found, pysam.VariantFile(str(source)) as before:
        assert str(found.header).startswith("##fileformat=VCFv4.2")
        assert found.header.info["LLR"].description == "score of 'each' ALT"
        for record, original in zip(found, before, strict=True):
            expected = score(next(v for v in read_variants(source) if str(v.interval.start) == str(original.start)
                                  and v.reference == original.ref))  # fmt: skip
            assert record.info.get("WIN") == expected.get("WIN")
            assert record.info.get("LLR") == expected.get("LLR")
            assert record.info.get("DP") == original.info.get("DP")
            assert record.samples["s1"]["GT"] == original.samples["s1"]["GT"]
            assert str(record).split("\t")[:7] == str(original).split("\t")[:7]
        assert [record.pos for record in found.fetch("d", 0, 50)] == [7]
        assert [record.pos for record in found.fetch("c", 5, 50)] == [10, 10]


def test_twice_the_same_file(write, tmp_path):
    source = write("a.vcf", VCF)
    for name in ("1.vcf.gz", "2.vcf.gz"):
        write_scored_variants(tmp_path / name, source, FIELDS, score)
    assert (tmp_path / "1.vcf.gz").read_bytes() == (tmp_path / "2.vcf.gz").read_bytes()
    # What is scored already can be scored again.
    write_scored_variants(tmp_path / "3.vcf.gz", tmp_path / "1.vcf.gz", FIELDS, score)
    assert len(list(read_variants(tmp_path / "3.vcf.gz"))) == 4


def test_names_for_the_comparison_with_a_genome(write):
    assert variant_sequences(write("a.vcf", VCF)) == {"c", "d"}


def test_a_contig_that_the_header_lacks_is_read_and_written(write, tmp_path):
    source = write("a.vcf", VCF.replace(b"##contig=<ID=c,length=100>\n", b""))
    write_scored_variants(tmp_path / "o.vcf.gz", source, FIELDS, score)
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        assert [record.chrom for record in file] == ["c", "c", "c", "d"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"c\t1\t", b"c\t11\t", "line 9: comes after position 11: expected a sorted file"),
        (b"c\t10\t.\tN", b"d\t10\t.\tN", None),
        (b"d\t7\t", b"d\t7\t", None),
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
    if message is None:
        write_scored_variants(path, source, FIELDS, score)
        return
    with pytest.raises(UserError) as caught:
        write_scored_variants(path, source, FIELDS, score)
    assert message in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_an_error_while_scoring_leaves_what_was_there(write, tmp_path):
    source, path = write("in/a.vcf", VCF), tmp_path / "o.vcf.gz"
    path.write_bytes(b"before")

    def fail(variant):
        raise RuntimeError(variant.where)

    with pytest.raises(RuntimeError):
        write_scored_variants(path, source, FIELDS, fail)
    assert path.read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in", "o.vcf.gz"]


def test_scores_keep_float32_precision(write, tmp_path):
    values = iter(np.float32([0.1, -12.345678, 1e-8]).tolist() * 2)
    write_scored_variants(
        tmp_path / "o.vcf.gz", write("a.vcf", VCF), FIELDS[:1],
        lambda v: {"LLR": tuple(next(values) for _ in v.alternatives)},
    )  # fmt: skip
    with pysam.VariantFile(str(tmp_path / "o.vcf.gz")) as file:
        found = [value for record in file for value in record.info.get("LLR", ())]
    np.testing.assert_allclose(found, np.float32([0.1, -12.345678, 1e-8, 0.1, -12.345678]), rtol=1e-5)
