"""What each token id stands for: the one definition that token arrays and tokenizers share.

Nucleotides: the special tokens take ids 0 to 3, ``A C G T N`` 4 to 8 and, where case is kept,
``a c g t n`` 9 to 13. Proteins: the special tokens, then the amino acids in the order of their letters and
``X`` at 24. Bytes: a byte is its own id, 0 to 255, and the special tokens follow at 256 to 259,
so that text on disk, one byte per token, already holds the tokenizer's ids. Neither size is rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from reformer.errors import UserError

TokenizerName = Literal["nucleotide", "byte", "protein"]
LowerCase = Literal["fold", "keep"]

SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]")
NUCLEOTIDES = "ACGTN"
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN_AMINO_ACID = "X"


def vocabulary(name: TokenizerName, lower_case: LowerCase | None) -> dict[str, int]:
    """Returns token -> id of the tokenizer called `name`.

    Args:
        name: "nucleotide", "byte" or "protein".
        lower_case: for nucleotides, "fold" (no lower-case tokens) or "keep"; None for others.

    Raises:
        UserError: unknown name or policy.
    """
    if check_tokenizer_name(name) == "byte":
        tokens = [*map(chr, range(256)), *SPECIAL_TOKENS]
    elif name == "protein":
        tokens = [*SPECIAL_TOKENS, *AMINO_ACIDS, UNKNOWN_AMINO_ACID]
    elif check_lower_case(lower_case) == "fold":
        tokens = [*SPECIAL_TOKENS, *NUCLEOTIDES]
    else:
        tokens = [*SPECIAL_TOKENS, *NUCLEOTIDES, *NUCLEOTIDES.lower()]
    return {token: token_id for token_id, token in enumerate(tokens)}


def holds_nucleotides(tokens: Mapping[str, int]) -> bool:
    """Whether a vocabulary is that of nucleotides, by either policy."""
    return any(tokens == vocabulary("nucleotide", policy) for policy in get_args(LowerCase))


def check_tokenizer_name(name: str) -> TokenizerName:
    """Returns `name` if there is such a tokenizer; raises UserError otherwise."""
    for known in get_args(TokenizerName):
        if name == known:
            return known
    raise UserError(f'tokenizer is {name!r}: expected "nucleotide", "byte" or "protein"')


def check_lower_case(lower_case: str | None) -> LowerCase:
    """Returns `lower_case` if it is a policy; raises UserError otherwise."""
    for policy in get_args(LowerCase):
        if lower_case == policy:
            return policy
    raise UserError(f'lower_case is {lower_case!r}: expected "fold" or "keep"')
