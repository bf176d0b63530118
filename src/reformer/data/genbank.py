"""GenBank files, line by line: their sequences as FASTA, and their annotations without the sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from pathlib import Path

from reformer.errors import UserError

GENBANK_SUFFIXES = (".gb", ".gbk", ".gbff", ".genbank")

_NAMES = (b"VERSION", b"ACCESSION", b"LOCUS")  # the first of these that has a word names the record
_MAX_LINE_BYTES = 1 << 24
_LINES_PER_BLOCK = 1 << 14


def begins_like_genbank(start: bytes) -> bool:
    """Whether the beginning of a file is that of a GenBank file."""
    return start.lstrip()[:6].split() == [b"LOCUS"]


def genbank_as_fasta(blocks: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """Yields the sequences of a GenBank file as FASTA, in blocks of whole lines.

    Every line of the file has one here, and every base its column, so that what is said of a place holds in
    the file too; what is no sequence is blank. Bases are in upper case, for the format has no other.

    Args:
        blocks: the content of the file.
        path: named in errors.

    Raises:
        UserError: the file is not GenBank or ends in the middle, or a record has no sequence.
    """
    lines: list[bytes] = []
    reader = _GenBankLines(path)
    for part, text in reader.read(blocks):
        if part is _Part.ORIGIN:
            lines.append(b">" + reader.name)
        else:
            lines.append(text.upper() if part is _Part.BASES else b"")
        if part is _Part.END and not reader.num_bases:
            raise UserError(
                f"{reader.place}: no sequence after ORIGIN: expected a GenBank file with its bases "
                "(NCBI calls it full)"
            )
        if len(lines) == _LINES_PER_BLOCK:
            yield b"\n".join(lines) + b"\n"
            lines.clear()
    yield b"\n".join(lines) + b"\n"


def genbank_annotations(blocks: Iterable[bytes], path: Path) -> Iterator[tuple[str, int, str]]:
    """Yields for each record its name, the line that it begins in and its text without the bases.

    Args:
        blocks: the content of the file.
        path: named in errors.

    Raises:
        UserError: the file is not GenBank, is not UTF-8 or ends in the middle.
    """
    lines: list[str] = []
    reader = _GenBankLines(path)
    for part, text in reader.read(blocks):
        if part not in (_Part.BETWEEN, _Part.BASES):
            try:
                lines.append(text.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise UserError(f"{reader.place}: not UTF-8 at byte {error.start + 1} of the line") from error
        if part is _Part.END:
            yield reader.name.decode(errors="backslashreplace"), reader.first_line, "\n".join(lines) + "\n"
            lines.clear()


class _Part(Enum):
    """What a line is."""

    BETWEEN = auto()
    ANNOTATION = auto()
    ORIGIN = auto()
    BASES = auto()
    END = auto()


class _GenBankLines:
    """Reads lines and knows which record they belong to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line = 0
        self._names: dict[bytes, bytes] = {}
        self.first_line = 0
        self.num_bases = 0

    @property
    def name(self) -> bytes:
        """The record's: of its version, its accession, or its locus where it lacks these."""
        return next((self._names[key] for key in _NAMES if key in self._names), b"")

    @property
    def place(self) -> str:
        """The line that was read last, and its record."""
        record = f", record {self.name.decode(errors='backslashreplace')!r}" if self._names else ""
        return f"{self._path}, line {self._line}{record}"

    def read(self, blocks: Iterable[bytes]) -> Iterator[tuple[_Part, bytes]]:
        """Yields part and text of every line, the number before its bases as spaces."""
        part = _Part.BETWEEN
        for number, line in enumerate(self._split(blocks), 1):
            self._line, text = number, line.rstrip()
            if part in (_Part.BETWEEN, _Part.END):
                part = self._before(text)
            elif text.startswith(b"//"):
                part = _Part.END
            elif part is _Part.ANNOTATION:
                part = _Part.ORIGIN if text.startswith(b"ORIGIN") else part
            else:
                part, text = _Part.BASES, self._bases(text)
            if part is _Part.ANNOTATION and text.startswith(_NAMES):
                keyword, *words = text.split(maxsplit=2)
                if words:
                    self._names.setdefault(keyword, words[0])
            yield part, text
        if part not in (_Part.BETWEEN, _Part.END):
            raise UserError(f'{self.place}: the file ends inside the record: expected a line "//"')
        if not self.first_line:
            raise UserError(f'{self._path}: no GenBank record: expected a line that starts with "LOCUS"')

    def _before(self, text: bytes) -> _Part:
        if not text:
            return _Part.BETWEEN
        if not begins_like_genbank(text):
            self._names = {}
            raise UserError(f'{self.place}: not GenBank: expected a line that starts with "LOCUS"')
        self._names, self.first_line, self.num_bases = {}, self._line, 0
        return _Part.ANNOTATION

    def _bases(self, text: bytes) -> bytes:
        number, _, bases = text.lstrip().partition(b" ")
        if not number:
            return text
        if number != b"%d" % (self.num_bases + 1):
            raise UserError(
                f"{self.place}: begins with {number[:20].decode(errors='backslashreplace')!r}: "
                f"expected {self.num_bases + 1}, the number of the line's first base"
            )
        self.num_bases += len(bases.translate(None, b" \t"))
        return bases.rjust(len(text))

    def _split(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        rest = b""
        for block in blocks:
            *lines, rest = (rest + block).split(b"\n")
            yield from lines
            if len(rest) > _MAX_LINE_BYTES:
                raise UserError(
                    f"{self._path}: a line of more than {_MAX_LINE_BYTES:,} bytes: expected a line feed"
                )
        if rest:
            yield rest
