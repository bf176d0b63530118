"""What the annotation of related genomes says of a sequence, base by base, brought over by LSH attention.

Genes of related species are alike, and so is what they are annotated as. The bases of a new sequence are
the queries, those of the relatives, on both strands, the keys, and their labels the values. The vector of a
base says what stands on one side of it: 20 bases, or the amino acids of ten codons on either strand. Each
letter at each distance has a random vector of its own, and their sum is scaled to length 1, so that the
product of two vectors is about the share of letters that they have in common. Hashing (Kitaev et al. 2020,
section 2) brings what is alike into one bucket, so that a base finds its like among millions at near-linear
cost: the whole sequence and all relatives in one pass. What a base finds does not depend on what else is
asked for, but for the rounding of weights.

Nothing here is trained; the model that reads what was brought over learns how far to trust it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.annotation.coding_model import UNKNOWN, Codes, other_strand, read_tables
from reformer.genomics.annotation.gene_places import base_codes
from reformer.genomics.base_encoding import LETTER_OF_TOKEN

if TYPE_CHECKING:
    from torch import Tensor

    from reformer.genomics.annotation.classes import ClassScheme, Labels

RELATIVES_FILE = "relatives.safetensors"

_SIZE = 32  # of the vectors
_SHARPNESS = 24.0
"""Of the softmax: with one letter in ten changed, a match counts an eleventh of an exact one."""
_ROUNDS = 2
_KEYS_PER_BUCKET, _RANKS = 256, 2048
_MOST_QUERIES = 1 << 22  # at once, which bounds memory
_REACH = 32  # bases to the farthest letter of a reading
_BLOCK = 1 << 16  # bases whose vectors are made at once: they stay in the cache
_STEPS = 255

_AMINO_ACIDS = "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF"
"""Of the codons from AAA to TTT, bases in the order A, C, G, T (NCBI's genetic code 1)."""


@dataclass(frozen=True)
class _Reading:
    """What stands on one side of a base.

    Attributes:
        what: bases, or the amino acids of the codons of a strand.
        side: seen from the strand.
    """

    what: Literal["bases", "+", "-"]
    side: Literal["before", "from"]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where the letters are, the nearest first, relative to the base, which belongs to "from"."""
        if self.what == "bases":
            return np.arange(20) if self.side == "from" else -np.arange(20)
        codons = np.arange(10) if self.side == "from" else -np.arange(1, 11)
        return 3 * codons if self.what == "+" else -3 * codons

    def letters(self, codes: Codes) -> Codes:
        """A letter for each base, of an alphabet whose last one stands for what is unknown."""
        if self.what == "bases":
            return codes if self.side == "from" else np.where(codes == UNKNOWN, UNKNOWN, 3 - codes)
        if self.what == "-":
            return _Reading("+", self.side).letters(other_strand(codes))[::-1]
        padded = np.pad(codes, (0, 2), constant_values=UNKNOWN)
        first, second, third = padded[:-2], padded[1:-1], padded[2:]
        known = (first != UNKNOWN) & (second != UNKNOWN) & (third != UNKNOWN)
        return np.where(
            known, _ACID_OF_CODON[np.where(known, 16 * first + 4 * second + third, 0)], _NUM_ACIDS
        )

    @property
    def seed(self) -> int:
        """Of the random vectors, the same for a reading and what it is on the other strand."""
        return 0 if self.what == "bases" else 1 if self.side == "before" else 2

    @property
    def num_letters(self) -> int:
        """Of the alphabet, without the unknown one."""
        return 4 if self.what == "bases" else _NUM_ACIDS

    @property
    def letters_at_once(self) -> int:
        """How many letters are looked up together."""
        return 4 if self.what == "bases" else 2


_KINDS_OF_ACIDS = sorted(set(_AMINO_ACIDS))
_NUM_ACIDS = len(_KINDS_OF_ACIDS)
_ACID_OF_CODON = np.array([_KINDS_OF_ACIDS.index(letter) for letter in _AMINO_ACIDS])

READINGS = tuple(_Reading(what, side) for what in ("bases", "+", "-") for side in ("before", "from"))
_ON_OTHER_STRAND = (1, 0, 4, 5, 2, 3)
"""Which reading each one is on the reverse complement: bases change sides, codons change strands.

What stands before a base is read as the other strand has it, so that a reading and what it is there have the
same vectors.
"""


@dataclass(frozen=True)
class BroughtOver:
    """What the like of each base in the relatives is, by each of the readings.

    Attributes:
        classes: uint8 ``[bases, readings]``.
        weights: uint8 ``[bases, readings]``, of 255: how alike, 255 for an exact copy.
    """

    classes: Labels
    weights: npt.NDArray[np.uint8]

    @classmethod
    def joined(cls, parts: list[BroughtOver]) -> BroughtOver:
        """Of sequences side by side."""
        return cls(
            np.concatenate([part.classes for part in parts]), np.concatenate([part.weights for part in parts])
        )

    def __getitem__(self, part: slice) -> BroughtOver:
        """Of some of the bases."""
        return BroughtOver(self.classes[part], self.weights[part])

    def reverse_complement(self, scheme: ClassScheme) -> BroughtOver:
        """Of the other strand, read from its 5' end."""
        readings = list(_ON_OTHER_STRAND)
        return BroughtOver(scheme.other_strand[self.classes[::-1, readings]], self.weights[::-1, readings])

    def features(self, num_classes: int) -> npt.NDArray[np.float32]:
        """What a model reads: float32 ``[bases, readings * classes]``, the weight at the class, else 0."""
        rows = np.zeros((len(self.classes), len(READINGS), num_classes), dtype=np.float32)
        weights = self.weights.astype(np.float32) / _STEPS
        np.put_along_axis(rows, self.classes[..., None].astype(np.int64), weights[..., None], axis=2)
        return rows.reshape(len(rows), num_features(num_classes))


def num_features(num_classes: int) -> int:
    """How many features `BroughtOver.features` has."""
    return len(READINGS) * num_classes


@dataclass(frozen=True)
class Relatives:
    """Annotated sequences to find the like of others in.

    Attributes:
        codes: uint8 ``[bases]`` of all sequences, 0 to 3 for A, C, G, T, else 4.
        labels: uint8 ``[bases]``.
        ends: int64 ``[sequences]``, behind the last base of each.
        scheme: the classes of the labels.
    """

    codes: npt.NDArray[np.uint8]
    labels: Labels
    ends: npt.NDArray[np.int64]
    scheme: ClassScheme

    @classmethod
    def of(cls, sequences: Iterable[tuple[npt.NDArray[np.uint8], Labels]], scheme: ClassScheme) -> Relatives:
        """Of nucleotide token ids and labels, both ``[bases]``, of each sequence."""
        pairs = list(sequences)
        codes = [_codes(tokens).astype(np.uint8) for tokens, _ in pairs]
        ends = np.cumsum([len(one) for one in codes])
        return cls(np.concatenate(codes), np.concatenate([labels for _, labels in pairs]), ends, scheme)

    def bring_over(
        self,
        sequences: Iterable[npt.NDArray[np.uint8]],
        on_progress: Callable[[int], None] = lambda letters: None,
    ) -> Iterator[BroughtOver]:
        """Finds the like of each base of some sequences.

        Short ones are gone through together and long ones in stretches, with the same result.

        Args:
            sequences: nucleotide token ids ``[bases]`` of each.
            on_progress: called with how many bases one more of the `READINGS` has been done for.
        """
        waiting: list[npt.NDArray[np.uint8]] = []
        for tokens in sequences:
            if waiting and sum(map(len, waiting)) + len(tokens) > _MOST_QUERIES:
                yield from self._bring_over(waiting, on_progress)
                waiting = []
            if len(tokens) > _MOST_QUERIES:
                yield self._by_stretches(tokens, on_progress)
            else:
                waiting.append(tokens)
        if waiting:
            yield from self._bring_over(waiting, on_progress)

    def _by_stretches(self, tokens: npt.NDArray[np.uint8], on_progress: Callable[[int], None]) -> BroughtOver:
        parts = []
        for start in range(0, len(tokens), _MOST_QUERIES):
            first, end = max(start - _REACH, 0), start + _MOST_QUERIES
            (found,) = self._bring_over([tokens[first : end + _REACH]], on_progress)
            parts.append(found[start - first : end - first])
        return BroughtOver.joined(parts)

    def _bring_over(
        self, sequences: list[npt.NDArray[np.uint8]], on_progress: Callable[[int], None]
    ) -> list[BroughtOver]:
        pieces, found = [_codes(tokens) for tokens in sequences], []
        for reading in READINGS:
            found.append(self._by_reading(reading, pieces))
            on_progress(sum(map(len, pieces)))
        classes, weights = (np.stack(parts, axis=1) for parts in zip(*found, strict=True))
        everything, ends = BroughtOver(classes, weights), np.cumsum([len(piece) for piece in pieces])
        return [everything[end - len(piece) : end] for piece, end in zip(pieces, ends, strict=True)]

    def _by_reading(self, reading: _Reading, pieces: list[Codes]) -> tuple[Labels, npt.NDArray[np.uint8]]:
        """Class and weight of each base, uint8 ``[bases]``, by one of the readings."""
        import torch

        from reformer.layers.attention import factors
        from reformer.ops import lsh_attention, lsh_hash

        generator = torch.Generator().manual_seed(reading.seed)
        table = _table(reading, generator)
        keys = torch.cat([_vectors(piece, reading, table) for piece in self._both_strands])[None, None]
        queries = torch.cat([_vectors(piece, reading, table) for piece in pieces])[None, None]
        num_buckets = factors(max(1, 1 << (keys.shape[2] // _KEYS_PER_BUCKET).bit_length() >> 1), _SIZE)
        rotations = _rotations(num_buckets, generator)
        key_buckets = lsh_hash(keys, rotations, num_buckets)
        num_classes = len(self.scheme.names)
        width = -(-num_classes // 8) * 8
        # Of what a query sees, the labels' shares and the mean vector: its product with the query is how
        # alike what it sees is, since the softmax leaves little but the best.
        labels = self._labels_of_both
        values = torch.zeros(1, 1, len(labels), width + _SIZE)
        values[0, 0, torch.arange(len(labels)), labels] = 1
        values[..., width:] = keys
        classes, weights = [], []
        for block in queries.split(keys.shape[2], dim=2):  # no more queries than keys: they are the last ones
            seen = lsh_attention(
                block * _SHARPNESS,
                keys,
                values,
                lsh_hash(block, rotations, num_buckets),
                key_buckets,
                chunk_length=_RANKS,
                num_chunks_before=1,
                num_chunks_after=1,
                causal=False,
                penalize_self=False,
            )[0, 0]
            shares, label = seen[:, :num_classes].max(dim=-1)
            likeness = (seen[:, width:] * block[0, 0]).sum(-1)
            weight = shares * torch.exp(_SHARPNESS * (likeness - 1))
            classes.append(label.to(torch.uint8))
            weights.append((weight.clamp(max=1) * _STEPS).round().to(torch.uint8))
        return torch.cat(classes).numpy(), torch.cat(weights).numpy()

    @property
    def _both_strands(self) -> Iterator[Codes]:
        for codes in np.split(self.codes, self.ends[:-1]):
            yield codes.astype(np.int64)
            yield other_strand(codes.astype(np.int64))

    @cached_property
    def _labels_of_both(self) -> Tensor:
        import torch

        parts = (
            part
            for labels in np.split(self.labels, self.ends[:-1])
            for part in (labels, self.scheme.reverse_complement(labels))
        )
        return torch.from_numpy(np.concatenate(list(parts)).astype(np.int64))

    def write(self, folder: Path) -> None:
        """Writes `relatives.safetensors` into a model's folder."""
        from safetensors.numpy import save_file

        save_file({"codes": self.codes, "labels": self.labels, "ends": self.ends}, folder / RELATIVES_FILE)

    @classmethod
    def read(cls, folder: Path, scheme: ClassScheme) -> Relatives:
        """Reads `relatives.safetensors`.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        file = folder / RELATIVES_FILE
        tables = read_tables(file, "the annotated relatives")
        try:
            codes, labels, ends = tables["codes"], tables["labels"], tables["ends"]
        except KeyError as error:
            raise UserError(f"{file}: damaged: {error}") from error
        types = (codes.dtype, labels.dtype, ends.dtype) == (np.uint8, np.uint8, np.int64)
        fits = types and codes.shape == labels.shape and ends.shape == (ends.size,) and ends.size > 0
        if not fits or ends[-1] != len(codes) or (np.diff(ends, prepend=0) <= 0).any():
            raise UserError(f"{file}: damaged: expected as many labels as bases, and where sequences end")
        if codes.max() > UNKNOWN or labels.max() >= len(scheme.names):
            raise UserError(f"{file}: damaged: expected bases 0 to 4 and labels of the model's classes")
        return cls(codes, labels, ends, scheme)


def _codes(tokens: npt.NDArray[np.uint8]) -> Codes:
    return base_codes(tokens.tobytes().translate(LETTER_OF_TOKEN))


def _table(reading: _Reading, generator: object) -> Tensor:
    """Vectors of groups of letters, float32 ``[groups * (letters + 1)**size, D]``, group after group."""
    import torch

    n, size = len(reading.offsets), reading.letters_at_once
    single = torch.randn(n, reading.num_letters, _SIZE, generator=generator)  # type: ignore[call-overload]
    single -= single.mean(dim=1, keepdim=True)  # so that sequences that are not alike have a product of 0
    single = torch.cat([single, torch.zeros(n, 1, _SIZE)], dim=1)
    groups = []
    for letters in single.split(size):
        total = torch.zeros(1, _SIZE)
        for letter in letters:
            total = (total[:, None] + letter).flatten(0, 1)
        groups.append(total)
    return torch.cat(groups)


def _vectors(codes: Codes, reading: _Reading, table: Tensor) -> Tensor:
    """Unit vectors float32 ``[bases, D]``; 0 where more than half of the letters are unknown."""
    import torch
    from torch.nn import functional as F

    offsets, size = reading.offsets, reading.letters_at_once
    letters, unknown = reading.letters(codes), reading.num_letters
    reach = int(np.abs(offsets).max())
    padded = np.pad(letters, reach, constant_values=unknown)
    num_groups = len(offsets) // size
    rows = len(table) // num_groups
    vectors = torch.empty(len(codes), _SIZE)
    for start in range(0, len(codes), _BLOCK):
        end = min(start + _BLOCK, len(codes))
        at = [padded[reach + start + offset : reach + end + offset] for offset in offsets]
        ids = np.zeros((end - start, num_groups), dtype=np.int64)
        for group in range(num_groups):
            for letter in at[group * size : (group + 1) * size]:
                ids[:, group] = (unknown + 1) * ids[:, group] + letter
            ids[:, group] += group * rows
        block = F.normalize(F.embedding_bag(torch.from_numpy(ids), table, mode="sum"), dim=-1)
        missing = sum((letter == unknown).astype(np.int64) for letter in at)
        block[torch.from_numpy(2 * missing > len(offsets))] = 0
        vectors[start:end] = block
    return vectors


def _rotations(num_buckets: tuple[int, ...], generator: object) -> Tensor:
    import torch

    from reformer.layers.attention import orthonormal

    width = 0 if num_buckets == (1,) else sum(num_buckets) // 2
    rotations = torch.randn(1, _SIZE, _ROUNDS, width, generator=generator)  # type: ignore[call-overload]
    return orthonormal(rotations) if width else rotations
