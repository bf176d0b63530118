"""How many bits a model needs per token of data it has not seen: overall, by record and by position.

A sequence is cut into windows that cover it without overlap. The first token of a window is given and not
counted; every other one is predicted from those before it in the window. Bits per token counts them all; bits
per base, for nucleotides, counts only those that are A, C, G or T (in either case, where case is kept): a
target N, which also stands for the other IUPAC letters, is left out. N still stands in the context.

A model may be given a context, the genomes of relatives say: then records are windows, each read behind all
tokens of the context. These are not counted, neither as predicted tokens nor as tokens before them.

A masked model fills in 15 % of the tokens of each window, the same ones at every evaluation, from all others;
these alone count (see `reformer.training.masking`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.vocabularies import holds_nucleotides
from reformer.data.windows import EvaluationWindow, evaluation_windows
from reformer.errors import UserError
from reformer.training.masking import Masking
from reformer.training.metrics import NATS_PER_BIT

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

Sums = npt.NDArray[np.float64]
TokenIds = npt.NDArray[np.integer]
Reduce = Callable[[Sums], Sums]

_TOKENS_PER_BATCH = 2**15
_NATS, _TOKENS, _BASE_NATS, _BASES = range(4)


@dataclass(frozen=True)
class Bits:
    """A mean over predicted tokens.

    Attributes:
        num_tokens: predicted tokens.
        bits_per_token: mean over all of them.
        num_bases: those that are A, C, G or T; 0 for text.
        bits_per_base: mean over these; None where there are none.
    """

    num_tokens: int
    bits_per_token: float
    num_bases: int
    bits_per_base: float | None

    @classmethod
    def of(cls, sums: Sums) -> Bits:
        """The means of sums of nats and counts."""
        bases = int(sums[_BASES])
        return cls(
            num_tokens=int(sums[_TOKENS]),
            bits_per_token=float(sums[_NATS] / sums[_TOKENS] / NATS_PER_BIT),
            num_bases=bases,
            bits_per_base=float(sums[_BASE_NATS] / bases / NATS_PER_BIT) if bases else None,
        )


@dataclass(frozen=True)
class BitsReport:
    """Bits per token of a model on a token array.

    Attributes:
        total: over all predicted tokens.
        by_record: by the record's name, for records with a predicted token.
        by_position: by an exclusive upper bound on how many tokens of the window stand before the predicted
            one: the bound n has those with n/2 to n - 1 tokens before them. A context is not counted.
    """

    total: Bits
    by_record: dict[str, Bits]
    by_position: dict[int, Bits]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            **vars(self.total),
            "by_position": [{"below": bound, **vars(bits)} for bound, bits in self.by_position.items()],
            "by_record": [{"record": name, **vars(bits)} for name, bits in self.by_record.items()],
        }


def evaluate_bits(
    model: Any,
    array: TokenArray,
    length: int | None = None,
    *,
    context: TokenArray | None = None,
    on_progress: Callable[[int], None] | None = None,
    process: tuple[int, int] = (0, 1),
    reduce: Reduce | None = None,
) -> BitsReport:
    """Measures the bits per token of a language model in eval mode, without gradients.

    Args:
        model: a `ReformerForCausalLM` or `ReformerForMaskedLM`; put into eval mode and back into the mode it
            was in.
        array: the data.
        length: tokens per window, at least 3; None for whole records.
        context: what a causal model reads before each record: all its records, one after another. Time and
            memory of each record are those of a pass over both.
        on_progress: called with the number of tokens of `array` that have been read since the last call.
        process: (index, number) of this process among those that share the windows.
        reduce: adds up the sums of all processes.

    Raises:
        UserError: when nothing is predicted (all records have one token), `length` is too small, the model
            gives a loss that is not finite, or is given more tokens than it has positions for; for a context
            with a masked model, with a `length`, or of another vocabulary.
    """
    before = (
        np.empty(0, dtype=np.uint8) if context is None else _context_tokens(model, array, length, context)
    )
    longest = int(array.records.lengths.max())
    windows = list(evaluation_windows(array, max(3, longest) if length is None else length))
    if not windows:
        raise UserError(f"{array.folder}: every record has one token: nothing to predict")
    _check_fits(model, windows, len(before))
    names = list(dict.fromkeys(window.record for window in windows))
    row_of = {name: row for row, name in enumerate(names)}
    sums = np.zeros((len(names), longest.bit_length() + 1, 4))
    is_base = _base_table(array.vocabulary)
    masking = None if hasattr(model, "token_losses") else Masking(array.vocabulary, seed=0)
    index, number = process
    was_training = model.training
    model.eval()
    try:
        for batch in _batches(windows[index::number], 1 if len(before) else _TOKENS_PER_BATCH):
            targets = np.stack([array.window(window.start, window.length) for window in batch])
            nats, counted = _losses(model, targets, before, masking, [one.start for one in batch])
            _check_finite(nats, batch, array)
            for window, row_nats, row_ids, row_counted in zip(batch, nats, targets, counted, strict=True):
                sums[row_of[window.record]] += _sums_by_position(
                    row_nats, row_counted, is_base[row_ids[1:]], sums.shape[1]
                )
            if on_progress is not None:
                on_progress(targets.size)
    finally:
        model.train(was_training)
    sums = sums if reduce is None else reduce(sums)
    if not sums[..., _TOKENS].any():
        raise UserError(f"{array.folder}: too few tokens: none is hidden, so that none is to be filled in")
    return _report(names, sums)


def evaluate_sequences(
    model: Any, vocabulary: Mapping[str, int], sequences: Sequence[TokenIds]
) -> list[Bits | None]:
    """Measures sequences in memory, each as `evaluate_bits` does a file that has it alone.

    Args:
        model: as there, in eval mode.
        vocabulary: token -> id.
        sequences: token ids ``[T]`` of each.

    Returns:
        Bits of each sequence, None where it is too short for a token to be predicted.

    Raises:
        FloatingPointError: the model gives a loss that is not finite.
    """
    is_base, nothing = _base_table(vocabulary), np.empty(0, dtype=np.uint8)
    masking = None if hasattr(model, "token_losses") else Masking(vocabulary, seed=0)
    found: list[Bits | None] = [None] * len(sequences)
    lengths = [len(ids) for ids in sequences]
    order = [n for n in sorted(range(len(lengths)), key=lengths.__getitem__) if lengths[n] > 1]
    for batch in _batches([EvaluationWindow(str(n), n, lengths[n]) for n in order], _TOKENS_PER_BATCH):
        targets = np.stack([sequences[one.start] for one in batch])
        rows = _losses(model, targets, nothing, masking, [0] * len(batch))
        for one, ids, nats, counted in zip(batch, targets, *rows, strict=True):
            sums = _sums_by_position(nats, counted, is_base[ids[1:]], one.length.bit_length() + 1).sum(axis=0)
            if not np.isfinite(sums).all():
                raise FloatingPointError(f"the model's loss on sequence {one.start + 1} is not finite")
            found[one.start] = Bits.of(sums) if sums[_TOKENS] else None
    return found


def num_evaluated_tokens(array: TokenArray) -> int:
    """Tokens that `evaluate_bits` reads: those of all records with more than one."""
    lengths = array.records.lengths
    return int(lengths[lengths > 1].sum())


def _context_tokens(
    model: Any, array: TokenArray, length: int | None, context: TokenArray
) -> npt.NDArray[np.uint8]:
    """All tokens of a context, `[C]`; UserError where there cannot be one."""
    if not hasattr(model, "token_losses"):
        raise UserError("a context is for causal models: this one is masked")
    if length is not None:
        raise UserError(f"length is {length}: expected none with a context, behind which records are whole")
    if context.vocabulary != array.vocabulary:
        raise UserError(
            f"{context.sources[0].path}: holds {context.tokenizer_name} tokens, expected those of "
            f"{array.sources[0].path}, which holds {array.tokenizer_name} tokens"
        )
    return np.concatenate([context.window(start, size) for _, start, size in context.records])


def _check_fits(model: Any, windows: list[EvaluationWindow], num_before: int) -> None:
    """Raises UserError if a model has too few positions for a window and what is read before it."""
    limit = getattr(getattr(model, "config", None), "longest_input", None)
    longest = max(windows, key=lambda window: window.length)
    if limit is not None and num_before + longest.length > limit:
        context = f" behind {num_before:,} of context" if num_before else ""
        tokens = f"{longest.length:,} tokens{context}"
        raise UserError(f"record {longest.record!r}: {tokens}: the model reads at most {limit:,}")


def _batches(windows: list[EvaluationWindow], max_tokens: int) -> Iterator[list[EvaluationWindow]]:
    """Neighbouring windows of one length, up to so many tokens, or one that is longer by itself."""
    batch: list[EvaluationWindow] = []
    for window in windows:
        if batch and (window.length != batch[0].length or (len(batch) + 1) * window.length > max_tokens):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def _losses(
    model: Any,
    targets: TokenIds,
    before: npt.NDArray[np.uint8],
    masking: Masking | None,
    numbers: list[int],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Nats of tokens 1, 2, ... of every row, [batch, length - 1], and which of them count."""
    if masking is not None:
        return _filled_in_losses(model, targets, masking, numbers)
    return _token_losses(model, targets, before), np.ones_like(targets[:, 1:], dtype=np.bool_)


