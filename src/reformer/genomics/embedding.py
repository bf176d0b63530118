"""What a model makes of stretches of a genome, as vectors: the work of `reformer dna embed`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from reformer.data.names import check_names
from reformer.data.vocabularies import LowerCase
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.bed import read_bed
from reformer.genomics.formats.tables import Batch, write_hdf5, write_parquet
from reformer.genomics.genome import Genome
from reformer.genomics.model_inputs import ModelInputs, language_inputs
from reformer.genomics.provenance import Provenance, one_line
from reformer.genomics.strands import StrandedSequence, TokenIds
from reformer.genomics.windows import Windows
from reformer.training.atomic import check_writable
from reformer.training.memory import return_large_memory

Pooling = Literal["mean", "last", "per-base"]
Vectors = npt.NDArray[np.float32]

WINDOWS = Windows(length=1 << 20)
"""How what is too long for one pass is read: of each window but the first and last, the middle counts."""

_WRITERS = {".parquet": write_parquet, ".h5": write_hdf5, ".hdf5": write_hdf5}
_TOKENS_PER_BATCH = 1 << 15
_ROWS_PER_BATCH = 1 << 14


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bases that are read as one sequence; on "-" as the other strand has them."""

    name: str
    interval: Interval

    def part(self, start: int, end: int) -> Stretch:
        """The bases [start, end) of it, counted as they are read."""
        whole = self.interval
        first, last = (
            (whole.end - end, whole.end - start)
            if whole.strand == "-"
            else (whole.start + start, whole.start + end)
        )
        return replace(self, interval=replace(whole, start=first, end=last))


def check_output(path: Path) -> None:
    """Raises UserError unless a table can be written there."""
    if path.suffix not in _WRITERS:
        raise UserError(f"{path}: expected a name that ends with {', '.join(_WRITERS)}")
    check_writable(path)


def stretches(
    genome: Genome, regions: Path | None = None, window: int | None = None, step: int | None = None
) -> Iterator[Stretch]:
    """Yields what is to be embedded: every sequence, or every region, whole or in windows.

    Args:
        genome: where the letters are.
        regions: a BED file; all sequences by default.
        window: bases; the last window of a stretch has what remains. By default stretches stay whole, and
            those that are too long for one pass are read as `WINDOWS` says.
        step: bases from the start of a window to that of the next; as long as the window by default. Windows
            of a region on "-" follow each other from its right end.

    Raises:
        UserError: the regions are not in the genome, or a number is out of range.
    """
    if window is not None and not 1 <= window <= WINDOWS.length:
        raise UserError(f"--window is {window:,}: expected 1 to {WINDOWS.length:,} bases")
    if step is not None and (window is None or step < 1):
        raise UserError(f"--step is {step:,}: expected 1 base or more, and --window with it")
    wholes = _sequences(genome) if regions is None else _regions(genome, regions)
    for whole in wholes:
        yield from [whole] if window is None else _windows(whole, window, step or window)


def _sequences(genome: Genome) -> Iterator[Stretch]:
    for name, length in genome.lengths.items():
        yield Stretch(name, Interval(name, 0, length))


def _regions(genome: Genome, path: Path) -> Iterator[Stretch]:
    for number, region in enumerate(read_bed(path), 1):
        interval = region.interval
        name = region.name or f"{interval.sequence}:{interval.start}-{interval.end}"
        check_names([interval.sequence], path, genome.lengths, genome.path)
        length = genome.lengths[interval.sequence]
        if not interval.start < interval.end <= length:
            raise UserError(
                f"{path}, region {number} ({name}): expected at least one base, and none after {length:,}, "
                f"where {interval.sequence!r} ends"
            )
        yield Stretch(name, interval)


def _windows(whole: Stretch, window: int, step: int) -> Iterator[Stretch]:
    length = len(whole.interval)
    for start in range(0, max(1, length - window + step), step):
        end = min(start + window, length)
        if start >= end:
            return
        yield whole.part(start, end)


