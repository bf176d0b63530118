import numpy as np
import pytest

from reformer.data.nucleotides import nucleotide_table
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.base_encoding import (
    LETTER_OF_TOKEN,
    BaseEncoding,
    anchored_complement,
    anchored_labels,
    by_frame,
    known_bases,
    moved_frames,
)
from reformer.genomics.coordinates import reverse_complement

SCHEME = ClassScheme()


def tokens(letters, case="fold"):
    return np.frombuffer(letters.encode().translate(nucleotide_table(case)), dtype=np.uint8)


@pytest.mark.parametrize("k", [0, 1, 2, 3, 6])
def test_a_token_is_the_kmer_around_its_base_and_the_place_modulo_3(k):
    letters = "".join(np.random.default_rng(k).choice(list("ACGTN"), 200, p=[0.24] * 4 + [0.04]))
    encoding = BaseEncoding(k, orf_lengths=())
    ids = encoding.ids(tokens(letters), first=1)
    before = max(k - 1, 0) // 2
    padded = "N" * before + letters + "N" * k
    for p in range(200):
        kmer = padded[p : p + k]
        is_known = "N" not in kmer + letters[p]
        number = int("0" + "".join(str("ACGT".index(b)) for b in kmer), 4) if is_known else 4**k
        assert ids[p] == number + (p + 1) % 3 * (4**k + 1)
    assert ids.max() < encoding.vocab_size


def test_case_and_letters():
    assert np.array_equal(BaseEncoding().ids(tokens("acgtn", "keep")), BaseEncoding().ids(tokens("ACGTN")))
    assert tokens("AcgTNn", "keep").tobytes().translate(LETTER_OF_TOKEN) == b"ACGTNN"
    assert known_bases(tokens("ACRT")).tolist() == [True, True, False, True]
    with pytest.raises(ValueError, match="k is 9"):
        BaseEncoding(9)


def longest_frames(letters, lengths):
    """By the definition: every start codon and the stop that follows it, on both strands."""
    n = len(letters)
    found = [(0, {0})] * n  # bases, and the codes of those that are as long
    for strand, text in enumerate((letters, reverse_complement(letters))):
        for start in range(n - 2):
            if text[start : start + 3] != "ATG":
                continue
            codons = [text[p : p + 3] for p in range(start, n - 2, 3)]
            stop = next((i for i, codon in enumerate(codons) if codon in ("TAA", "TAG", "TGA")), None)
            end = start + 3 * (len(codons) if stop is None else stop + 1)
            left = start if strand == 0 else n - end
            step = sum(end - start >= length for length in lengths)
            for p in range(left, left + end - start):
                code = 1 + 6 * (step - 1) + 3 * strand + left % 3
                if step and end - start > found[p][0]:
                    found[p] = (end - start, {code})
                elif step and end - start == found[p][0]:
                    found[p][1].add(code)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_frames_are_the_longest_from_a_start_to_a_stop(seed):
    letters = "".join(np.random.default_rng(seed).choice(list("ACGT"), 301 + seed))
    frames = BaseEncoding(orf_lengths=(12, 60)).frames(tokens(letters)).tolist()
    assert all(
        code in codes for code, (_, codes) in zip(frames, longest_frames(letters, (12, 60)), strict=True)
    )
    assert {0} < set(frames)


def test_frames_of_the_other_strand_mirror_those_of_this_one():
    letters = "".join(np.random.default_rng(9).choice(list("ACGT"), 400))
    encoding = BaseEncoding(orf_lengths=(30,))
    plus = encoding.frames(tokens(letters)).astype(int)
    minus = encoding.frames(tokens(reverse_complement(letters))).astype(int)[::-1]
    assert np.array_equal(plus > 0, minus > 0)
    strand = {a: (code - 1) // 3 for a, code in enumerate(plus) if code}
    differing = [p for p, side in strand.items() if (minus[p] - 1) // 3 == side]
    assert len(differing) < len(strand) / 10  # ties


def test_moving_frames_moves_their_anchors():
    frames = np.arange(13, dtype=np.uint8)
    moved = moved_frames(frames, 1)
    assert moved.tolist() == [0, 2, 3, 1, 5, 6, 4, 8, 9, 7, 11, 12, 10]
    assert np.array_equal(moved_frames(moved, -1), frames)


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


@pytest.mark.parametrize("length", [300, 301, 302])
@pytest.mark.parametrize("k", [0, 1, 3, 5])
def test_the_other_strand_has_the_complement_of_every_token_and_label(k, length):
    generator = np.random.default_rng(length)
    words = ["ATG", "CAT", "TAA", "TTA", "A", "C", "G", "T", "N", "GC"]
    letters = "".join(generator.choice(words, length))[:length]
    encoding = BaseEncoding(k, orf_lengths=(9, 21))
    assert np.unique(encoding.frames(tokens(letters))).size > 3
    first = length % 3
    here = encoding.ids(tokens(letters), first)
    there = encoding.ids(tokens(reverse_complement(letters)), first)
    np.testing.assert_array_equal(encoding.complement[here][::-1], there)
    np.testing.assert_array_equal(encoding.complement[encoding.complement], np.arange(encoding.vocab_size))
    labels = generator.integers(len(SCHEME.names), size=length).astype(np.uint8)
    anchored = anchored_labels(SCHEME, labels, first)
    other = anchored_labels(SCHEME, SCHEME.reverse_complement(labels), first)
    np.testing.assert_array_equal(anchored_complement(SCHEME)[anchored][::-1], other)


def test_kmers_without_a_middle_have_no_complement():
    with pytest.raises(ValueError, match="k is 4: expected an odd number"):
        BaseEncoding(4).complement  # noqa: B018
