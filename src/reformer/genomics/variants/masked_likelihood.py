"""Changes of a sequence under a masked model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from reformer.genomics.strands import IS_BASE, StrandedSequence, TokenIds, changed_ids
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.likelihood import Nats

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS_PER_BATCH = 1 << 15


class MaskedLikelihood:
    """Of a masked model: the probability of the changed bases, masked, given all others in the window.

    A window has half of its bases before the change. As many bases are masked in the sequence as it is and in
    the changed one: as many as the longer of the two alleles has, from the change on.

    Args:
        model: a `ReformerForMaskedLM` in evaluation mode.
        tokenizer: the model's, of nucleotides.
        window: bases, at least 2.
    """

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, window: int) -> None:
        self._model, self._window = model, window
        self._mask_id: int = tokenizer.mask_token_id  # type: ignore[assignment]

    def ratios(self, sequence: StrandedSequence, changes: Sequence[Change]) -> Nats:
        """See `Likelihood`."""
        pairs = [self._pair(sequence, change) for change in changes]
        ratios = np.full(len(changes), np.nan)
        most = max(1, _TOKENS_PER_BATCH // self._window)
        for start in range(0, len(pairs), most):
            batch = range(start, min(start + most, len(pairs)))
            rows = [row for i in batch for row in pairs[i][:2]]
            sums = iter(self._sums(rows, [pairs[i][2] for i in batch for _ in range(2)]))
            for i in batch:
                reference, changed = next(sums), next(sums)
                ratios[i] = changed - reference if pairs[i][2].start < pairs[i][2].stop else np.nan
        return ratios

    def _pair(self, sequence: StrandedSequence, change: Change) -> tuple[TokenIds, TokenIds, slice]:
        """The window as it is and changed, and where they are masked."""
        first = max(0, change.start - self._window // 2)
        growth = len(change.inserted) - (change.end - change.start)
        end = min(first + self._window, len(sequence), len(sequence) + growth)
        masked = max(change.end - change.start, len(change.inserted))
        where = slice(change.start - first, min(change.start - first + masked, end - first))
        return sequence.ids(first, end), changed_ids(sequence, change, first, end), where

    @torch.no_grad()
    def _sums(self, rows: list[TokenIds], where: list[slice]) -> list[float]:
        """Nats of the masked bases of each row; rows that are alike but for these are read once."""
        inputs = [row.copy() for row in rows]
        for row, masked in zip(inputs, where, strict=True):
            row[masked] = self._mask_id
        distinct = {row.tobytes(): row for row in inputs if len(row)}
        results: dict[bytes, torch.Tensor] = {}
        for _, group in groupby(sorted(distinct, key=len), key=len):
            keys = list(group)
            ids = torch.from_numpy(np.stack([distinct[key] for key in keys]).astype(np.int64))
            logits = self._model(ids.to(self._model.device)).logits
            results |= dict(zip(keys, logits.double().log_softmax(-1).cpu(), strict=True))
        sums = []
        for row, masked_row, masked in zip(rows, inputs, where, strict=True):
            targets = row[masked]
            if not len(targets):
                sums.append(0.0)
                continue
            found = results[masked_row.tobytes()][masked].numpy()
            values = found[np.arange(len(targets)), targets]
            sums.append(float(values[IS_BASE[targets]].sum()))
        return sums
