"""The letters of a protein and their token ids.

The rule for letters: the twenty amino acids are kept. X and the letters that stand for two of them or for a
rare one (B J O U Z) become X. Case is dropped. Anything else, gaps and stops ("-", "." and "*") included, is
an error.
"""

from __future__ import annotations

from reformer.data.vocabularies import AMINO_ACIDS, UNKNOWN_AMINO_ACID, vocabulary

UNCOMMON_LETTERS = "BJOUXZ"
EXPECTED_AMINO_ACIDS = "one of the twenty amino acids or B J O U X Z"
NOT_AN_AMINO_ACID = 255
"""What `protein_table` holds for a byte that is not the letter of an amino acid."""


def protein_table() -> bytes:
    """Returns a table for `bytes.translate` from letters to token ids, by the rule above."""
    ids = vocabulary("protein", None)
    table = bytearray([NOT_AN_AMINO_ACID]) * 256
    for letter in AMINO_ACIDS + UNCOMMON_LETTERS:
        token_id = ids[letter if letter in AMINO_ACIDS else UNKNOWN_AMINO_ACID]
        table[ord(letter)] = table[ord(letter.lower())] = token_id
    return bytes(table)
