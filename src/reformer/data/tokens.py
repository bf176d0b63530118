"""`TokenArray`: token ids of any number of sequences in one memory-mapped file.

A token array is a folder:

- ``tokens.bin``: the ids, uint8, record after record, nothing between them;
- ``records.npy``: int64 ``[records, 4]``: start and length in tokens, start and length of the name in
  bytes of ``names.txt``;
- ``names.txt``: the names, UTF-8, one per line;
- ``letter_counts.npy``, for FASTA: int64 ``[records, letters]``, how often each letter stands in the source;
- ``index.json``: sizes of the files above, tokenizer with policy and vocabulary, the letters, the sources.

Opening reads ``index.json`` and maps the rest, so it takes milliseconds whatever the size.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from reformer.data.vocabularies import LowerCase, TokenizerName, vocabulary
from reformer.errors import UserError

FORMAT = "reformer token array"
VERSION = 1
INDEX, TOKENS, RECORDS, NAMES, LETTER_COUNTS = (
    "index.json",
    "tokens.bin",
    "records.npy",
    "names.txt",
    "letter_counts.npy",
)


class Record(NamedTuple):
    """One sequence of a token array; `start` and `length` count tokens, `start` from the array's first."""

    name: str
    start: int
    length: int


@dataclass(frozen=True)
class Source:
    """A file that a token array was built from: absolute path, bytes, modification time, SHA-256."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True)
class ArrayIndex:
    """The content of ``index.json``; `file_sizes` maps the names of the other files to bytes."""

    tokenizer_name: TokenizerName
    lower_case: LowerCase | None
    num_tokens: int
    num_records: int
    letters: str | None
    file_sizes: dict[str, int]
    sources: tuple[Source, ...]

    def to_json(self) -> str:
        """Returns the text of ``index.json``, with the vocabulary written out."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        content["vocabulary"] = vocabulary(self.tokenizer_name, self.lower_case)
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> ArrayIndex:
        """Reads ``index.json``; raises UserError if it is missing, not one of ours or of another version."""
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise UserError(f'{path}: not the index of a token array: expected "format": "{FORMAT}"')
            if (version := content.pop("version", None)) != VERSION:
                raise UserError(f"{path}: token array version {version}, expected {VERSION}: build it again")
            tokens = content.pop("vocabulary", None)
            index = cls(**content | {"sources": tuple(Source(**source) for source in content["sources"])})
            if tokens != vocabulary(index.tokenizer_name, index.lower_case):
                raise UserError(f"{path}: its vocabulary is not that of this version: build it again")
        except FileNotFoundError as error:
            raise UserError(f"{path.parent}: not a token array: {path.name} is missing") from error
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise UserError(f"{path}: damaged: not JSON ({error})") from error
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged: a field is missing or unknown ({error})") from error
        return index


class Records(Sequence[Record]):
    """The records of a token array, read from the mapped files when they are asked for.

    Attributes:
        starts: int64 ``[records]``, first token of each record.
        lengths: int64 ``[records]``, tokens of each record.
    """

    def __init__(self, table: npt.NDArray[np.int64], names: npt.NDArray[np.uint8]) -> None:
        self.starts = table[:, 0]
        self.lengths = table[:, 1]
        self._table = table
        self._names = names

    @classmethod
    def of(cls, records: Sequence[Record]) -> Records:
        """Makes them of records in memory."""
        names = [record.name.encode() for record in records]
        ends = np.cumsum([0, *map(len, names)])
        rows = [
            (record.start, record.length, ends[i], len(name))
            for i, (record, name) in enumerate(zip(records, names, strict=True))
        ]
        table = np.array(rows, dtype=np.int64).reshape(-1, 4)
        return cls(table, np.frombuffer(b"".join(names), dtype=np.uint8))

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, length, name_start, name_length = self._table[index].tolist()
        name = self._names[name_start : name_start + name_length].tobytes().decode("utf-8")
        return Record(name, start, length)


