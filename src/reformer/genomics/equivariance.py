"""Predictions that do not depend on which strand of the DNA was written down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import TokenClassifierOutput

from reformer.data.nucleotides import reverse_complement
from reformer.models.modeling import IGNORED


class ReverseComplementEquivariant(nn.Module):
    """Makes a model of tokens exactly equivariant under the reverse complement, whatever the model is.

    With f the inner model's logits, R the reverse complement of a sequence, and S what it does to logits
    (positions reversed, classes exchanged), the logits are ``(f(x) + S f(R x)) / 2``. R and S undo
    themselves, so those of ``R x`` are S of those of x: to the last bit in evaluation, where hash rotations
    are fixed. A pass costs two of the inner model's, in training as well.

    Args:
        model: gives logits for every token and sees both sides: `ReformerForMaskedLM` or
            `ReformerForTokenClassification` on nucleotide ids.
        complement: for each class the class of the same bases read on the other strand ("CDS on +" and "CDS
            on -", for example); by default that of nucleotide tokens, for a masked language model.

    Raises:
        ValueError: the model is causal, or `complement` is not a permutation of its classes that undoes
            itself.
    """

    def __init__(self, model: Any, complement: Sequence[int] | None = None) -> None:
        super().__init__()
        if model.config.is_decoder:
            raise ValueError("a causal model cannot be equivariant: it reads one strand in one direction")
        num_classes = model.get_output_embeddings().out_features if complement is None else model.num_labels
        if complement is None:
            ids = torch.arange(num_classes)
            complement = reverse_complement(ids).flip(0).tolist()
        classes = list(range(num_classes))
        if sorted(complement) != classes or [complement[complement[i]] for i in classes] != classes:
            raise ValueError(
                f"complement is {list(complement)}: expected a permutation of 0 to {num_classes - 1} "
                "that undoes itself"
            )
        self.model = model
        self.register_buffer("_complement", torch.tensor(complement), persistent=False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> TokenClassifierOutput:
        """Runs both strands.

        Args:
            input_ids: int64 `[B, T]` of the nucleotide vocabulary.
            attention_mask: `[B, T]`, padding on either side.
            labels: int64 `[B, T]`, -100 where none counts; padding never does.

        Returns:
            `logits` `[B, T, classes]`, and the mean loss in nats over the labels.
        """
        other_mask = None if attention_mask is None else attention_mask.flip(1)
        forward = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        other = self.model(input_ids=reverse_complement(input_ids), attention_mask=other_mask).logits
        logits = (forward + other.flip(1)[..., self._complement]) / 2
        loss = None
        if labels is not None:
            if attention_mask is not None:
                labels = labels.masked_fill(~attention_mask.bool(), IGNORED)
            total = F.cross_entropy(logits.float().mT, labels, ignore_index=IGNORED, reduction="sum")
            loss = total / (labels != IGNORED).sum().clamp(min=1)
        return TokenClassifierOutput(loss=loss, logits=logits)
