"""Lines of a text file, plain or gzip, numbered so that an error can say where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reformer.data.sources import SourceFile, SourceReader
from reformer.errors import UserError

MAX_LINE_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"

    def error(self, message: str) -> UserError:
        """The error to raise for what is wrong there."""
        return UserError(f"{self}: {message}")

    def number(self, text: str, what: str) -> int:
        """Reads a whole number from 0 on; raises UserError if it is not one."""
        if not (text.isascii() and text.isdigit()):
            raise self.error(f"{what} is {text!r}: expected a whole number")
        return int(text)


def numbered_lines(path: str | os.PathLike[str]) -> Iterator[tuple[Place, str]]:
    """Yields the lines of a UTF-8 file without their ends, in constant memory.

    Raises:
        UserError: the file cannot be read, is empty, is a damaged gzip file or not UTF-8, or has a line
            of more than `MAX_LINE_BYTES`.
    """
    source = SourceFile.at(path)
    number, rest = 1, b""
    for block in SourceReader(source, lambda _: None).blocks():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield _decoded(line, Place(source.path, number))
            number += 1
        if len(rest) > MAX_LINE_BYTES:
            place = Place(source.path, number)
            raise place.error(f"a line of more than {MAX_LINE_BYTES:,} bytes: expected a line feed")
    if rest:
        yield _decoded(rest, Place(source.path, number))


def _decoded(line: bytes, place: Place) -> tuple[Place, str]:
    try:
        return place, line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
        raise place.error(f"not UTF-8 at byte {error.start + 1} of the line") from error
