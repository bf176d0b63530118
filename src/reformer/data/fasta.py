"""A streaming FASTA reader: blocks of bytes in, records of token ids out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reformer.data.nucleotides import EXPECTED_LETTERS, IUPAC_LETTERS, NOT_A_NUCLEOTIDE
from reformer.data.sinks import RecordSink
from reformer.errors import UserError

LETTERS = IUPAC_LETTERS + IUPAC_LETTERS.lower()
"""The letters that are counted in every record, as they stand in the file, in this order."""

_WHITE_SPACE = b" \t\n\r\v\f"
_MAX_HEADER_BYTES = 1 << 20
_LETTER_CODES = np.frombuffer(LETTERS.encode(), dtype=np.uint8)
_PROTEIN_ONLY = frozenset(b"EFILPQefilpq")
_PROTEIN_OR_UNKNOWN = _PROTEIN_ONLY | frozenset(b"JOXZjoxz*")


def read_fasta(blocks: Iterable[bytes], path: Path, table: bytes, sink: RecordSink) -> None:
    """Reads a nucleotide FASTA file.

    A line that starts with ">" opens a record, named by its first word; every other line is sequence, of
    any width. White space in a sequence, blank lines and carriage returns are skipped. Letters are read by
    the rule of `reformer.data.nucleotides`. Memory is one block, whatever the length of lines and records.

    Args:
        blocks: the content of the file.
        path: named in errors.
        table: 256 token ids, of `nucleotide_table`.
        sink: receives the records.

    Raises:
        UserError: text before the first ">", a record without name or sequence, a letter that is not
            IUPAC nucleotide. The message names the file and the line, and for a letter the column too.
    """
    reader = _FastaReader(path, table, sink)
    for block in blocks:
        reader.feed(block)
    reader.finish()


class _FastaReader:
    def __init__(self, path: Path, table: bytes, sink: RecordSink) -> None:
        self._path = path
        self._table = table
        self._sink = sink
        self._line = 1
        self._column = 0  # bytes of the current line that have been consumed
        self._header: bytearray | None = None  # the header line being read, without its ">"
        self._name: str | None = None
        self._name_line = 0
        self._counts = np.zeros(256, dtype=np.int64)

    def feed(self, block: bytes) -> None:
        position = 0
        while position < len(block):
            if self._header is not None:
                position = self._feed_header(block, position)
            elif self._column == 0 and block[position] == ord(">"):
                self._end_record()
                self._header = bytearray()
                position += 1
            else:
                # A ">" inside a line belongs to the sequence, and is refused there.
                stop = block.find(b">", position + 1)
                stop = len(block) if stop < 0 else stop
                self._feed_sequence(block[position:stop])
                position = stop

    def finish(self) -> None:
        if self._header is not None:
            self._begin_record()
        if self._name is None:
            raise UserError(f'{self._path}: no record: expected a line that starts with ">"')
        self._end_record()

    def _feed_header(self, block: bytes, position: int) -> int:
        assert self._header is not None
        end = block.find(b"\n", position)
        self._header += block[position : end if end >= 0 else len(block)]
        if len(self._header) > _MAX_HEADER_BYTES:
            raise UserError(
                f"{self._path}, line {self._line}: a header line of more than {_MAX_HEADER_BYTES:,} bytes; "
                "expected lines that end with a line feed"
            )
        if end < 0:
            return len(block)
        self._begin_record()
        self._line += 1
        return end + 1

    def _begin_record(self) -> None:
        assert self._header is not None
        words = self._header.split(maxsplit=1)
        if not words:
            raise UserError(f'{self._path}, line {self._line}: a record without a name: expected ">name"')
        self._name = words[0].decode("utf-8", errors="backslashreplace")
        self._name_line = self._line
        self._sink.begin_record(self._name, f"{self._path}, line {self._line}")
        self._header = None
        self._counts[:] = 0

    def _end_record(self) -> None:
        if self._name is not None and self._sink.end_record(self._counts[_LETTER_CODES]) == 0:
            raise UserError(f"{self._path}, line {self._name_line}: record {self._name!r} has no sequence")

    def _feed_sequence(self, segment: bytes) -> None:
        if self._name is None:
            self._refuse_text_before_first_record(segment)
        else:
            ids = segment.translate(self._table, _WHITE_SPACE)
            if NOT_A_NUCLEOTIDE in ids:
                self._refuse_letter(segment)
            self._sink.append(ids)
            self._counts += np.bincount(np.frombuffer(segment, dtype=np.uint8), minlength=256)
        self._line, self._column = self._place_after(segment)

    def _place_after(self, segment: bytes) -> tuple[int, int]:
        """Line number and bytes consumed of that line once `segment` has been read."""
        line_end = segment.rfind(b"\n")
        if line_end < 0:
            return self._line, self._column + len(segment)
        return self._line + segment.count(b"\n"), len(segment) - 1 - line_end

    def _refuse_text_before_first_record(self, segment: bytes) -> None:
        text = segment.lstrip(_WHITE_SPACE)
        if not text:
            return
        line, _ = self._place_after(segment[: len(segment) - len(text)])
        if text.startswith(b";"):
            raise UserError(f'{self._path}, line {line}: old-style FASTA (";" lines) is not read')
        raise UserError(
            f'{self._path}, line {line}: text before the first record: expected a line that starts with ">"'
        )

    def _refuse_letter(self, segment: bytes) -> None:
        letters = segment.translate(None, _WHITE_SPACE)
        bad = letters.translate(None, LETTERS.encode())
        line, column = self._place_after(segment[: segment.index(bad[:1])])
        hint = f"; expected {EXPECTED_LETTERS}"
        if _PROTEIN_ONLY.intersection(bad) and _PROTEIN_OR_UNKNOWN.issuperset(bad):
            hint = "; the sequence looks like protein, expected nucleotides"
        elif bad[:1] in b"-.":
            hint = "; gaps are not read, expected an ungapped sequence"
        raise UserError(
            f"{self._path}, line {line}, column {column + 1}, record {self._name!r}: "
            f"{_shown(bad[0])} is not a nucleotide letter{hint}"
        )


def _shown(byte: int) -> str:
    return repr(chr(byte)) if 0x20 < byte < 0x7F else f"byte 0x{byte:02X}"
