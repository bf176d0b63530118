"""The letters of a nucleotide sequence, their token ids, and the reverse complement.

The rule for letters: A, C, G and T are kept and U is read as T. N and the IUPAC letters that stand for
several bases (R Y S W K M B D H V) become N. Anything else, gaps ("-" and ".") included, is an error. With
``lower_case="fold"`` case is dropped; with ``"keep"`` the same rule leads to lower-case tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from reformer.data.vocabularies import NUCLEOTIDES, LowerCase, vocabulary
from reformer.errors import UserError

if TYPE_CHECKING:
    import torch

Ids = TypeVar("Ids", np.ndarray, "torch.Tensor")

IUPAC_LETTERS = "ABCDGHKMNRSTUVWY"
EXPECTED_LETTERS = "A C G T U N or R Y S W K M B D H V"
NOT_A_NUCLEOTIDE = 255
"""What `nucleotide_table` holds for a byte that is not an IUPAC letter."""


def nucleotide_table(lower_case: LowerCase) -> bytes:
    """Returns a table for `bytes.translate` from letters to token ids, by the rule above.

    Args:
        lower_case: "fold" or "keep".

    Returns:
        256 ids, `NOT_A_NUCLEOTIDE` where the byte is no letter of a nucleotide sequence.
    """
    ids = vocabulary("nucleotide", lower_case)
    table = bytearray([NOT_A_NUCLEOTIDE]) * 256
    for letter in IUPAC_LETTERS:
        base = "T" if letter == "U" else letter if letter in NUCLEOTIDES else "N"
        table[ord(letter)] = ids[base]
        table[ord(letter.lower())] = ids[base.lower() if lower_case == "keep" else base]
    return bytes(table)


def _complement_ids() -> list[int]:
    ids = vocabulary("nucleotide", "keep")
    pairs = str.maketrans("ACGTacgt", "TGCAtgca")
    return [ids[token if len(token) > 1 else token.translate(pairs)] for token in ids]


_COMPLEMENT = _complement_ids()


def complement_ids(vocab_size: int) -> list[int]:
    """For each token id of a nucleotide vocabulary the one that it is on the other strand."""
    return _COMPLEMENT[:vocab_size]


def reverse_complement(ids: Ids) -> Ids:
    """Returns the other strand: ids reversed along the last axis, A and T, C and G exchanged.

    N, case and special tokens stay what they are, so applying it twice gives the input. Special tokens move
    to the other end like any token.

    Args:
        ids: nucleotide token ids, `[..., tokens]`, a NumPy array or torch tensor of any integer dtype.

    Returns:
        A new array or tensor of the same shape, dtype and device.

    Raises:
        UserError: an id that is not in the nucleotide vocabulary.
    """
    if ids.size if isinstance(ids, np.ndarray) else ids.numel():
        smallest, largest = int(ids.min()), int(ids.max())
        if smallest < 0 or largest >= len(_COMPLEMENT):
            wrong = smallest if smallest < 0 else largest
            raise UserError(f"token id {wrong} is not a nucleotide: expected 0 to {len(_COMPLEMENT) - 1}")
    if isinstance(ids, np.ndarray):
        return np.asarray(_COMPLEMENT, dtype=ids.dtype)[ids[..., ::-1]]
    return cast(Ids, ids.new_tensor(_COMPLEMENT)[ids.flip(-1).long()])
