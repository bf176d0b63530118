"""Reading a source file once, front to back: plain or gzip, in blocks, hashed on the way."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reformer.errors import UserError

BLOCK_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class SourceFile:
    """A file as it stood when it was looked at: absolute path, size in bytes, modification time."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> SourceFile:
        """Looks at `path`; raises UserError unless it is a regular file with something in it."""
        absolute = Path(os.path.abspath(path))
        try:
            status = absolute.stat()
        except OSError as error:
            raise _cannot_read(absolute, error) from error
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{absolute}: is a folder, expected a file")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{absolute}: is not a regular file")
        if status.st_size == 0:
            raise UserError(f"{absolute}: the file is empty")
        return cls(absolute, status.st_size, status.st_mtime_ns)

    def check_unchanged(self) -> None:
        """Raises UserError if the file is no longer the one that `at` saw."""
        if SourceFile.at(self.path) != self:
            raise UserError(f"{self.path}: changed while it was being read; build again")


class SourceReader:
    """The bytes of one source, decompressed if they are gzip or BGZF (told by content, not by name).

    Attributes:
        sha256: digest of what has been read from disk, that is of the whole file once `blocks` has ended.
    """

    def __init__(self, source: SourceFile, on_read: Callable[[int], None]) -> None:
        self._source = source
        self._on_read = on_read
        self.sha256 = hashlib.sha256()

    def blocks(self) -> Generator[bytes, None, None]:
        """Yields the content in blocks of at most `BLOCK_BYTES`, none of them empty.

        Raises:
            UserError: the file cannot be read, or its gzip data are truncated or damaged.
        """
        path, is_empty = self._source.path, True
        try:
            with open(path, "rb") as file:
                stream = self._content(file)
                while block := stream.read(BLOCK_BYTES):
                    is_empty = False
                    yield block
        except EOFError as error:
            raise UserError(f"{path}: truncated gzip file: it ends inside its compressed data") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: damaged gzip file: {error}") from error
        except OSError as error:
            raise _cannot_read(path, error) from error
        if is_empty:
            raise UserError(f"{path}: the gzip file holds nothing")

    def _content(self, file: BinaryIO) -> gzip.GzipFile | _Hashed:
        start = file.read(18)
        file.seek(0)
        hashed = _Hashed(file, self.sha256.update, self._on_read)
        if not start.startswith(_GZIP_MAGIC):
            return hashed
        if start[3:4] == b"\x04" and start[12:14] == b"BC":
            self._check_bgzf_end(file)
        return gzip.GzipFile(fileobj=hashed, mode="rb")  # type: ignore[call-overload]

    def _check_bgzf_end(self, file: BinaryIO) -> None:
        """BGZF ends with an empty block: without it, blocks are missing even if the last one is whole."""
        file.seek(max(0, self._source.size - len(_BGZF_END)))
        if file.read() != _BGZF_END:
            raise UserError(
                f"{self._source.path}: truncated BGZF file: the block that marks its end is missing"
            )
        file.seek(0)


class _Hashed:
    """The `read` of a file, telling every block to a digest and its size to a progress counter."""

    def __init__(
        self, file: BinaryIO, update: Callable[[bytes], None], on_read: Callable[[int], None]
    ) -> None:
        self._file = file
        self._update = update
        self._on_read = on_read

    def read(self, size: int) -> bytes:
        block = self._file.read(size)
        self._update(block)
        self._on_read(len(block))
        return block


def _cannot_read(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read: {error.strerror or error}")