class Embedder:
    """Embeds stretches with one model: its last hidden state, which has 2 x hidden_size features.

    Args:
        model: in evaluation mode.
        genome: where the letters are.
        lower_case: what the model was trained to do with lower-case letters.
        pooling: the mean over the bases, the last base, which has read all others where the model is causal
            (of a stretch that is too long for one pass, those of the last window), or every base.
        both_strands: the mean of what the model makes of the stretch and of its reverse complement.
        inputs: what the model takes of a stretch, or of a window of a long one; by default what a language
            model does.
    """

    def __init__(
        self,
        model: Any,
        genome: Genome,
        lower_case: LowerCase,
        pooling: Pooling,
        both_strands: bool,
        inputs: ModelInputs = language_inputs,
    ) -> None:
        self._model, self._genome, self._lower_case = model, genome, lower_case
        self._pooling, self._both_strands, self._inputs = pooling, both_strands, inputs

    def rows(
        self, items: Iterable[Stretch], on_bases: Callable[[int], None] = lambda number: None
    ) -> Iterator[Batch]:
        """Yields the rows of a table, batch by batch: name, sequence, start, end, strand, embedding.

        Args:
            items: what to embed.
            on_bases: called with the number of bases that have been read since the last call.
        """
        return_large_memory()
        for batch in _batches(items):
            if len(batch[0].interval) > WINDOWS.length:
                yield from self._long_rows(batch[0], on_bases)
                continue
            vectors = self._vectors(batch, self._pooling)
            for stretch, found in zip(batch, vectors, strict=True):
                on_bases(len(stretch.interval))
                if self._pooling == "per-base":
                    yield from _base_rows(stretch, found)
            if self._pooling != "per-base":
                yield _pooled_rows(batch, np.stack(vectors))

    def _long_rows(self, stretch: Stretch, on_bases: Callable[[int], None]) -> Iterator[Batch]:
        """The rows of a stretch that is too long for one pass."""
        if self._pooling == "per-base":
            for start, end, inner in WINDOWS.of(len(stretch.interval)):
                (found,) = self._vectors([stretch.part(start, end)], "per-base")
                yield from _base_rows(stretch.part(start + inner.start, start + inner.stop), found[inner])
                on_bases(inner.stop - inner.start)
            return
        pool = self._long_last if self._pooling == "last" else self._long_mean
        yield _pooled_rows([stretch], pool(stretch, on_bases)[None])

    def _long_last(self, stretch: Stretch, on_bases: Callable[[int], None]) -> Vectors:
        """Each strand's last window ends with the last base that is read of it."""
        length = len(stretch.interval)
        vectors = self._pass([self._ids(stretch.part(length - WINDOWS.length, length), False)], "last")
        if self._both_strands:
            others = self._pass([self._ids(stretch.part(0, WINDOWS.length), True)], "last")
            vectors = _means(vectors, others)
        on_bases(length)
        return vectors[0]

    def _long_mean(self, stretch: Stretch, on_bases: Callable[[int], None]) -> Vectors:
        """One strand after the other, so that only the vectors of one window are in memory."""
        length, strands = len(stretch.interval), (False, True) if self._both_strands else (False,)
        sums = np.zeros(1)
        for start, end, inner in WINDOWS.of(length):
            for other_strand in strands:
                (found,) = self._pass([self._ids(stretch.part(start, end), other_strand)], "per-base")
                found = found[::-1] if other_strand else found
                sums = sums + found[inner].sum(0, dtype=np.float64)
                del found
            on_bases(inner.stop - inner.start)
        return (sums / (length * len(strands))).astype(np.float32)

    def _vectors(self, batch: list[Stretch], pooling: Pooling) -> list[Vectors]:
        """For each stretch float32 `[features]`, or `[bases, features]` in the order of reading."""
        vectors = self._pass([self._ids(stretch, False) for stretch in batch], pooling)
        if not self._both_strands:
            return vectors
        others = self._pass([self._ids(stretch, True) for stretch in batch], pooling)
        if pooling == "per-base":
            others = [other[::-1] for other in others]
        return _means(vectors, others)

    def _ids(self, stretch: Stretch, other_strand: bool) -> TokenIds:
        interval = stretch.interval
        on_reverse = (interval.strand == "-") != other_strand
        sequence = StrandedSequence(
            self._genome, interval.sequence, "-" if on_reverse else "+", self._lower_case
        )
        there = interval.on_other_strand(len(sequence)) if on_reverse else interval
        return sequence.ids(there.start, there.end)

    def _pass(self, rows: list[TokenIds], pooling: Pooling) -> list[Vectors]:
        return embed_in_one_pass(self._model, rows, pooling, self._inputs)


