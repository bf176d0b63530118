import numpy as np
import pytest

from reformer.data.nucleotides import nucleotide_table
from reformer.genomics.base_encoding import (
    LETTER_OF_TOKEN,
    BaseEncoding,
    anchored_labels,
    by_frame,
    known_bases,
)
from reformer.genomics.classes import ClassScheme

SCHEME = ClassScheme()


def tokens(letters, case="fold"):
    return np.frombuffer(letters.encode().translate(nucleotide_table(case)), dtype=np.uint8)


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_a_token_is_the_kmer_around_its_base_and_the_place_modulo_3(k):
    letters = "".join(np.random.default_rng(k).choice(list("ACGTN"), 200, p=[0.24] * 4 + [0.04]))
    ids = BaseEncoding(k).ids(tokens(letters), first=1)
    before = (k - 1) // 2
    padded = "N" * before + letters + "N" * k
    for p in range(200):
        kmer = padded[p : p + k]
        number = 4**k if "N" in kmer else int("".join(str("ACGT".index(b)) for b in kmer), 4)
        assert ids[p] == number + (p + 1) % 3 * (4**k + 1)
    assert ids.max() < BaseEncoding(k).vocab_size


def test_case_and_letters():
    assert np.array_equal(BaseEncoding().ids(tokens("acgtn", "keep")), BaseEncoding().ids(tokens("ACGTN")))
    assert tokens("AcgTNn", "keep").tobytes().translate(LETTER_OF_TOKEN) == b"ACGTNN"
    assert known_bases(tokens("ACRT")).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="k is 9"):
        BaseEncoding(9)


@pytest.mark.parametrize("first", [0, 1, 5])
@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_anchor_is_the_same_all_along_an_exon(first, strand):
    frames = np.arange(30) % 3 if strand == "+" else np.arange(30)[::-1] % 3
    labels = np.array([SCHEME.number("CDS", strand, int(frame)) for frame in frames], dtype=np.uint8)
    (anchor,) = set(anchored_labels(SCHEME, labels, first).tolist())
    assert SCHEME.names[anchor] == f"CDS{strand}{first % 3}"  # where the codons begin


def test_frames_come_back_from_anchors():
    labels = np.random.default_rng(0).integers(0, len(SCHEME.names), 500).astype(np.uint8)
    one_hot = np.eye(len(SCHEME.names))[anchored_labels(SCHEME, labels, 2)]
    assert np.array_equal(by_frame(SCHEME, one_hot, 2).argmax(axis=1), labels)


def test_without_frames_nothing_changes():
    scheme = ClassScheme(by_frame=False)
    labels = np.arange(len(scheme.names), dtype=np.uint8)
    assert np.array_equal(anchored_labels(scheme, labels), labels)
