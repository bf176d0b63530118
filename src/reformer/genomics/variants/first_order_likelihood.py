"""Substitutions under a causal model, to first order: one backward pass for many bases.

The log-likelihood of a sequence is a function of its bases as one-hot vectors, in two ways: each base is
predicted, and each is read by what predicts those behind it. The first is linear, so that the difference
between two bases is exact. Of the second the gradient is taken through the embedding table: the gradient with
respect to the embedding of a base times the difference of two rows of the table (saliency, Simonyan et al.
2014, section 3). Buckets of hashing count as fixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from reformer.genomics.strands import IS_BASE, StrandedSequence
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.likelihood import Nats


class FirstOrderLikelihood:
    """Of a causal model: an estimate of what `CausalLikelihood` computes.

    The sequence is gone through in blocks of half a window, each with the half window before it, which the
    model has read, and `reach` bases behind it. Of a substitution all bases from it to there count.

    Args:
        model: a `ReformerForCausalLM` in evaluation mode; its parameters no longer ask for gradients.
        window: bases, at least 2.
        reach: bases behind a block whose probability counts, at least 1. The first base of a sequence, which
            nothing comes before, never counts, nor does N.
    """

    def __init__(self, model: Any, window: int, reach: int) -> None:
        self._model = model.requires_grad_(False)
        self._step, self._reach = window // 2, reach
        # A call ends in a block where the next one on its strand begins, or in the one before.
        self._block = lru_cache(maxsize=4)(self._block_of)

    def ratios(self, sequence: StrandedSequence, changes: Sequence[Change]) -> Nats:
        """See `Likelihood`.

        Raises:
            ValueError: a change is no substitution of one base.
        """
        ratios = np.full(len(changes), np.nan)
        for number, change in enumerate(changes):
            if (change.end - change.start, len(change.inserted)) != (1, 1):
                raise ValueError(f"{change}: expected a substitution of one base")
            if len(sequence) == 1:  # nothing to compare
                continue
            letter = sequence.letters(change.start, change.end)
            inserted = change.inserted.lower() if letter.islower() else change.inserted
            old, new = sequence.ids_of(letter + inserted, str(change))
            block, place = divmod(change.start, self._step)
            values = self._block(sequence, block)[place]
            ratios[number] = values[new] - values[old]
        return ratios

    def _block_of(self, sequence: StrandedSequence, block: int) -> Nats:
        """What the log-likelihood is to first order, but for a constant, once a base is another one.

        Returns:
            Nats, float64 `[bases of the block, vocabulary]`.
        """
        start, end = block * self._step, min((block + 1) * self._step, len(sequence))
        origin = max(0, start - self._step)
        tokens = sequence.ids(origin, min(end + self._reach, len(sequence)))
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self._model.device)
        table = self._model.get_input_embeddings().weight
        vectors = table[ids][None].requires_grad_()
        logits = self._model(inputs_embeds=vectors).logits[0]
        predicted = logits[:-1].double().log_softmax(-1)  # of the bases from the second on
        counts = torch.from_numpy(IS_BASE[tokens]).to(ids.device)
        counts[: max(start - origin, 1)] = False
        chosen = predicted.gather(-1, ids[1:, None]).squeeze(-1)
        (gradient,) = torch.autograd.grad(chosen[counts[1:]].sum(), vectors)
        values = gradient[0].double() @ table.double().T
        values[1:] += predicted.detach()
        return values[start - origin : end - origin].cpu().numpy()