@torch.no_grad()
def embed_in_one_pass(
    model: Any, rows: list[TokenIds], pooling: Pooling, inputs: ModelInputs = language_inputs
) -> list[Vectors]:
    """Embeds a batch of sequences.

    Args:
        model: in evaluation mode.
        rows: token ids ``[T]`` of each.
        pooling: see `Embedder`.
        inputs: what the model takes of them.

    Returns:
        For each float32 ``[features]``, or ``[T, features]`` for "per-base".
    """
    batch = {name: values.to(model.device) for name, values in inputs(rows).items()}
    hidden = model.reformer(**batch).last_hidden_state
    if pooling == "last":
        pooled = hidden[torch.arange(len(rows)), torch.tensor([len(row) - 1 for row in rows])]
    elif pooling == "mean":
        # Row by row, so that what a row gives does not depend on the others' lengths.
        pooled = torch.stack([row[: len(ids)].float().mean(0) for row, ids in zip(hidden, rows, strict=True)])
    else:
        return [row[: len(ids)].float().cpu().numpy() for row, ids in zip(hidden, rows, strict=True)]
    return list(pooled.float().cpu().numpy())


def write_embeddings(path: Path, rows: Iterator[Batch], made: Provenance | None = None) -> None:
    """Writes a table, parquet or HDF5 as its name says; the file is either whole or not there.

    Args:
        path: the file.
        rows: of an `Embedder`.
        made: what made them, for the metadata of the file, under the name "reformer".

    Raises:
        UserError: there is no row.
    """
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: nothing to embed: expected at least one region")

    def all_rows() -> Iterator[Batch]:
        yield first
        yield from rows

    _WRITERS[path.suffix](path, all_rows(), {} if made is None else {"reformer": one_line(made)})


def _means(ones: list[Vectors], others: list[Vectors]) -> list[Vectors]:
    return [np.float32(0.5) * (one + other) for one, other in zip(ones, others, strict=True)]


def _batches(items: Iterable[Stretch]) -> Iterator[list[Stretch]]:
    """Neighbours whose padded tokens together are not too many."""
    batch: list[Stretch] = []
    longest = 0
    for stretch in items:
        longest = max(longest, len(stretch.interval))
        if batch and longest * (len(batch) + 1) > _TOKENS_PER_BATCH:
            yield batch
            batch, longest = [], len(stretch.interval)
        batch.append(stretch)
    if batch:
        yield batch


def _base_rows(stretch: Stretch, vectors: Vectors) -> Iterator[Batch]:
    interval = stretch.interval
    positions = np.arange(interval.start, interval.end)
    if interval.strand == "-":
        positions = positions[::-1]
    for start in range(0, len(vectors), _ROWS_PER_BATCH):
        here = positions[start : start + _ROWS_PER_BATCH]
        bounds = np.stack([here, here + 1], axis=1)
        yield _table(
            [stretch.name] * len(here), [interval] * len(here), bounds, vectors[start : start + len(here)]
        )


def _pooled_rows(stretches: list[Stretch], vectors: Vectors) -> Batch:
    intervals = [stretch.interval for stretch in stretches]
    bounds = np.array([(interval.start, interval.end) for interval in intervals])
    return _table([stretch.name for stretch in stretches], intervals, bounds, vectors)


def _table(names: list[str], intervals: list[Interval], bounds: npt.NDArray, vectors: Vectors) -> Batch:
    return {
        "name": names,
        "sequence": [interval.sequence for interval in intervals],
        "start": bounds[:, 0].astype(np.int64),
        "end": bounds[:, 1].astype(np.int64),
        "strand": [interval.strand for interval in intervals],
        "embedding": vectors,
    }
