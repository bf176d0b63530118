"""Nucleotide, protein and byte tokenizers for transformers, with the ids that token arrays hold on disk."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from transformers import AutoTokenizer, BatchEncoding, PreTrainedConfig, PreTrainedTokenizer

from reformer.data.nucleotides import EXPECTED_LETTERS, nucleotide_table
from reformer.data.proteins import EXPECTED_AMINO_ACIDS, protein_table
from reformer.data.tokens import TokenArray
from reformer.data.vocabularies import (
    SPECIAL_TOKENS,
    LowerCase,
    check_lower_case,
    check_tokenizer_name,
    vocabulary,
)
from reformer.errors import UserError

_PAD, _BOS, _EOS, _MASK = SPECIAL_TOKENS


class _SymbolTokenizer(PreTrainedTokenizer):
    """A tokenizer with one token per symbol and a fixed vocabulary; whole strings are mapped at a time.

    It adds no special tokens to a text. Special tokens written in a text are read as such, unless
    `split_special_tokens` is true.
    """

    vocab_files_names: dict[str, str] = {}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, token_ids: dict[str, int], **kwargs: Any) -> None:
        self._token_ids = token_ids
        self._tokens = {token_id: token for token, token_id in token_ids.items()}
        for role, token in (("pad", _PAD), ("bos", _BOS), ("eos", _EOS), ("mask", _MASK)):
            if token in token_ids:
                kwargs.setdefault(f"{role}_token", token)
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special tokens included, those added later not."""
        return len(self._token_ids)

    def get_vocab(self) -> dict[str, int]:
        """Returns token -> id, tokens added later included."""
        return self._token_ids | self._added_tokens_encoder

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:  # type: ignore[override]
        """Splits `text` into tokens, one per symbol, with special and added tokens whole."""
        whole = sorted(self._added_tokens_encoder, key=len, reverse=True)
        if not whole or kwargs.get("split_special_tokens", self.split_special_tokens):
            return self._tokenize(text)
        tokens: list[str] = []
        position = 0
        for piece in re.split(f"({'|'.join(map(re.escape, whole))})", text):
            tokens += [piece] if piece in self._added_tokens_encoder else self._tokenize(piece, position)
            position += len(piece)
        return tokens

    def convert_tokens_to_ids(self, tokens: str | list[str]) -> Any:
        """Returns the id of a token, or the ids of a list of tokens."""
        if isinstance(tokens, str):
            return super().convert_tokens_to_ids(tokens)
        try:
            return list(map(self._token_ids.__getitem__, tokens))
        except KeyError:  # a token that was added, or none
            return super().convert_tokens_to_ids(tokens)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Returns the token of an id, or the tokens of a sequence of ids."""
        if isinstance(ids, int):
            return super().convert_ids_to_tokens(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else ()
        try:
            return [self._tokens[i] for i in ids if i not in skipped]
        except KeyError:  # the id of a token that was added, or of none
            return super().convert_ids_to_tokens(ids, skip_special_tokens)

    def _encode_plus(self, text: Any, *args: Any, **kwargs: Any) -> BatchEncoding:
        """Encodes as transformers does, but makes tensors from NumPy rows: from lists it is slow."""
        return_tensors = kwargs.get("return_tensors")
        if return_tensors is None or kwargs.get("return_overflowing_tokens"):
            return super()._encode_plus(text, *args, **kwargs)
        encoding = super()._encode_plus(text, *args, **kwargs | {"return_tensors": None})
        ids = encoding["input_ids"]
        is_single = isinstance(text, str) or bool(ids and isinstance(ids[0], int))
        batch = {key: [value] if is_single else value for key, value in encoding.items()}
        rows = {
            key: [np.asarray(row, dtype=np.int64) if isinstance(row, list) else row for row in value]
            for key, value in batch.items()
        }
        return BatchEncoding(rows, tensor_type=return_tensors)

    def _tokenize(self, text: str, position: int = 0, **kwargs: Any) -> list[str]:
        """Splits text without special tokens; `position` is where it stands in the whole, for errors."""
        raise NotImplementedError

    def _convert_token_to_id(self, token: str) -> int:
        if token not in self._token_ids:
            raise UserError(f"{token!r} is not a token of the {type(self).__name__}")
        return self._token_ids[token]

    def _convert_id_to_token(self, index: int) -> str:
        if index not in self._tokens:
            raise UserError(f"token id {index} is out of range: expected 0 to {len(self) - 1}")
        return self._tokens[index]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Saves nothing: the vocabulary follows from the class and ``tokenizer_config.json``."""
        return ()


