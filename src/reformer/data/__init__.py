"""Long sequences as memory-mapped token arrays, windows over them, and their tokenizers.

The tokenizers are imported when they are first used, because they need transformers.
"""

from typing import TYPE_CHECKING, Any

from reformer.data.build import build_token_array
from reformer.data.nucleotides import reverse_complement
from reformer.data.tokens import Record, TokenArray
from reformer.data.windows import EvaluationWindow, WindowSampler, evaluation_windows

if TYPE_CHECKING:
    from reformer.data.tokenizers import (
        ByteTokenizer,
        Enwik8Tokenizer,
        NucleotideTokenizer,
        ProteinTokenizer,
        register_auto_tokenizers,
        tokenizer_for,
    )

__all__ = [
    "ByteTokenizer",
    "Enwik8Tokenizer",
    "EvaluationWindow",
    "NucleotideTokenizer",
    "ProteinTokenizer",
    "Record",
    "TokenArray",
    "WindowSampler",
    "build_token_array",
    "evaluation_windows",
    "register_auto_tokenizers",
    "reverse_complement",
    "tokenizer_for",
]

_TOKENIZER_NAMES = {
    "ByteTokenizer",
    "Enwik8Tokenizer",
    "NucleotideTokenizer",
    "ProteinTokenizer",
    "register_auto_tokenizers",
    "tokenizer_for",
}


def __getattr__(name: str) -> Any:
    if name in _TOKENIZER_NAMES:
        from reformer.data import tokenizers

        return getattr(tokenizers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
