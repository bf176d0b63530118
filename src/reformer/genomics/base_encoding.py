"""How a model that labels bases reads them, and in which terms it labels them.

A coding sequence is read three bases at a time, and what tells it from other sequence is which codons come at
every third base. So the model's token for a base is the k-mer around it together with the base's position
modulo 3, and of a coding base it says where, modulo 3, the codons of the gene begin (its anchor) rather than
the base's own place in the codon. Both follow from each other, but the anchor is the same all along an exon:
the model then has to average what it sees, not to count to three. Positions count from wherever the window
begins; nothing depends on where that is but the names of the three anchors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reformer.data.vocabularies import NUCLEOTIDES, vocabulary
from reformer.genomics.classes import ClassScheme, Labels

Ints = npt.NDArray[np.int64]

UNKNOWN_BASE = NUCLEOTIDES.index("N")
_LARGEST_K = 8


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
        k: bases of a k-mer, 1 to 8; the base that it stands for is in its middle, left of it where k is even.

    Raises:
        ValueError: k is out of range.
    """

    k: int = 3

    def __post_init__(self) -> None:
        if not 1 <= self.k <= _LARGEST_K:
            raise ValueError(f"k is {self.k}: expected 1 to {_LARGEST_K}")

    @property
    def vocab_size(self) -> int:
        """Three times as many tokens as k-mers; one that holds an N, or an end of the window, is one more."""
        return 3 * (4**self.k + 1)

    def ids(self, tokens: npt.NDArray[np.uint8], first: int = 0) -> Ints:
        """Reads nucleotide token ids ``[bases]`` as the model's, int64 ``[bases]``.

        Args:
            tokens: of a `TokenArray`.
            first: position of the first base.
        """
        before = (self.k - 1) // 2
        bases = _BASE_OF_TOKEN[tokens]
        padded = np.pad(bases, (before, self.k - 1 - before), constant_values=UNKNOWN_BASE)
        number, known = np.zeros_like(bases), np.ones(len(bases), dtype=np.bool_)
        for shift in range(self.k):
            base = padded[shift : shift + len(bases)]
            known &= base != UNKNOWN_BASE
            number = 4 * number + np.minimum(base, 3)
        number[~known] = 4**self.k
        return number + (4**self.k + 1) * ((np.arange(len(bases)) + first) % 3)


def anchored_labels(scheme: ClassScheme, labels: Labels, first: int = 0) -> Labels:
    """Puts anchors in the place of frames, in labels ``[bases]`` whose first is at position `first`."""
    anchors = _anchor_of_frame(scheme)
    places = (np.arange(len(labels)) + first) % 3
    return anchors[places, labels]


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