class TokenArray:
    """Token ids of one or more sequences, mapped read-only from disk.

    Made by `reformer.data.build_token_array`, opened again with `TokenArray.open`. Pickling stores the
    folder's path only, so that worker processes map the file instead of receiving a copy.

    Attributes:
        folder: where it is.
        tokens: uint8 ``[tokens]``, all ids, a read-only `numpy.memmap`.
        records: the sequences, as (name, start, length).
    """

    def __init__(self, folder: Path, index: ArrayIndex) -> None:
        """Maps the files of `folder`; use `TokenArray.open`."""
        self.folder = folder
        self._index = index
        self.tokens: np.memmap = np.memmap(folder / TOKENS, dtype=np.uint8, mode="r")
        self.records = Records(
            np.load(folder / RECORDS, mmap_mode="r", allow_pickle=False),
            np.memmap(folder / NAMES, dtype=np.uint8, mode="r"),
        )
        self._spans: tuple[Record, ...] | None = None
        self._letter_counts: npt.NDArray[np.int64] | None = None
        if index.letters is not None:
            self._letter_counts = np.load(folder / LETTER_COUNTS, mmap_mode="r", allow_pickle=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> TokenArray:
        """Opens the token array in `folder`, in milliseconds whatever its size.

        Raises:
            UserError: there is none, or its files do not have the sizes that its index states.
        """
        folder = Path(os.path.abspath(folder))
        index = ArrayIndex.read(folder / INDEX)
        for name, expected in index.file_sizes.items():
            _check_size(folder / name, expected)
        try:
            array = cls(folder, index)
            _check_shapes(array, index)
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{folder}: damaged token array: {error}") from error
        return array

    def select(self, spans: Sequence[Record]) -> TokenArray:
        """Returns an array whose records are stretches of this one's; no token is copied.

        Args:
            spans: names and places in this array, which rise and do not overlap.

        Raises:
            ValueError: a span is empty, outside the array, or not behind the one before it.
        """
        end = 0
        for span in spans:
            if span.length < 1 or span.start < end or span.start + span.length > len(self.tokens):
                raise ValueError(f"{span}: expected tokens behind {end} and inside {len(self.tokens)}")
            end = span.start + span.length
        selected = copy(self)
        selected._letter_counts = None
        selected._spans = tuple(spans)
        selected.records = Records.of(spans)
        return selected

    def __len__(self) -> int:
        """Returns the number of tokens in all records together."""
        return int(self.records.lengths.sum())

    def __repr__(self) -> str:
        return (
            f"TokenArray({str(self.folder)!r}: {len(self):,} {self.tokenizer_name} tokens "
            f"in {len(self.records):,} records)"
        )

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        if self._spans is None:
            return TokenArray.open, (self.folder,)
        return _open_selected, (self.folder, self._spans)

    @property
    def tokenizer_name(self) -> TokenizerName:
        """Name of the tokenizer whose ids these are, "nucleotide", "byte" or "protein"."""
        return self._index.tokenizer_name

    @property
    def lower_case(self) -> LowerCase | None:
        """What was done with lower-case nucleotides, "fold" or "keep"; None for others."""
        return self._index.lower_case

    @property
    def vocabulary(self) -> dict[str, int]:
        """Token -> id, special tokens included."""
        return vocabulary(self.tokenizer_name, self.lower_case)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files that the array was built from."""
        return self._index.sources

    def window(self, start: int, length: int) -> npt.NDArray[np.uint8]:
        """Returns `length` tokens from `start` on, a read-only uint8 view ``[length]``: nothing is copied.

        Raises:
            UserError: the window is empty or not inside the array.
        """
        if not (length > 0 and 0 <= start <= len(self.tokens) - length):
            raise UserError(
                f"{self.folder}: window of {length} tokens from {start}: expected 1 or more tokens inside "
                f"the array's {len(self.tokens)}"
            )
        return np.asarray(self.tokens[start : start + length])

    def letter_counts(self, record: int | None = None) -> dict[str, int]:
        """Counts the letters of the source, as they stood there (before U, IUPAC and case were mapped).

        Args:
            record: a position in `records`; None for all of them together.

        Returns:
            letter -> count, for letters that occur; empty for text, and for a selection.
        """
        if self._letter_counts is None or self._index.letters is None:
            return {}
        counts = self._letter_counts.sum(axis=0) if record is None else self._letter_counts[record]
        return {letter: n for letter, n in zip(self._index.letters, counts.tolist(), strict=True) if n}


def _open_selected(folder: Path, spans: tuple[Record, ...]) -> TokenArray:
    return TokenArray.open(folder).select(spans)


def _check_size(path: Path, expected: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise UserError(f"{path}: damaged token array: {error.strerror or error}") from error
    if found != expected:
        raise UserError(
            f"{path}: damaged token array: the file has {found} bytes, expected {expected}; "
            "remove the folder and build it again"
        )


def _check_shapes(array: TokenArray, index: ArrayIndex) -> None:
    expected = (index.num_records, 4)
    if array.records._table.shape != expected:
        raise ValueError(f"{RECORDS} has shape {array.records._table.shape}, expected {expected}")
    end = int(array.records.starts[-1] + array.records.lengths[-1])
    if not end == len(array.tokens) == index.num_tokens:
        raise ValueError(
            f"{TOKENS} has {len(array.tokens)} tokens, the records end at {end}, expected {index.num_tokens}"
        )
    if array._letter_counts is not None and index.letters is not None:
        expected = (index.num_records, len(index.letters))
        if array._letter_counts.shape != expected:
            raise ValueError(f"{LETTER_COUNTS} has shape {array._letter_counts.shape}, expected {expected}")
