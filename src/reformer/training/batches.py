"""The batches of a run: each is determined by the seed and its number, so a resumed run just goes on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from reformer.data.nucleotides import reverse_complement
from reformer.data.windows import WindowSampler
from reformer.layers.randomness import derive

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.training.masking import Masking
    from reformer.training.mutated_copies import MutatedCopies
    from reformer.training.recipe import Stage


class Span(NamedTuple):
    """Tokens of a token array that are a sequence to train on, read as the other strand has them or not."""

    start: int
    length: int
    is_other_strand: bool


class StagedBatches(Dataset[dict[str, torch.Tensor]]):
    """Item i is the whole batch of forward pass i, counted over all stages, steps and processes.

    What the sequences of a batch are, a subclass says in `spans`.

    Args:
        stages: lengths, steps and batch sizes, in order.
        seed: determines all that is drawn.
        items_per_step: forward passes per optimizer step: gradient accumulation times processes.
    """

    def __init__(self, stages: Sequence[Stage], seed: int, items_per_step: int) -> None:
        self._seed = seed
        self._stages = list(stages)
        num_items = [stage.steps * items_per_step for stage in stages]
        num_sequences = [items * stage.batch_size for items, stage in zip(num_items, stages, strict=True)]
        self._first_items = np.cumsum([0, *num_items])
        self._first_sequences = np.cumsum([0, *num_sequences])
        self._items_per_step = items_per_step

    def __len__(self) -> int:
        return int(self._first_items[-1])

    def num_tokens(self, step: int) -> int:
        """Tokens in the first `step` optimizer steps, of all processes."""
        return int(self._tokens_up_to_step[step - 1]) if step > 0 else 0

    def length(self, step: int) -> int:
        """Tokens of the longest sequence in optimizer step `step`, counted from 1 (of its first batch)."""
        return max(span.length for span in self.spans((step - 1) * self._items_per_step))

    def spans(self, index: int) -> list[Span]:
        """Where the sequences of item `index` are, and how they are read."""
        raise NotImplementedError

    def _sequence_numbers(self, index: int) -> tuple[int, range]:
        """The stage of item `index`, and the numbers of its sequences, counted over all stages."""
        stage = int(np.searchsorted(self._first_items, index, side="right")) - 1
        batch_size = self._stages[stage].batch_size
        first = int(self._first_sequences[stage] + (index - self._first_items[stage]) * batch_size)
        return stage, range(first, first + batch_size)

    @cached_property
    def _tokens_up_to_step(self) -> npt.NDArray[np.int64]:
        per_stage = [self._tokens_of_steps(stage) for stage in range(len(self._stages))]
        return np.cumsum(np.concatenate(per_stage))

    def _tokens_of_steps(self, stage: int) -> npt.NDArray[np.int64]:
        """Tokens of every optimizer step of a stage, all processes."""
        first, end = (int(item) for item in self._first_items[stage : stage + 2])
        lengths = [sum(span.length for span in self.spans(item)) for item in range(first, end)]
        return np.reshape(lengths, (-1, self._items_per_step)).sum(axis=1)


class TrainingBatches(StagedBatches):
    """Batches of windows and records.

    A stage of length L has random windows of L tokens. A stage of length "full" has whole records, drawn in
    proportion to their lengths; records of one token, which predict nothing, are left out.

    Args:
        array: the training data.
        stages: lengths, steps and batch sizes, in order.
        seed: determines the windows.
        items_per_step: forward passes per optimizer step: gradient accumulation times processes.
        other_strand: read every second window of nucleotides, by chance, as the other strand has it.
        masking: hides the tokens that a masked model fills in; None for a causal one.
        mutated_copies: changes windows, but no whole records, once their strand has been chosen; None to
            leave all as they are.

    Raises:
        UserError: when no record is as long as a stage's windows.
    """

    def __init__(
        self,
        array: TokenArray,
        stages: Sequence[Stage],
        seed: int,
        items_per_step: int,
        *,
        other_strand: bool = False,
        masking: Masking | None = None,
        mutated_copies: MutatedCopies | None = None,
    ) -> None:
        super().__init__(stages, seed, items_per_step)
        self._array = array
        self._other_strand, self._masking = other_strand, masking
        self._mutated_copies = mutated_copies
        self._samplers = [
            WindowSampler(array, 2 if stage.length == "full" else stage.length, seed) for stage in stages
        ]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Returns `input_ids` and `labels`, both int64 [batch, length]; a causal model shifts the labels."""
        ids = np.stack(self._windows(index)).astype(np.int64)
        if self._masking is None:
            input_ids = torch.from_numpy(ids)
            return {"input_ids": input_ids, "labels": input_ids}
        first = self._sequence_numbers(index)[1][0]
        rows = [self._masking.for_training(row, first + i) for i, row in enumerate(ids)]
        hidden, labels = (torch.from_numpy(np.stack(part)) for part in zip(*rows, strict=True))
        return {"input_ids": hidden, "labels": labels}

    def spans(self, index: int) -> list[Span]:
        """Where the sequences of item `index` are, and how they are read."""
        stage, numbers = self._sequence_numbers(index)
        sampler = self._samplers[stage]
        spans = []
        for number in numbers:
            start, length = sampler.start(number), sampler.length
            if self._stages[stage].length == "full":
                start, length = self._record_at(start)
            is_other = self._other_strand and derive(self._seed, number) % 2 == 1
            spans.append(Span(start, length, is_other))
        return spans

    def _windows(self, index: int) -> list[npt.NDArray[np.uint8]]:
        """The sequences of item `index`, views of the mapped array where nothing is changed in them."""
        stage, numbers = self._sequence_numbers(index)
        copies = None if self._stages[stage].length == "full" else self._mutated_copies
        windows = []
        for number, (start, length, is_other_strand) in zip(numbers, self.spans(index), strict=True):
            window = self._array.window(start, length)
            window = reverse_complement(window) if is_other_strand else window
            windows.append(window if copies is None else copies.for_training(window, number))
        return windows

    def _record_at(self, position: int) -> tuple[int, int]:
        """Start and length of the record that a token of the array belongs to."""
        records = self._array.records
        record = int(np.searchsorted(records.starts, position, side="right")) - 1
        return int(records.starts[record]), int(records.lengths[record])

    def _tokens_of_steps(self, stage: int) -> npt.NDArray[np.int64]:
        of = self._stages[stage]
        if of.length == "full" and len(self._array.records) > 1:
            return super()._tokens_of_steps(stage)
        length = len(self._array) if of.length == "full" else of.length
        return np.full(of.steps, length * of.batch_size * self._items_per_step)


def by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Numbers of sequences, from short to long, in batches of at most `max_tokens`, padding included.

    A sequence that is longer is a batch by itself.
    """
    batches: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: lengths[number]):
        if not batches or (len(batches[-1]) + 1) * lengths[number] > max_tokens:
            batches.append([])
        batches[-1].append(number)
    return batches


def unwrap_batch(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """The collator of a data loader whose items are whole batches: it is handed one of them."""
    (batch,) = items
    return batch