class _LetterTokenizer(_SymbolTokenizer):
    """A tokenizer of letters, read by a table; what the table does not know is an error with its position.

    Args:
        token_ids: the vocabulary.
        table: 256 token ids, 255 for what is no letter.
        what: what a letter is called in errors, and which are expected.
        **kwargs: as for any tokenizer of transformers.
    """

    def __init__(self, token_ids: dict[str, int], table: bytes, what: tuple[str, str], **kwargs: Any) -> None:
        letters = {token_id: token for token, token_id in token_ids.items()}
        self._letters = "".join(letters.get(token_id, "\0") for token_id in table).encode("ascii")
        self._what = what
        super().__init__(token_ids, **kwargs)

    def _tokenize(self, text: str, position: int = 0, **kwargs: Any) -> list[str]:
        letters = text.encode("ascii", errors="replace").translate(self._letters)
        if (bad := letters.find(0)) >= 0:
            what, expected = self._what
            raise UserError(f"position {position + bad}: {text[bad]!r} is not {what}; expected {expected}")
        return list(letters.decode("ascii"))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Joins tokens without anything between them."""
        return "".join(tokens)


class NucleotideTokenizer(_LetterTokenizer):
    """One token per base: ``[PAD] [BOS] [EOS] [MASK]``, A C G T N and, if kept, a c g t n, from id 0.

    Letters are read as in a FASTA file, see `reformer.data.nucleotides`: U as T, IUPAC letters for several
    bases as N, and anything else, white space included, is a UserError that names its position (from 0).

    Args:
        lower_case: "fold" drops case (9 tokens in all); "keep" has lower-case tokens (14).
        **kwargs: as for any tokenizer of transformers.
    """

    def __init__(self, lower_case: LowerCase = "fold", **kwargs: Any) -> None:
        self.lower_case = check_lower_case(lower_case)
        super().__init__(
            vocabulary("nucleotide", self.lower_case),
            nucleotide_table(self.lower_case),
            ("a nucleotide letter", EXPECTED_LETTERS),
            lower_case=self.lower_case,
            **kwargs,
        )


class ProteinTokenizer(_LetterTokenizer):
    """One token per residue: ``[PAD] [BOS] [EOS] [MASK]``, the twenty amino acids and X; 25 tokens in all.

    Letters are read by the rule of `reformer.data.proteins`; what is none is a UserError that names its
    position (from 0).
    """

    def __init__(self, **kwargs: Any) -> None:
        what = ("the letter of an amino acid", EXPECTED_AMINO_ACIDS)
        super().__init__(vocabulary("protein", None), protein_table(), what, **kwargs)


class ByteTokenizer(_SymbolTokenizer):
    """One token per byte of the UTF-8 text, ids 0 to 255; ``[PAD] [BOS] [EOS] [MASK]`` are 256 to 259.

    The token of byte b is the character `chr(b)`. By default special tokens written in a text are bytes like
    any others, so that the ids of a text equal those of the token array built from it; pass
    `split_special_tokens=False`, here or in a call, to have them read as special tokens. Decoding bytes that
    are not UTF-8 gives U+FFFD in their place.

    Args:
        split_special_tokens: whether special tokens in a text are split into bytes.
        **kwargs: as for any tokenizer of transformers.
    """

    def __init__(self, split_special_tokens: bool = True, **kwargs: Any) -> None:
        self._bytes = {chr(byte): bytes([byte]) for byte in range(256)}
        super().__init__(self._ids(), split_special_tokens=split_special_tokens, **kwargs)

    @staticmethod
    def _ids() -> dict[str, int]:
        return vocabulary("byte", None)

    def _tokenize(self, text: str, position: int = 0, **kwargs: Any) -> list[str]:
        try:
            return list(text.encode("utf-8").decode("latin-1"))
        except UnicodeEncodeError as error:
            place = position + error.start
            raise UserError(f"position {place}: {text[error.start]!r} cannot be written as UTF-8") from error

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Joins bytes and special tokens and decodes them as UTF-8, with U+FFFD for what is not."""
        joined = b"".join([self._bytes.get(token) or token.encode("utf-8") for token in tokens])
        return joined.decode("utf-8", errors="replace")


class Enwik8Tokenizer(ByteTokenizer):
    """The tokenizer of google/reformer-enwik8: the id of a byte is byte + 2; ``[PAD] [EOS]`` are 0 and 1.

    Otherwise as `ByteTokenizer`; 258 tokens in all.
    """

    @staticmethod
    def _ids() -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate([_PAD, _EOS, *map(chr, range(256))])}


def tokenizer_for(
    array_or_name: TokenArray | str, *, lower_case: LowerCase = "fold"
) -> NucleotideTokenizer | ProteinTokenizer | ByteTokenizer:
    """Returns the tokenizer whose ids a token array holds, or the one of a name.

    Args:
        array_or_name: a token array, or "nucleotide", "byte" or "protein".
        lower_case: policy of the nucleotide tokenizer asked for by name; an array brings its own.

    Raises:
        UserError: unknown name.
    """
    if isinstance(array_or_name, TokenArray):
        name, lower_case = array_or_name.tokenizer_name, array_or_name.lower_case or lower_case
    else:
        name = check_tokenizer_name(array_or_name)
    if name == "nucleotide":
        return NucleotideTokenizer(lower_case)
    return ProteinTokenizer() if name == "protein" else ByteTokenizer()


def register_auto_tokenizers(config_class: type[PreTrainedConfig]) -> None:
    """Lets `AutoTokenizer.from_pretrained` load all classes from folders that hold such a configuration.

    Args:
        config_class: configuration of a model that uses these tokenizers, already known to `AutoConfig`.
    """
    for tokenizer_class in (Enwik8Tokenizer, ByteTokenizer, ProteinTokenizer, NucleotideTokenizer):
        AutoTokenizer.register(config_class, tokenizer_class=tokenizer_class, exist_ok=True)
