"""Predictions that do not depend on which strand of the DNA was written down."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class BothStrands(nn.Module):
    """What makes a model exactly equivariant under the reverse complement, whatever the model is.

    With f the logits of one strand, R the reverse complement of a sequence, and S what it does to logits
    (classes exchanged and, where they are those of tokens, positions reversed), the logits of both are
    ``(f(x) + S f(R x)) / 2``. R and S undo themselves, so those of ``R x`` are S of those of x: to the last
    bit in evaluation, where hash rotations are fixed. A pass costs two of one strand's, in training as well.

    Which token and which class is which on the other strand is saved with the weights; until `set` is called
    each is itself.

    Args:
        num_tokens: of the vocabulary.
        num_classes: of the logits.
    """

    token_complement: Tensor
    class_complement: Tensor

    def __init__(self, num_tokens: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("token_complement", torch.arange(num_tokens))
        self.register_buffer("class_complement", torch.arange(num_classes))

    def set(self, tokens: Sequence[int], classes: Sequence[int]) -> None:
        """Says what each token and each class is on the other strand.

        Raises:
            ValueError: they are no permutations that undo themselves.
        """
        for name, buffer, values in (
            ("tokens", self.token_complement, tokens),
            ("classes", self.class_complement, classes),
        ):
            every = list(range(len(buffer)))
            if sorted(values) != every or [values[values[i]] for i in every] != every:
                raise ValueError(
                    f"{name} on the other strand: expected a permutation of 0 to {every[-1]} that undoes "
                    "itself"
                )
            buffer.copy_(torch.tensor(values))

    def other(self, input_ids: Tensor | None) -> Tensor:
        """The reverse complement of int64 `[B, T]`."""
        if input_ids is None:
            raise ValueError(
                "rc_equivariant: expected input_ids, whose other strand is known, got inputs_embeds"
            )
        return self.token_complement[input_ids].flip(1)

    def mean(self, logits: Tensor, others: Tensor) -> Tensor:
        """The logits of both strands, from those of a sequence and of its other strand.

        All are `[B, T, classes]` of tokens, or `[B, classes]` of whole sequences.
        """
        others = others.flip(1) if others.ndim == 3 else others
        return (logits + others[..., self.class_complement]) / 2


def flipped(mask: Tensor | None) -> Tensor | None:
    """The attention mask `[B, T]` of the other strand."""
    return None if mask is None else mask.flip(1)
