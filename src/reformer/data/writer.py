"""Writing the files of a token array, record by record, in constant memory per record."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from reformer.data.tokens import INDEX, LETTER_COUNTS, NAMES, RECORDS, TOKENS, ArrayIndex, Source
from reformer.data.vocabularies import LowerCase, TokenizerName
from reformer.errors import UserError


class TokenArrayWriter:
    """Fills an existing empty folder with a token array; `finish` writes ``index.json``, last.

    A context manager: leaving it closes the files, finished or not.

    Args:
        folder: the folder.
        tokenizer_name: whose ids are written.
        lower_case: policy, None for text.
        letters: the letters that are counted per record, None if none are.
    """

    def __init__(
        self, folder: Path, tokenizer_name: TokenizerName, lower_case: LowerCase | None, letters: str | None
    ) -> None:
        self._folder = folder
        self._tokenizer_name = tokenizer_name
        self._lower_case: LowerCase | None = lower_case
        self._letters = letters
        self._tokens = open(folder / TOKENS, "wb")  # noqa: SIM115 - closed in `_close`
        self._names = open(folder / NAMES, "wb")  # noqa: SIM115
        self._records = _RowFile(folder / RECORDS, 4)
        self._counts = _RowFile(folder / LETTER_COUNTS, len(letters)) if letters is not None else None
        self._record_numbers: dict[str, int] = {}
        self._num_tokens = 0
        self._start = 0
        self._name_start = 0
        self._name_length = 0

    def begin_record(self, name: str, place: str) -> None:
        """Starts a record; raises UserError if an earlier record of the array has that name."""
        number = len(self._record_numbers) + 1
        if (earlier := self._record_numbers.setdefault(name, number)) != number:
            raise UserError(
                f"{place}: duplicate record name {name!r} (record {earlier} has it); expected every name once"
            )
        encoded = name.encode("utf-8") + b"\n"
        self._name_length = len(encoded) - 1
        self._start = self._num_tokens
        self._names.write(encoded)

    def append(self, ids: bytes) -> None:
        """Adds token ids, one byte each, to the record."""
        self._tokens.write(ids)
        self._num_tokens += len(ids)

    def end_record(self, letter_counts: npt.NDArray[np.int64] | None = None) -> int:
        """Ends the record and returns its length in tokens."""
        length = self._num_tokens - self._start
        self._records.append([self._start, length, self._name_start, self._name_length])
        self._name_start += self._name_length + 1
        if self._counts is not None and letter_counts is not None:
            self._counts.append(letter_counts)
        return length

    def finish(self, sources: tuple[Source, ...]) -> None:
        """Closes the files and writes the index that makes the folder a token array."""
        self._close()
        names = [TOKENS, RECORDS, NAMES, *([LETTER_COUNTS] if self._letters is not None else [])]
        index = ArrayIndex(
            self._tokenizer_name,
            self._lower_case,
            num_tokens=self._num_tokens,
            num_records=self._records.num_rows,
            letters=self._letters,
            file_sizes={name: (self._folder / name).stat().st_size for name in names},
            sources=sources,
        )
        (self._folder / INDEX).write_text(index.to_json(), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def _close(self) -> None:
        for file in (self._tokens, self._names, self._records, self._counts):
            if file is not None:
                file.close()


class _RowFile:
    """An int64 ``.npy`` file of shape [rows, columns] whose rows come one by one."""

    def __init__(self, path: Path, num_columns: int) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed in `close`
        self._num_columns = num_columns
        self.num_rows = 0
        self._write_header()

    def append(self, row: list[int] | npt.NDArray[np.int64]) -> None:
        self._file.write(np.asarray(row, dtype="<i8").tobytes())
        self.num_rows += 1

    def close(self) -> None:
        """Writes the final number of rows over the first header and closes the file."""
        if not self._file.closed:
            self._file.seek(0)
            self._write_header()
            self._file.close()

    def _write_header(self) -> None:
        # NumPy pads this header so that the first axis can grow to any length without moving the data.
        header = {"descr": "<i8", "fortran_order": False, "shape": (self.num_rows, self._num_columns)}
        np.lib.format.write_array_header_1_0(self._file, header)
