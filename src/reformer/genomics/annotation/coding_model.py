"""Codon statistics of the training genome: how much likelier a base is in a gene than elsewhere.

Three Markov chains, one for each place in the codon, against one for all that does not code, read along the
gene: the classical content sensor of gene finders (Borodovsky and McIninch, GENMARK: parallel gene
recognition for both DNA strands, Computers & Chemistry 17(2), 1993). A network that reads three bases at a
time learns such statistics slowly, and never as exactly as counting does; it adds what counting cannot see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError

CODING_FILE = "coding.safetensors"
ORDER = 5
"""Two codons: the longest context whose counts a yeast chromosome fills."""

UNKNOWN = 4
_PSEUDOCOUNT = 0.5
_ELSEWHERE = 3  # the row of counts after those of the places in a codon

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Key = TypeVar("Key", bound=str)


@dataclass(frozen=True)
class CodingModel:
    """Log-likelihood ratios of coding to other sequence, base by base.

    Attributes:
        log_odds: float32 ``[3, 4**order, 4]``, nats, by the base's place in its codon, the bases before it
            read as a number to the base 4, and the base.
    """

    log_odds: Floats

    @cached_property
    def order(self) -> int:
        """Bases of context."""
        return (self.log_odds.shape[1].bit_length() - 1) // 2

    @classmethod
    def of(
        cls, sequences: Iterable[tuple[Codes, npt.NDArray[np.integer]]], order: int = ORDER
    ) -> CodingModel:
        """Counts sequences on both strands.

        Args:
            sequences: base codes (0 to 3 for A, C, G, T, else 4) ``[bases]``, and what the bases are: 0 for
                no coding, 1 to 3 for places 0 to 2 of a codon on "+", 4 to 6 on "-".
            order: bases of context.
        """
        counts = np.full((4, 4**order, 4), _PSEUDOCOUNT)
        # What codes on the other strand is neither.
        place_of = np.array([_ELSEWHERE, 0, 1, 2, -1, -1, -1])
        on_minus = np.array([0, 4, 5, 6, 1, 2, 3])
        for codes, classes in sequences:
            for bases, kinds in ((codes, classes), (other_strand(codes), on_minus[classes[::-1]])):
                context = contexts(bases, order)
                known = (context >= 0) & (bases != UNKNOWN) & (place_of[kinds] >= 0)
                np.add.at(counts, (place_of[kinds[known]], context[known], bases[known]), 1)
        logs = np.log(counts / counts.sum(axis=2, keepdims=True))
        return cls((logs[:_ELSEWHERE] - logs[_ELSEWHERE]).astype(np.float32))

    def by_place(self, codes: Codes) -> Floats:
        """Nats for each base in each place of a codon on either strand.

        Args:
            codes: base codes ``[bases]``; their ends have too little context and count as 0, as does N.

        Returns:
            float32 ``[bases, 6]``: places 0 to 2 on "+", then on "-".
        """
        plus, minus = self._one_strand(codes), self._one_strand(other_strand(codes))
        return np.concatenate([plus, minus[::-1]], axis=1)

    def _one_strand(self, codes: Codes) -> Floats:
        context = contexts(codes, self.order)
        known = (context >= 0) & (codes != UNKNOWN)
        nats = self.log_odds[:, np.where(known, context, 0), np.minimum(codes, 3)].T
        return np.where(known[:, None], nats, np.float32(0))

    def write(self, folder: Path) -> None:
        """Writes `coding.safetensors` into a model's folder."""
        from safetensors.numpy import save_file

        save_file({"log_odds": np.ascontiguousarray(self.log_odds)}, folder / CODING_FILE)

    @classmethod
    def read(cls, folder: Path) -> CodingModel:
        """Reads `coding.safetensors`.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        file = folder / CODING_FILE
        try:
            table = read_tables(file, "the codon statistics")["log_odds"]
        except KeyError as error:
            raise UserError(f"{file}: damaged: {error}") from error
        model = cls(table)
        if table.dtype != np.float32 or table.shape != (3, 4**model.order, 4) or not np.isfinite(table).all():
            raise UserError(f"{file}: expected finite float32 [3, 4**order, 4], got {list(table.shape)}")
        return model


def read_tables(file: Path, content: str) -> dict[str, npt.NDArray[Any]]:
    """Reads the arrays of a safetensors file of a model's folder.

    Raises:
        UserError: it is missing or damaged; `content` says what of the model's genome was expected.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.exists():
        raise UserError(f"{file}: missing: expected {content} of the model's genome")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file}: damaged: {error}") from error


def read_log_odds(file: Path, content: str, shapes: Mapping[Key, tuple[int, ...]]) -> dict[Key, Floats]:
    """Reads tables of nats, float32, by their names and shapes.

    Raises:
        UserError: as `read_tables`, and for a table that is missing, of another shape, or not finite float32.
    """
    tables = read_tables(file, content)
    for name, shape in shapes.items():
        table = tables.get(name)
        is_right = table is not None and table.dtype == np.float32 and table.shape == shape
        if not is_right or not np.isfinite(tables[name]).all():
            raise UserError(f'{file}: expected finite float32 {list(shape)} as "{name}"')
    return {name: tables[name] for name in shapes}


def other_strand(codes: Codes) -> Codes:
    """The codes of the reverse complement."""
    return np.where(codes == UNKNOWN, UNKNOWN, 3 - codes)[::-1]


def contexts(codes: Codes, order: int) -> Codes:
    """The bases before each one as a number, -1 where there are too few or an N is among them."""
    padded = np.pad(codes, (order, 0), constant_values=UNKNOWN)
    number, known = np.zeros_like(codes), np.ones(len(codes), dtype=np.bool_)
    for shift in range(order):
        base = padded[shift : shift + len(codes)]
        known &= base != UNKNOWN
        number = 4 * number + np.minimum(base, 3)
    return np.where(known, number, -1)
