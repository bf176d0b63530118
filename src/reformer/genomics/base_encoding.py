"""How a model that labels bases reads them, and in which terms it labels them.

A coding sequence is read three bases at a time, and what tells it from other sequence is which codons come at
every third base. So the model's token for a base is the k-mer around it together with the base's position
modulo 3, and of a coding base it says where, modulo 3, the codons of the gene begin (its anchor) rather than
the base's own place in the codon. Both follow from each other, but the anchor is the same all along an exon:
the model then has to average what it sees, not to count to three. Positions count from wherever the window
begins; nothing depends on where that is but the names of the three anchors.

The token also says which open reading frame, from a start to a stop codon, is the longest at the base: its
strand, its anchor and its length in steps. It may reach far beyond a window that is trained on, so that it is
found in the whole sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.data.vocabularies import NUCLEOTIDES, vocabulary
from reformer.errors import UserError
from reformer.genomics.annotation.classes import ClassScheme, Labels
from reformer.training.json_file import read_json

Ints = npt.NDArray[np.int64]

UNKNOWN_BASE = NUCLEOTIDES.index("N")
ORF_LENGTHS = (90, 300, 600)
"""Chance makes few open reading frames of 300 bases, and hardly one of 600."""

_LARGEST_K = 8
_SETTINGS_FILES = ("annotation.json", "classification.json")
_MOST_STEPS = 40  # frames fit into a byte


def _base_of_token() -> Ints:
    bases = np.full(256, UNKNOWN_BASE, dtype=np.int64)
    for token, number in vocabulary("nucleotide", "keep").items():
        if token.upper() in NUCLEOTIDES:
            bases[number] = NUCLEOTIDES.index(token.upper())
    return bases


_BASE_OF_TOKEN = _base_of_token()
LETTER_OF_TOKEN = bytes(NUCLEOTIDES[base].encode()[0] for base in _BASE_OF_TOKEN)
"""For `bytes.translate`: nucleotide token ids to upper-case letters, special tokens to N."""


@dataclass(frozen=True)
class BaseEncoding:
    """What the tokens of a model that labels bases are.

    Attributes:
        k: bases of a k-mer, 0 to 8; the base that it stands for is in its middle, left of it where k is even;
            0 for tokens that say of the letter only whether it is known.
        orf_lengths: the fewest bases of an open reading frame in each step of length; none for no frames.
        starts: codons that an open reading frame begins with.
        stops: codons that end it.

    Raises:
        ValueError: k or the lengths are out of range.
    """

    k: int = 3
    orf_lengths: tuple[int, ...] = ORF_LENGTHS
    starts: tuple[str, ...] = ("ATG",)
    stops: tuple[str, ...] = ("TAA", "TAG", "TGA")

    def __post_init__(self) -> None:
        for field in ("orf_lengths", "starts", "stops"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not 0 <= self.k <= _LARGEST_K:
            raise ValueError(f"k is {self.k}: expected 0 to {_LARGEST_K}")
        if list(self.orf_lengths) != sorted(set(self.orf_lengths)) or len(self.orf_lengths) > _MOST_STEPS:
            raise ValueError(
                f"orf_lengths {list(self.orf_lengths)}: expected up to {_MOST_STEPS}, from small to large"
            )

    @property
    def vocab_size(self) -> int:
        """k-mers, among them one that holds an N or an end of the window, times places, times frames."""
        return 3 * (4**self.k + 1) * (1 + 6 * len(self.orf_lengths))

    @property
    def complement(self) -> Ints:
        """For each of the model's tokens what it is on the other strand, int64 ``[vocab_size]``.

        A sequence of n bases, of which the first is at position n, has the reverse complement's tokens in the
        reverse order once each is replaced by this.

        Raises:
            ValueError: k is even, so that a k-mer has no middle.
        """
        if self.k and self.k % 2 == 0:
            raise ValueError(f"k is {self.k}: expected an odd number, or k-mers have no middle")
        kmers = np.arange(4**self.k)
        digits = [kmers // 4**i % 4 for i in range(self.k)]  # the last base first
        number = np.zeros_like(kmers)
        for digit in digits:
            number = 4 * number + 3 - digit
        other_kmer = np.append(number, 4**self.k)
        codes = np.arange(1 + 6 * len(self.orf_lengths))
        steps, strands, anchors = (codes - 1) // 6, (codes - 1) // 3 % 2, (codes - 1) % 3
        other_frame = np.where(codes > 0, 1 + 6 * steps + 3 * (1 - strands) + -anchors % 3, 0)
        ids = np.arange(self.vocab_size)
        kmer, place, frame = ids % len(other_kmer), ids // len(other_kmer) % 3, ids // len(other_kmer) // 3
        return other_kmer[kmer] + len(other_kmer) * (2 - place + 3 * other_frame[frame])

    def frames(self, tokens: npt.NDArray[np.uint8]) -> Labels:
        """Finds the longest open reading frame at each base of a sequence.

        Args:
            tokens: ``[bases]``, of a `TokenArray`.

        Returns:
            uint8 ``[bases]``: 0 where there is none of the smallest length, or several are as long, else 1 +
            6 step + 3 strand + anchor, where the anchor counts from the first base.
        """
        if not self.orf_lengths:
            return np.zeros(len(tokens), dtype=np.uint8)
        bases = _BASE_OF_TOKEN[tokens]
        plus = _orf_lengths(bases, self.starts, self.stops)
        other = np.where(bases == UNKNOWN_BASE, UNKNOWN_BASE, 3 - bases)[::-1]
        minus = _orf_lengths(other, self.starts, self.stops)[:, ::-1]
        # A codon that begins at q on the other strand begins, from left to right, at n - 3 - q.
        minus = minus[[(len(bases) - anchor) % 3 for anchor in range(3)]]
        lengths = np.concatenate([plus, minus])
        best, longest = lengths.argmax(axis=0), lengths.max(axis=0)
        step = np.searchsorted(self.orf_lengths, longest, side="right")
        is_one = (lengths == longest).sum(axis=0) == 1  # of several, any choice would prefer a strand
        return np.where((step > 0) & is_one, 1 + 6 * (step - 1) + best, 0).astype(np.uint8)

    def ids(self, tokens: npt.NDArray[np.uint8], first: int = 0, frames: Labels | None = None) -> Ints:
        """Reads nucleotide token ids ``[bases]`` as the model's, int64 ``[bases]``.

        Args:
            tokens: of a `TokenArray`.
            first: position of the first base.
            frames: open reading frames, anchors counted from the first of `tokens`; by default found in them.
        """
        bases = _BASE_OF_TOKEN[tokens]
        before, behind = max(self.k - 1, 0) // 2, self.k // 2
        padded = np.pad(bases, (before, behind), constant_values=UNKNOWN_BASE)
        number, known = np.zeros_like(bases), bases != UNKNOWN_BASE
        for shift in range(self.k):
            base = padded[shift : shift + len(bases)]
            known &= base != UNKNOWN_BASE
            number = 4 * number + np.minimum(base, 3)
        number[~known] = 4**self.k
        frames = moved_frames(self.frames(tokens) if frames is None else frames, first)
        places = (np.arange(len(bases)) + first) % 3
        return number + (4**self.k + 1) * (places + 3 * frames.astype(np.int64))


def saved_encoding(folder: Path) -> BaseEncoding | None:
    """The encoding of a trained model's tokens, which its settings hold; None where they hold none.

    Raises:
        UserError: when the settings are damaged.
    """
    for file in (folder / name for name in _SETTINGS_FILES):
        if file.exists():
            try:
                return BaseEncoding(**read_json(file)["encoding"])
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{file}: damaged: {error}") from error
    return None


def moved_frames(frames: Labels, by: int) -> Labels:
    """Open reading frames whose anchors count from `by` bases further left."""
    anchors = (frames.astype(np.int64) - 1) % 3
    return np.where(frames > 0, frames - anchors + (anchors + by) % 3, 0).astype(np.uint8)


def _orf_lengths(bases: Ints, starts: tuple[str, ...], stops: tuple[str, ...]) -> Ints:
    """Bases of the open reading frame at each base, for each anchor, int64 ``[3, bases]``; 0 for none."""
    lengths = np.zeros((3, len(bases)), dtype=np.int64)
    for anchor in range(3):
        num_codons = max(len(bases) - anchor, 0) // 3
        if num_codons == 0:
            continue
        codons = bases[anchor : anchor + 3 * num_codons].reshape(-1, 3)
        number = np.where((codons == UNKNOWN_BASE).any(axis=1), -1, codons @ (16, 4, 1))
        is_start, is_stop = (np.isin(number, [_codon(text) for text in texts]) for texts in (starts, stops))
        stretch: Ints = np.cumsum(is_stop) - is_stop  # a stop codon belongs to what it ends
        first_start = np.full(int(stretch[-1]) + 1, num_codons)
        np.minimum.at(first_start, stretch[is_start], np.flatnonzero(is_start))
        ends = np.append(np.flatnonzero(is_stop) + 1, num_codons)[: len(first_start)]
        inside = np.arange(num_codons) >= first_start[stretch]
        per_codon = np.where(inside, 3 * (ends - first_start)[stretch], 0)
        lengths[anchor, anchor : anchor + 3 * num_codons] = np.repeat(per_codon, 3)
    return lengths


def _codon(text: str) -> int:
    return sum(NUCLEOTIDES.index(letter) * weight for letter, weight in zip(text, (16, 4, 1), strict=True))


def anchored_labels(scheme: ClassScheme, labels: Labels, first: int = 0) -> Labels:
    """Puts anchors in the place of frames, in labels ``[bases]`` whose first is at position `first`."""
    anchors = _anchor_of_frame(scheme)
    places = (np.arange(len(labels)) + first) % 3
    return anchors[places, labels]


def anchored_complement(scheme: ClassScheme) -> Ints:
    """For each class with an anchor what it is on the other strand, see `BaseEncoding.complement`."""
    names = list(scheme.names)
    swap = str.maketrans("+-12", "-+21")  # a codon that begins at a does, from the other end, at -a
    return np.array([names.index(name.translate(swap)) for name in names])


def by_frame(
    scheme: ClassScheme, probabilities: npt.NDArray[np.floating], first: int = 0
) -> npt.NDArray[np.floating]:
    """Turns probabilities of anchors ``[bases, classes]`` into those of frames."""
    anchors = _anchor_of_frame(scheme)
    places = (np.arange(len(probabilities)) + first) % 3
    return np.take_along_axis(probabilities, anchors[places].astype(np.int64), axis=1)


def known_bases(tokens: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Which tokens are A, C, G or T."""
    return _BASE_OF_TOKEN[tokens] != UNKNOWN_BASE


def _anchor_of_frame(scheme: ClassScheme) -> Labels:
    """uint8 ``[3, classes]``: the class that says with its anchor what a class says with its frame.

    The rows are positions modulo 3. A codon begins `frame` bases to the left of a base on "+", and, as it is
    read from left to right, `2 - frame` on "-".
    """
    table = np.tile(np.arange(len(scheme.names), dtype=np.uint8), (3, 1))
    for number, name in enumerate(scheme.names):
        if name[-1].isdigit():
            frame = int(name[-1])
            left = frame if "+" in name else 2 - frame
            for place in range(3):
                table[place, number] = scheme.names.index(f"{name[:-1]}{(place - left) % 3}")
    return table
