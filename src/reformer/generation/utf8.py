"""Keeps a model of bytes to valid UTF-8: a logits processor for `generate()`.

A model that gives each byte a probability gives some to bytes that cannot follow, and a long sample will
hold a few. Taking that probability away leaves all texts as likely, relative to each other, as they were at
each byte.
"""

from __future__ import annotations

from torch import Tensor
from transformers import LogitsProcessor

from reformer.data.tokenizers import ByteTokenizer

Range = tuple[int, int]

_ANY: Range = (0x80, 0xBF)
_FIRST_AND_REST: list[tuple[Range, tuple[Range, ...]]] = [
    ((0xC2, 0xDF), (_ANY,)),
    ((0xE0, 0xE0), ((0xA0, 0xBF), _ANY)),
    ((0xE1, 0xEC), (_ANY, _ANY)),
    ((0xED, 0xED), ((0x80, 0x9F), _ANY)),
    ((0xEE, 0xEF), (_ANY, _ANY)),
    ((0xF0, 0xF0), ((0x90, 0xBF), _ANY, _ANY)),
    ((0xF1, 0xF3), (_ANY, _ANY, _ANY)),
    ((0xF4, 0xF4), ((0x80, 0x8F), _ANY, _ANY)),
]
"""Characters of several bytes: ranges of the first byte and of those behind it (Unicode 16, table 3-7)."""


class Utf8Text(LogitsProcessor):
    """Allows the bytes that can follow, and other tokens between characters only.

    Args:
        tokenizer: of bytes.
        max_length: tokens after which generation stops, prompt included; no character is begun that would
            not be complete by then. None where there is no such bound.
    """

    def __init__(self, tokenizer: ByteTokenizer, max_length: int | None = None):
        self.max_length = max_length
        self._ids = [int(tokenizer.convert_tokens_to_ids(chr(byte))) for byte in range(256)]
        self._bytes = {token_id: byte for byte, token_id in enumerate(self._ids)}
        self._biases: dict[tuple[Range, ...] | int, Tensor] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores `[B, vocab]` of the tokens after `[B, T]`, -inf where they cannot follow."""
        left = 4 if self.max_length is None else min(4, self.max_length - input_ids.shape[1])
        biases = []
        for row in input_ids[:, -3:].tolist():
            expected = expected_after([self._bytes.get(token_id, 0) for token_id in row])
            biases.append(self._bias(expected[:1] or left, scores))
        if len(set(map(id, biases))) == 1:
            return scores + biases[0]
        return scores + scores.new_tensor([bias.tolist() for bias in biases])

    def _bias(self, key: tuple[Range, ...] | int, scores: Tensor) -> Tensor:
        """0 and -inf `[vocab]`, for the range of the next byte, or how many bytes a character may have."""
        if key not in self._biases:
            bias = scores.new_zeros(scores.shape[1])
            if isinstance(key, int):
                allowed = set(range(0x80))
                for (low, high), rest in _FIRST_AND_REST:
                    allowed |= set(range(low, high + 1)) if len(rest) < key else set()
            else:
                bias -= float("inf")
                allowed = set(range(key[0][0], key[0][1] + 1))
            for byte, token_id in enumerate(self._ids):
                bias[token_id] = 0.0 if byte in allowed else -float("inf")
            self._biases[key] = bias
        return self._biases[key]


def expected_after(tail: list[int]) -> tuple[Range, ...]:
    """The ranges of the bytes that complete a character, after the last three bytes of a text or fewer."""
    for start in reversed(range(len(tail))):
        for (low, high), rest in _FIRST_AND_REST:
            if low <= tail[start] <= high:
                return rest[len(tail) - start - 1 :]
    return ()
