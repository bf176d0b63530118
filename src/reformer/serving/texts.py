"""The sequences of a request as a model's token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import NOT_A_NUCLEOTIDE, nucleotide_table
from reformer.data.tokenizers import NucleotideTokenizer
from reformer.errors import UserError
from reformer.serving.requests import Sequences

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TokenIds = npt.NDArray[Any]
"""Integers ``[T]``, uint8 of nucleotides."""


class Texts:
    """Reads sequences, and refuses what a model cannot take.

    Args:
        tokenizer: the model's.
        model: what has a `config`.
        max_length: tokens of the longest sequence, unless the model has fewer positions.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: Any, max_length: int) -> None:
        self._tokenizer = tokenizer
        self.max_length = min(max_length, model.config.longest_input or max_length)

    def ids(self, text: str, where: str, num_new: int = 0) -> TokenIds:
        """The token ids of a text.

        Args:
            text: letters.
            where: it stands in the request, for errors.
            num_new: tokens that are to follow.

        Raises:
            UserError: for what is no letter of the alphabet, and for too many tokens.
        """
        try:
            ids = self._ids(text)
        except UserError as error:
            raise UserError(f"{where}: {error}") from error
        if len(ids) + num_new > self.max_length:
            new = f" and {num_new:,} new ones" if num_new else ""
            raise UserError(f"{where}: {len(ids):,} tokens{new}: expected {self.max_length:,} at most")
        return ids

    def all_ids(self, request: Sequences) -> list[TokenIds]:
        """The token ids of every sequence of a request."""
        return [self.ids(text, f"sequences.{number}") for number, text in enumerate(request.sequences)]

    def _ids(self, text: str) -> TokenIds:
        if isinstance(self._tokenizer, NucleotideTokenizer):  # a hundred times as fast as transformers' way
            letters = text.encode("ascii", errors="replace")
            ids = np.frombuffer(letters.translate(nucleotide_table(self._tokenizer.lower_case)), np.uint8)
            if NOT_A_NUCLEOTIDE not in ids:
                return ids
        return np.array(self._tokenizer(text, split_special_tokens=True)["input_ids"], dtype=np.int64)
