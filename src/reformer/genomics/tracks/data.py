"""Sequences with the level of every track at every base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.formats.tracks import BigWig
from reformer.genomics.tracks.levels import MISSING, Levels
from reformer.training.corpus import open_corpus
from reformer.training.progress import progress_bar
from reformer.training.run_data import HELD_OUT, RunData, file_facts

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.genomics.tracks.recipe import TracksRecipe

_BLOCK = 1 << 20  # bases that are read at once
_SAMPLE = 1 << 22  # values of a track that levels are spaced by

Numbers = npt.NDArray[np.uint8]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class TrackData(RunData):
    """The data of a run, with tracks.

    Attributes:
        train: what it is trained on.
        held_out: what it is evaluated on, by name.
        levels: of each track.
        numbers: for each array, "train" and "eval.NAME" of the held-out ones, uint8 ``[tracks, tokens]``: the
            level of each token of its files, by the token's place there.
        files: the bigWig files, likewise.
    """

    levels: tuple[Levels, ...]
    numbers: dict[str, Numbers]
    files: dict[str, tuple[Path, ...]]

    @classmethod
    def of(cls, recipe: TracksRecipe) -> TrackData:
        """Opens the sequences and tracks that a recipe names.

        Raises:
            UserError: for whatever is wrong with a file, and a track without different values.
        """
        data, section, of = RunData.open(recipe), recipe.tracks, recipe.data
        files = {"train": section.train} | {f"eval.{name}": paths for name, paths in section.eval.items()}
        sequences = {"train": of.train} | {f"eval.{name}": paths for name, paths in of.eval.items()}
        numbers: dict[str, Numbers] = {}
        levels: tuple[Levels, ...] = ()
        for name, paths in files.items():
            array = open_corpus(sequences[name], of.format, of.lower_case, of.cache_dir)
            if array.tokenizer_name != "nucleotide":
                raise UserError(f"{array.sources[0].path}: not FASTA of nucleotides: expected a genome")
            numbers[name] = np.empty((len(paths), len(array.tokens)), dtype=np.uint8)
            with _reading(len(array), len(paths), with_levels=name == "train") as advance:
                tracks = [Track(Path(path), array, section.no_value == "zero") for path in paths]
                if name == "train":
                    levels = _levels(tracks, recipe.other_strand, section.levels, advance)
                for track, of_track, row in zip(tracks, levels, numbers[name], strict=True):
                    track.write_numbers(of_track, row, advance)
        numbers.setdefault(f"eval.{HELD_OUT}", numbers["train"])  # regions of the same files
        named = {name: tuple(map(Path, paths)) for name, paths in files.items()}
        return cls(data.train, data.held_out, levels, numbers, named)

    def sources(self) -> dict[str, Any]:
        """What the data were, bigWig included, for `data.json`."""
        sources = super().sources()
        for name, paths in self.files.items():
            sources[name]["files"] += map(file_facts, paths)
        return sources


@dataclass(frozen=True)
class Track:
    """A bigWig file read along the records of a token array.

    Attributes:
        path: the file.
        array: the genome.
        is_zero: whether a base that the file has no value of is 0, or has none.
    """

    path: Path
    array: TokenArray
    is_zero: bool

    def blocks(self, every: int = 1) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Yields the first token and the values of each stretch, of `every` so many tokens one."""
        lengths = {record.name: record.length for record in self.array.records}
        file = BigWig(self.path, lengths, self.array.sources[0].path)
        for record in self.array.records:
            for start in range(0, record.length, _BLOCK):
                values = file.values(record.name, start, min(start + _BLOCK, record.length))[::every]
                if np.isinf(values).any():
                    raise UserError(f"{self.path}: an infinite value in {record.name!r}")
                if self.is_zero:
                    values = np.nan_to_num(values, nan=0.0)
                yield record.start + start, values

    def write_numbers(self, levels: Levels, numbers: Numbers, advance: Advance) -> None:
        """Fills ``[tokens]`` in, `MISSING` where there is no record."""
        numbers[:] = MISSING
        for start, values in self.blocks():
            numbers[start : start + len(values)] = levels.numbers(values)
            advance(len(values))


def _levels(
    tracks: Sequence[Track], other_strand: Sequence[int], num_levels: int, advance: Advance
) -> tuple[Levels, ...]:
    """The levels of each track; those of a pair of strands are the same.

    Raises:
        UserError: all values of a track are alike, or there is none.
    """
    found: dict[frozenset[int], Levels] = {}
    for pair in map(frozenset, enumerate(other_strand)):
        if pair not in found:
            found[pair] = _levels_of([tracks[number] for number in sorted(pair)], num_levels, advance)
    return tuple(found[frozenset(pair)] for pair in enumerate(other_strand))


def _levels_of(tracks: Sequence[Track], num_levels: int, advance: Advance) -> Levels:
    """Spaces levels by a sample of the values of one track, or of a pair's, and averages each."""

    def values() -> Iterator[npt.NDArray[np.float32]]:
        for track in tracks:
            for _, block in track.blocks():
                yield block
                advance(len(block))

    every = -(-len(tracks[0].array) // _SAMPLE)
    sample = np.concatenate([block for track in tracks for _, block in track.blocks(every)])
    try:
        return Levels.of(sample, num_levels).with_means_of(values())
    except ValueError as error:
        raise UserError(f"{tracks[0].path}: {error}: nothing to learn") from error


def _reading(num_bases: int, num_tracks: int, *, with_levels: bool) -> AbstractContextManager[Advance]:
    return progress_bar("reading tracks", num_bases * num_tracks * (2 if with_levels else 1))
