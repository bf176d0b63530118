import pytest

from reformer.data.names import check_names
from reformer.errors import UserError


def test_names_of_the_genome_pass():
    check_names(["1", "2", "1"], "a.gff", ["1", "2", "3"], "g.fa")


@pytest.mark.parametrize(
    ("name", "genome", "found"),
    [
        ("chr1", ["1", "2"], "1"),
        ("1", ["chr2", "chr1"], "chr1"),
        ("NC_001133", ["NC_001133.9"], "NC_001133.9"),
        ("chrM", ["MT"], "MT"),
        ("CHRX", ["chrX"], "chrX"),
    ],
)
def test_an_other_name_of_the_same_sequence_is_named(name, genome, found):
    with pytest.raises(UserError) as caught:
        check_names([name], "a.gff", genome, "g.fa")
    expected = (
        f"a.gff: sequence {name!r} is not in g.fa, which has {found!r}: expected the same names in both files"
    )
    assert str(caught.value) == expected


def test_names_that_nothing_is_like_come_with_examples():
    with pytest.raises(UserError) as caught:
        check_names(["p", "q", "r", "s", "t"], "a.vcf", ["1", "2"], "g.fa")
    assert str(caught.value) == (
        "a.vcf: 'p', 'q', 'r' and 2 more not in g.fa, which has '1', '2': "
        "expected the same names in both files"
    )
