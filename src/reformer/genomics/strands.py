"""A sequence of a genome read along one of its strands, as letters or as a model's token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import EXPECTED_LETTERS, NOT_A_NUCLEOTIDE, nucleotide_table
from reformer.data.vocabularies import LowerCase, vocabulary
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.genome import Genome
from reformer.genomics.variants.changes import Change

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenIds = npt.NDArray[np.uint8]

IS_BASE = np.zeros(256, dtype=np.bool_)
"""Which token ids are A, C, G or T, in either case."""
IS_BASE[[token_id for token, token_id in vocabulary("nucleotide", "keep").items() if token in "ACGTacgt"]] = (
    True
)


@dataclass(frozen=True)
class StrandedSequence:
    """One strand of one sequence; positions count from 0 in the direction of reading.

    Attributes:
        genome: where the letters are.
        name: of the sequence.
        strand: "+" or "-", the reverse complement.
        lower_case: what the model was trained to do with lower-case letters.
    """

    genome: Genome
    name: str
    strand: Strand
    lower_case: LowerCase

    def __len__(self) -> int:
        return self.genome.lengths[self.name]

    def letters(self, start: int, end: int) -> str:
        """The letters of [start, end), as they stand in the file or as the other strand has them."""
        interval = Interval(self.name, start, end, self.strand)
        if self.strand == "-":
            flipped = interval.on_other_strand(len(self))
            interval = Interval(self.name, flipped.start, flipped.end, "-")
        return self.genome.letters(interval)

    def ids(self, start: int, end: int) -> TokenIds:
        """The token ids of [start, end), uint8.

        Raises:
            UserError: a letter that is no nucleotide.
        """
        return self.ids_of(self.letters(start, end), f"{self.genome.path}: in {self.name!r}")

    def ids_of(self, letters: str, where: str) -> TokenIds:
        """The token ids of letters; `where` they come from is named in the error."""
        ids = np.frombuffer(letters.encode().translate(nucleotide_table(self.lower_case)), dtype=np.uint8)
        if NOT_A_NUCLEOTIDE in ids:
            wrong = letters[int(np.argmax(ids == NOT_A_NUCLEOTIDE))]
            raise UserError(f"{where}: {wrong!r} is not a nucleotide letter; expected {EXPECTED_LETTERS}")
        return ids


def changed_ids(sequence: StrandedSequence, change: Change, first: int, end: int) -> TokenIds:
    """The bases [first, end) once the sequence is changed, `end` counted in the changed one.

    Inserted bases have the case of the base that they stand before, so that case is no part of the change.
    """
    before = sequence.letters(first, change.start)
    at = sequence.letters(change.start, min(change.start + 1, len(sequence)))
    inserted = (change.inserted.lower() if at.islower() else change.inserted)[: end - change.start]
    missing = end - change.start - len(inserted)
    behind = sequence.letters(change.end, change.end + missing)
    return sequence.ids_of(before + inserted + behind, f"{sequence.genome.path}: in {sequence.name!r}")


def model_lower_case(tokenizer: PreTrainedTokenizerBase, owner: Any) -> LowerCase:
    """What a model's tokenizer does with lower-case letters; UserError if it is not one of nucleotides."""
    from reformer.data.tokenizers import NucleotideTokenizer

    if not isinstance(tokenizer, NucleotideTokenizer):
        raise UserError(f"{owner}: a model of {type(tokenizer).__name__}: expected one of nucleotides")
    return tokenizer.lower_case
