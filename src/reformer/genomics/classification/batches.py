"""Batches of labelled sequences of about the same length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.nucleotides import reverse_complement
from reformer.data.tokens import TokenArray
from reformer.genomics.base_encoding import BaseEncoding
from reformer.genomics.classification.metrics import Targets
from reformer.layers.randomness import derive
from reformer.training.batches import Span, StagedBatches
from reformer.training.recipe import Stage

Tokens = npt.NDArray[np.uint8]

_BATCHES_PER_POOL = 32


class ClassificationBatches(StagedBatches):
    """Every epoch has each sequence once, in an order of its own, but for what full batches leave over.

    Neighbours in that order are sorted by length, in pools of some batches, so that little is padded. Of a
    sequence that is longer than its stage, a window is read whose place is drawn by the seed.

    Args:
        array: the sequences.
        targets: their classes, int64 ``[records]``, or labels, float32 ``[records, classes]``.
        encoding: what the tokens are.
        stages: lengths, steps and batch sizes, in order.
        seed: determines order, windows and strands.
        items_per_step: forward passes per optimizer step: gradient accumulation times processes.
        other_strand: read every second sequence, by chance, as the other strand has it.
        either_strand: read for a model to which both strands are the same, see `padded`.
    """

    def __init__(
        self,
        array: TokenArray,
        targets: Targets,
        encoding: BaseEncoding,
        stages: Sequence[Stage],
        seed: int,
        items_per_step: int,
        *,
        other_strand: bool,
        either_strand: bool = False,
    ) -> None:
        super().__init__(stages, seed, items_per_step)
        self._array, self._targets, self._encoding = array, targets, encoding
        self._other_strand, self._either_strand = other_strand, either_strand
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns `labels`, the targets of the batch, and what `padded` makes of the sequences."""
        windows = []
        for span in self.spans(index):
            tokens = self._array.window(span.start, span.length)
            windows.append(reverse_complement(tokens) if span.is_other_strand else tokens)
        labels = torch.from_numpy(self._targets[self.rows(index)])
        return {**padded(self._encoding, windows, self._either_strand), "labels": labels}

    def rows(self, index: int) -> npt.NDArray[np.int64]:
        """The records of item `index`, ``[batch]``."""
        stage, _ = self._sequence_numbers(index)
        batch_size = self._stages[stage].batch_size
        per_epoch = max(len(self._array.records) // batch_size, 1)
        epoch, place = divmod(int(index - self._first_items[stage]), per_epoch)
        return self._order(stage, epoch)[place]

    def spans(self, index: int) -> list[Span]:
        """Where the sequences of item `index` are, and how they are read."""
        stage, numbers = self._sequence_numbers(index)
        longest = self._stages[stage].length
        spans = []
        for row, number in zip(self.rows(index), numbers, strict=False):
            start, length = (int(x[row]) for x in (self._array.records.starts, self._array.records.lengths))
            if longest != "full" and length > longest:
                start += derive(self._seed, number, 1) % (length - longest + 1)
                length = longest
            is_other = self._other_strand and derive(self._seed, number) % 2 == 1
            spans.append(Span(start, length, is_other))
        return spans

    def _order_of_epoch(self, stage: int, epoch: int) -> list[npt.NDArray[np.int64]]:
        """The records of each batch of an epoch."""
        generator = np.random.Generator(np.random.Philox(derive(self._seed, stage, epoch)))
        lengths, batch_size = self._array.records.lengths, self._stages[stage].batch_size
        order = generator.permutation(len(lengths))
        pool = batch_size * _BATCHES_PER_POOL
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            rows = rows[: max(len(rows) // batch_size, 1) * batch_size]  # what is left over is so by chance
            rows = rows[np.argsort(lengths[rows], kind="stable")]
            of_pool = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
            batches += [of_pool[i] for i in generator.permutation(len(of_pool))]
        return batches


def padded(
    encoding: BaseEncoding, sequences: Sequence[Tokens], either_strand: bool = False
) -> dict[str, torch.Tensor]:
    """Makes a batch of sequences of nucleotide token ids, padded at their ends.

    Args:
        encoding: what the tokens are.
        sequences: ``[bases]`` each.
        either_strand: count positions such that `BaseEncoding.complement` makes the other strand's tokens;
            else from the first base on. It is the same where the number of bases is a multiple of 3.

    Returns:
        `input_ids`, int64 ``[batch, longest]``, and `attention_mask` of the same shape, 1 where a token is
        real, unless all are.
    """
    longest = max(map(len, sequences))
    ids = np.zeros((len(sequences), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(sequences):
        ids[row, : len(tokens)] = encoding.ids(tokens, first=len(tokens) if either_strand else 0)
        mask[row, : len(tokens)] = 1
    batch = {"input_ids": torch.from_numpy(ids)}
    return batch if mask.all() else {**batch, "attention_mask": torch.from_numpy(mask)}