@torch.no_grad()
def _token_losses(model: Any, token_ids: TokenIds, before: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Nats of tokens 1, 2, ... of every row, [batch, length - 1], which is read behind others, [context]."""
    rows = np.concatenate([np.broadcast_to(before, (len(token_ids), len(before))), token_ids], axis=1)
    input_ids = torch.from_numpy(rows.astype(np.int64)).to(model.device)
    return model.token_losses(input_ids=input_ids)[:, len(before) :].double().cpu().numpy()


@torch.no_grad()
def _filled_in_losses(
    model: Any, token_ids: TokenIds, masking: Masking, numbers: list[int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Nats of tokens 1, 2, ... of every row, and which of them were hidden and count."""
    rows = [
        masking.for_evaluation(row.astype(np.int64), number)
        for row, number in zip(token_ids, numbers, strict=True)
    ]
    hidden, counted = (np.stack(part) for part in zip(*rows, strict=True))
    logits = model(input_ids=torch.from_numpy(hidden).to(model.device)).logits
    targets = torch.from_numpy(token_ids.astype(np.int64)).to(model.device)
    nats = torch.nn.functional.cross_entropy(logits.float().mT, targets, reduction="none")
    return nats[:, 1:].double().cpu().numpy(), counted[:, 1:]


def _check_finite(nats: npt.NDArray[np.float64], batch: list[EvaluationWindow], array: TokenArray) -> None:
    if not np.isfinite(nats).all():
        record = batch[int(np.argmin(np.isfinite(nats).all(axis=1)))].record
        raise UserError(f"{array.folder}: the model's loss on record {record!r} is not finite")


def _sums_by_position(
    nats: npt.NDArray[np.float64],
    counted: npt.NDArray[np.bool_],
    is_base: npt.NDArray[np.bool_],
    num_bins: int,
) -> Sums:
    """Sums of nats and counts, [bin, 4]; bin b: tokens with 2**(b-1) to 2**b - 1 tokens before them."""
    bins = np.frexp(np.arange(1, len(nats) + 1))[1]
    is_base = is_base & counted
    weights = (nats * counted, counted, nats * is_base, is_base)
    return np.stack([np.bincount(bins, weight, num_bins) for weight in weights], axis=1)


def _base_table(vocabulary: Mapping[str, int]) -> npt.NDArray[np.bool_]:
    """Which token ids are bases."""
    table = np.zeros(len(vocabulary), dtype=np.bool_)
    if holds_nucleotides(vocabulary):
        table[[token_id for token, token_id in vocabulary.items() if token.upper() in tuple("ACGT")]] = True
    return table


def _report(names: list[str], sums: Sums) -> BitsReport:
    by_record, by_position = sums.sum(axis=1), sums.sum(axis=0)
    return BitsReport(
        total=Bits.of(sums.sum(axis=(0, 1))),
        by_record={name: Bits.of(row) for name, row in zip(names, by_record, strict=True) if row[_TOKENS]},
        by_position={2**b: Bits.of(row) for b, row in enumerate(by_position) if row[_TOKENS]},
    )
