import pytest

from reformer.genomics.variants.changes import Change


@pytest.mark.parametrize(
    ("reference", "alternative", "expected"),
    [
        ("A", "C", Change(10, 11, "C")),
        ("ac", "aT", Change(11, 12, "T")),
        ("CAG", "CTG", Change(11, 12, "T")),
        ("A", "AT", Change(11, 11, "T")),
        ("AT", "A", Change(11, 12, "")),
        ("TAA", "TA", Change(11, 12, "")),  # in a repeat: where it begins
        ("A", "TA", Change(10, 10, "T")),
        ("AC", "GT", Change(10, 12, "GT")),
        ("A", "A", Change(10, 10, "")),
        ("A", "<DEL>", None),
        ("A", "*", None),
        ("A", "AN", None),
        ("A", "A[c:7[", None),
    ],
)
def test_what_an_allele_changes(reference, alternative, expected):
    assert Change.of(10, reference, alternative) == expected


def test_the_other_strand_of_a_change_changes_the_other_strand():
    letters, complement = "ACGTTGCA", str.maketrans("ACGT", "TGCA")
    change = Change(2, 4, "AAC")
    other = change.on_other_strand(len(letters))
    changed = letters[:2] + "AAC" + letters[4:]
    flipped = letters.translate(complement)[::-1]
    assert (
        flipped[: other.start] + other.inserted + flipped[other.end :] == changed.translate(complement)[::-1]
    )
