"""Opens the sequences that a run or an evaluation reads, as token arrays kept in a cache folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reformer.data.build import build_token_array
from reformer.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reformer.data.tokens import TokenArray


def default_cache_dir() -> Path:
    """Where token arrays are kept: `$REFORMER_CACHE`, or `reformer` in the user's cache folder."""
    if folder := os.environ.get("REFORMER_CACHE"):
        return Path(folder)
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "reformer"


def open_corpus(
    files: Sequence[str | Path],
    source_format: Literal["auto", "fasta", "text"] = "auto",
    lower_case: Literal["fold", "keep"] = "fold",
    cache_dir: str | Path | None = None,
) -> TokenArray:
    """Builds or opens the token array of some files.

    Raises:
        UserError: one line with the file and the place, for whatever is wrong with a file.
    """
    return build_token_array(
        files, cache_dir or default_cache_dir(), format=source_format, lower_case=lower_case
    )


def open_corpus_for(
    tokenizer: PreTrainedTokenizerBase, files: Sequence[str | Path], owner: str
) -> TokenArray:
    """Opens files as a model reads them.

    Args:
        tokenizer: the model's.
        files: FASTA or GenBank for a nucleotide model, text for a byte model.
        owner: what an error calls the model.

    Raises:
        UserError: when the files hold another kind of sequence than the model was trained on.
    """
    array = open_corpus(files, lower_case=getattr(tokenizer, "lower_case", None) or "fold")
    check_vocabulary(array, tokenizer, owner)
    return array


def check_vocabulary(array: TokenArray, tokenizer: PreTrainedTokenizerBase, owner: str) -> None:
    """Raises UserError unless the tokens of an array are those of a tokenizer."""
    if array.vocabulary != tokenizer.get_vocab():
        first = array.sources[0].path
        raise UserError(
            f"{first}: holds {array.tokenizer_name} tokens ({len(array.vocabulary)} kinds), but {owner} has "
            f"another vocabulary ({len(tokenizer)} kinds)"
        )
