"""Letters of a genome by name and interval, read from a FASTA or GenBank file when they are asked for.

For training on all of a genome use `reformer.data.build_token_array`, which maps token ids; this is for
commands that need the letters around something: a variant, a region, a gene.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from reformer.data.genbank import begins_like_genbank, genbank_as_fasta
from reformer.data.sources import SourceFile, SourceReader
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.extras import require
from reformer.genomics.formats.htslib import silent_htslib

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER = re.compile(rb"\n>(\S*)")


class Genome:
    """A FASTA file, plain, BGZF or gzip, or a GenBank file, through pysam; a context manager.

    An index beside the file (``.fai``) that is not older than it is used; else one is made in a temporary
    folder, so that nothing is written next to the user's data. gzip and GenBank have no random access: the
    sequences of such a file are unpacked to that folder first, in constant memory.

    Attributes:
        path: the file.
        lengths: name -> bases, in the order of the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the file.

        Raises:
            UserError: pysam is missing, the file cannot be read, is neither FASTA nor GenBank, or has a name
                twice.
        """
        pysam = require("pysam", "to read a genome by region")
        source = SourceFile.at(path)
        self.path = source.path
        self._folder = tempfile.TemporaryDirectory(prefix="reformer-genome-")
        try:
            self._file: Any = self._open(pysam, source)
            self.lengths: dict[str, int] = dict(zip(self._file.references, self._file.lengths, strict=True))
        except BaseException:
            self._folder.cleanup()
            raise

    def _open(self, pysam: Any, source: SourceFile) -> Any:
        path, folder = source.path, Path(self._folder.name)
        with closing(SourceReader(source, lambda _: None).blocks()) as blocks:
            first = next(blocks)
            if begins_like_genbank(first):
                path = _write(_bare(genbank_as_fasta(chain([first], blocks), path)), folder / "genome.fa")
            elif not first.lstrip().startswith(b">"):
                raise UserError(f'{path}, line 1: not FASTA: expected a line that starts with ">"')
            elif _is_gzip(path) and not _is_bgzf(path):
                path = _write(chain([first], blocks), folder / "genome.fa")
        index, positions = Path(f"{path}.fai"), Path(f"{path}.gzi")
        needed = [index, positions] if _is_gzip(path) else [index]
        if not all(file.exists() and file.stat().st_mtime_ns >= source.mtime_ns for file in needed):
            index, positions = folder / "genome.fai", folder / "genome.gzi"
            self._check_names(SourceFile.at(path))
            try:
                with silent_htslib():
                    pysam.faidx("--fai-idx", str(index), "--gzi-idx", str(positions), str(path))
            except pysam.SamtoolsError as error:
                reason = " ".join(str(error).split())
                raise UserError(f"{self.path}: cannot be indexed: {reason}") from error
        try:
            return pysam.FastaFile(str(path), str(index), str(positions) if _is_gzip(path) else None)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: cannot be opened: {error}") from error

    def _check_names(self, source: SourceFile) -> None:
        """Looks for a name that occurs twice, of which htslib keeps the first sequence without a word."""
        seen: set[bytes] = set()
        for name in _names(SourceReader(source, lambda _: None).blocks()):
            if name in seen:
                shown = name.decode(errors="backslashreplace")
                raise UserError(f"{self.path}: duplicate record name {shown!r}; expected every name once")
            seen.add(name)

    def letters(self, interval: Interval) -> str:
        """Returns the letters of an interval as they stand in the file, or their reverse complement on "-".

        Raises:
            UserError: the sequence is not in the genome, ends before the interval, or cannot be read.
        """
        length = self.lengths.get(interval.sequence)
        if length is None:
            raise UserError(f"{self.path}: no sequence {interval.sequence!r}")
        if interval.end > length:
            raise UserError(
                f"{self.path}: {interval.sequence!r} has {length:,} bases: expected {interval.end:,}"
            )
        letters = self._file.fetch(interval.sequence, interval.start, interval.end)
        if len(letters) != len(interval):
            raise UserError(f"{self.path}: {interval.sequence!r} is cut short or its index is stale")
        if interval.strand != "-":
            return str(letters)
        try:
            return reverse_complement(letters)
        except ValueError as error:
            raise UserError(f"{self.path}: in {interval.sequence!r}: {error}") from error

    def close(self) -> None:
        """Closes the file and removes what was made for it."""
        self._file.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _is_bgzf(path: Path) -> bool:
    with open(path, "rb") as file:
        start = file.read(18)
    return start[:2] == _GZIP_MAGIC and start[3:4] == b"\x04" and start[12:14] == b"BC"


def _write(blocks: Iterable[bytes], target: Path) -> Path:
    with open(target, "wb") as file:
        for block in blocks:
            file.write(block)
    return target


def _bare(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """FASTA without spaces and empty lines, which an index does not allow; blocks of whole lines."""
    for block in blocks:
        yield re.sub(rb"\n\n+", b"\n", block.translate(None, b" \t")).lstrip(b"\n")


def _names(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The first word of every header of a FASTA file."""
    rest = b"\n"
    for block in blocks:
        text = rest + block
        end = max(text.rfind(b"\n"), 0)
        yield from _HEADER.findall(text[:end])
        # Of a line that goes on in the next block only a header matters.
        rest = text[end:] if text[end : end + 2] in (b"\n", b"\n>") else b""
    yield from _HEADER.findall(rest)
