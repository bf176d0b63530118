import pytest
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from reformer.genomics.coordinates import Interval, reverse_complement

starts = st.integers(0, 10**9)
sizes = st.integers(1, 10**6)
strands = st.sampled_from(["+", "-", "."])


@given(starts, sizes, strands)
def test_closed_and_half_open_are_inverse(start, size, strand):
    interval = Interval("x", start, start + size, strand)
    first, last = interval.closed
    assert last - first + 1 == len(interval) == size
    assert first == start + 1
    assert Interval.from_closed("x", first, last, strand) == interval


def test_an_interval_is_a_slice():
    letters = "ACGTTG"
    assert letters[slice(*_ends(Interval.from_closed("x", 1, 3)))] == "ACG"
    assert letters[slice(*_ends(Interval.from_closed("x", 6, 6)))] == "G"


def _ends(interval):
    return interval.start, interval.end


@given(st.text("ACGTUNRYSWKMBDHVacgtunryswkmbdhv", max_size=60))
def test_reverse_complement_is_biopythons(letters):
    expected = str(Seq(letters.replace("U", "T").replace("u", "t")).reverse_complement())
    assert reverse_complement(letters) == expected


@given(st.text("ACGTN", min_size=1, max_size=60), st.data())
def test_the_other_strand_holds_the_complement(letters, data):
    start = data.draw(st.integers(0, len(letters)))
    end = data.draw(st.integers(start, len(letters)))
    interval = Interval("x", start, end, "+")
    other = interval.on_other_strand(len(letters))
    assert reverse_complement(letters)[other.start : other.end] == reverse_complement(letters[start:end])
    assert other.on_other_strand(len(letters)) == interval


@given(starts, sizes, starts, sizes)
def test_overlap_and_containment_count_bases(a, m, b, n):
    a, b = a % 50, b % 50
    m, n = m % 20 + 1, n % 20 + 1
    one, two = Interval("x", a, a + m, "+"), Interval("x", b, b + n, "-")
    bases, other = set(range(a, a + m)), set(range(b, b + n))
    assert one.overlaps(two) == bool(bases & other)
    assert one.contains(two) == (other <= bases)
    assert not one.overlaps(Interval("y", a, a + m))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interval("x", -1, 2), "interval [-1, 2): expected 0 <= start <= end"),
        (lambda: Interval("x", 3, 2), "interval [3, 2)"),
        (lambda: Interval("x", 1, 2, "plus"), "strand 'plus'"),
        (lambda: Interval.from_closed("x", 0, 2), "bases 0 to 2: expected 1 <= first <= last"),
        (lambda: Interval.from_closed("x", 3, 2), "bases 3 to 2"),
        (lambda: Interval("x", 3, 3).closed, "an empty interval at 3"),
        (lambda: Interval("x", 3, 9).on_other_strand(8), "on a sequence of 8 bases"),
        (lambda: reverse_complement("ACE"), "'E' is not a nucleotide letter"),
    ],
)
def test_what_is_no_interval_is_refused(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)
