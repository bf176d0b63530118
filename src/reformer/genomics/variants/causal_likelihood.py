"""Changes of a sequence under a causal model; nearby ones share what comes before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from reformer.genomics.strands import IS_BASE, StrandedSequence, TokenIds, changed_ids
from reformer.genomics.variants.changes import Change
from reformer.genomics.variants.likelihood import Nats
from reformer.models.cache import ReformerCache

_TOKENS_PER_BATCH = 1 << 15
_CACHE_BYTES_PER_BATCH = 1 << 28


class CausalLikelihood:
    """Of a causal model: the probability of the bases from the change on, given those before it.

    Before a change the model has read at least half a window, and less than a whole one, where the sequence
    has them: it begins at a multiple of half a window, which changes nearby share. What lies between is read
    once and kept in a decode cache; the sequence as it is and every changed one go on from copies of it. A
    model of which a cache cannot do what the parallel pass does (LSH window "chunk") reads all every time.

    Args:
        model: a `ReformerForCausalLM` in evaluation mode.
        window: bases, at least 2.
        reach: bases from the change on whose probability counts, at least 1. The first base of a sequence,
            which nothing comes before, never counts, nor does N.
    """

    def __init__(self, model: Any, window: int, reach: int) -> None:
        self._model = model
        self._step, self._reach = window // 2, reach
        config = model.config
        self._uses_cache = "lsh" not in config.attn_layers or config.lsh_window == "bucket"

    def ratios(self, sequence: StrandedSequence, changes: Sequence[Change]) -> Nats:
        """See `Likelihood`."""
        ratios: list[float] = []
        for origin, group in groupby(changes, key=lambda change: self._origin(change.start)):
            prefix = _Prefix(self._model, sequence, origin, self._uses_cache)
            for batch in self._batches(list(group), prefix):
                ratios += self._batch_ratios(sequence, batch, prefix)
        return np.array(ratios)

    def _origin(self, start: int) -> int:
        return max(0, (start // self._step - 1) * self._step)

    def _batches(self, changes: list[Change], prefix: _Prefix) -> Iterator[list[Change]]:
        """Changes so near to each other that they may go on from one place."""
        span = max(1, self._reach // 4)
        while changes:
            prefix.advance(changes[0].start)
            most = max(1, prefix.num_rows(self._reach + span) - 1)
            near = [change for change in changes[:most] if change.start < changes[0].start + span]
            yield near
            changes = changes[len(near) :]

    def _batch_ratios(
        self, sequence: StrandedSequence, changes: list[Change], prefix: _Prefix
    ) -> list[float]:
        """One pass over the sequence as it is and every changed one, from the first change on."""
        first, length = prefix.end, len(sequence)
        sizes = [
            min(self._reach, length - change.start, len(change.inserted) + length - change.end)
            for change in changes
        ]
        ends = [change.start + size for change, size in zip(changes, sizes, strict=True)]
        if max(ends) == first:  # nothing but insertions behind the last base
            return [np.nan] * len(changes)
        rows = [sequence.ids(first, max(ends))]
        rows += [changed_ids(sequence, change, first, end) for change, end in zip(changes, ends, strict=True)]
        log_probabilities = prefix.log_probabilities(rows)
        ratios = []
        for change, end, row, values in zip(changes, ends, rows[1:], log_probabilities[1:], strict=True):
            counted = slice(max(change.start - first, int(first == 0)), end - first)
            ratios.append(
                self._sum(row, values, counted) - self._sum(rows[0], log_probabilities[0], counted)
                if counted.start < counted.stop
                else np.nan
            )
        return ratios

    @staticmethod
    def _sum(row: TokenIds, log_probabilities: Nats, counted: slice) -> float:
        return float(log_probabilities[: len(row)][counted][IS_BASE[row[counted]]].sum())


class _Prefix:
    """What a causal model has read of a sequence from `origin` to `end`."""

    def __init__(self, model: Any, sequence: StrandedSequence, origin: int, uses_cache: bool) -> None:
        self._model, self._sequence = model, sequence
        self.origin = self.end = origin
        self._cache = ReformerCache(model.reformer.encoder) if uses_cache else None
        self._last_logits: torch.Tensor | None = None

    @torch.no_grad()
    def advance(self, end: int) -> None:
        """Read on to a position."""
        if self._cache is not None and end > self.end:
            ids = self._tensor([self._sequence.ids(self.end, end)])
            output = self._model(ids, past_key_values=self._cache, logits_to_keep=1)
            self._last_logits = output.logits[:, -1:]
        self.end = end

    def num_rows(self, length: int) -> int:
        """How many rows of some tokens to read at once; 1 where rows of other lengths change a row."""
        if self._cache is None:
            return 1
        fits = _CACHE_BYTES_PER_BATCH // max(1, self._cache.num_bytes)
        return max(1, min(fits, _TOKENS_PER_BATCH // length))

    @torch.no_grad()
    def log_probabilities(self, rows: list[TokenIds]) -> Nats:
        """Nats of every token of rows that follow the prefix, float64 `[rows, longest]`.

        0 for a first token that nothing comes before; behind the end of a shorter row is nothing of meaning.
        """
        longest = max(map(len, rows))
        padded = [np.pad(row, (0, longest - len(row))) for row in rows]
        if self._last_logits is not None and self._cache is not None:
            ids = self._tensor(padded)
            logits = self._model(ids, past_key_values=self._cache.forked(len(rows))).logits
            logits = torch.cat([self._last_logits.expand(len(rows), -1, -1), logits[:, :-1]], dim=1)
        else:
            before = self._sequence.ids(self.origin, self.end)
            ids = self._tensor([np.concatenate([before, row]) for row in padded])
            logits = self._model(ids).logits[:, -longest - 1 : -1]
            ids = ids[:, -longest:]
        missing = longest - logits.shape[1]
        values = logits.double().log_softmax(-1).gather(-1, ids[:, missing:, None]).squeeze(-1)
        return torch.nn.functional.pad(values, (missing, 0)).cpu().numpy()

    def _tensor(self, rows: list[TokenIds]) -> torch.Tensor:
        return torch.from_numpy(np.stack(rows).astype(np.int64)).to(self._model.device)
