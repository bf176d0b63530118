"""Building token arrays from source files, once: the result is kept in a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal, get_args

from reformer.data.fasta import LETTERS, read_fasta
from reformer.data.genbank import GENBANK_SUFFIXES, begins_like_genbank, genbank_as_fasta
from reformer.data.nucleotides import nucleotide_table
from reformer.data.sources import SourceFile, SourceReader
from reformer.data.text import read_text
from reformer.data.tokens import VERSION, Source, TokenArray
from reformer.data.vocabularies import LowerCase, TokenizerName, check_lower_case
from reformer.data.writer import TokenArrayWriter
from reformer.errors import UserError

SourceFormat = Literal["auto", "fasta", "text"]
Kind = Literal["FASTA", "GenBank", "text"]
Progress = Callable[[int, int], None]

_FASTA_SUFFIXES = {".fa", ".fasta", ".fna", ".ffn", ".frn", ".faa", ".fas"}
_TEMPORARY_PREFIX = ".building-"
_ABANDONED_AFTER_SECONDS = 24 * 3600


def build_token_array(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    cache_dir: str | os.PathLike[str],
    *,
    format: SourceFormat = "auto",
    lower_case: LowerCase = "fold",
    progress: Progress | None = None,
) -> TokenArray:
    """Turns FASTA, GenBank or text files into one token array, or opens the one that was built before.

    The array lies in a folder of `cache_dir` whose name derives from the files' absolute paths, sizes and
    modification times and from the arguments; while these are the same, the sources are not read again. It
    is built under a temporary name and renamed, so it is whole or absent, and processes that build the same
    array at the same time all get it. Memory does not grow with the size of the sources.

    FASTA and GenBank files become nucleotide tokens, by the rule of `reformer.data.nucleotides`, one record
    per sequence, named by the first word of its header, or its accession with version. Text files become
    byte tokens, one record per file, named by the file's stem. Both may be gzip or BGZF. Record names are
    unique within an array.

    Args:
        paths: one file or several; their records follow each other in this order.
        cache_dir: made if it does not exist.
        format: "auto" takes files whose first character other than white space is ">" for FASTA, and those
            that begin with "LOCUS" for GenBank; "fasta" means either.
        lower_case: "fold" drops the case of nucleotides; "keep" gives lower case tokens of its own.
        progress: called with bytes read so far and bytes to read, both as on disk.

    Returns:
        The array, mapped read-only.

    Raises:
        UserError: a file is missing, unreadable, empty, damaged or not what `format` says, or the cache
            cannot be written. The message names the file and the place.
    """
    paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not paths:
        raise UserError("no source files: expected at least one FASTA, GenBank or text file")
    if format not in get_args(SourceFormat):
        raise UserError(f'format is {format!r}: expected "auto", "fasta" or "text"')
    check_lower_case(lower_case)
    sources = [SourceFile.at(path) for path in paths]
    folder = Path(os.path.abspath(cache_dir)) / _cache_name(sources, format, lower_case)
    if not os.path.exists(folder):
        with _temporary_folder(folder) as temporary:
            _write(temporary, sources, format, lower_case, progress)
            _publish(temporary, folder)
    return TokenArray.open(folder)


def build_record_array(
    records: Iterable[tuple[str, bytes]],
    tokenizer_name: TokenizerName,
    sources: Iterable[Source],
    cache_dir: str | os.PathLike[str],
) -> TokenArray:
    """Makes a token array of records in memory, or opens that of the same records.

    Args:
        records: unique name and token ids of each.
        tokenizer_name: whose ids they are, "byte" or "protein".
        sources: the files that they come from.
        cache_dir: made if it does not exist; the array lies in a folder named after its content.

    Raises:
        UserError: the cache cannot be written.
    """
    records, sources = list(records), tuple(sources)
    content = [VERSION, tokenizer_name, [asdict(s) for s in sources], [(n, ids.hex()) for n, ids in records]]
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = Path(os.path.abspath(cache_dir)) / f"{tokenizer_name}-{digest}"
    if not folder.exists():
        with (
            _temporary_folder(folder) as temporary,
            TokenArrayWriter(temporary, tokenizer_name, None, None) as writer,
        ):
            for name, ids in records:
                writer.begin_record(name, name)
                writer.append(ids)
                writer.end_record()
            writer.finish(sources)
            _publish(temporary, folder)
    return TokenArray.open(folder)


def _cache_name(sources: list[SourceFile], source_format: SourceFormat, lower_case: LowerCase) -> str:
    files = [(str(source.path), source.size, source.mtime_ns) for source in sources]
    key = json.dumps([VERSION, source_format, lower_case, files])
    stem = sources[0].path.name.split(".")[0][:40]
    return f"{stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _write(
    folder: Path,
    sources: list[SourceFile],
    source_format: SourceFormat,
    lower_case: LowerCase,
    progress: Progress | None,
) -> None:
    num_read, num_total = 0, sum(source.size for source in sources)

    def on_read(num_bytes: int) -> None:
        nonlocal num_read
        num_read += num_bytes
        if progress is not None:
            progress(num_read, num_total)

    kinds = _kinds(sources, source_format)
    read: list[Source] = []
    with _writer(folder, kinds[0] != "text", lower_case) as writer:
        for source, kind in zip(sources, kinds, strict=True):
            reader = SourceReader(source, on_read)
            with closing(reader.blocks()) as blocks:
                if kind == "text":
                    read_text(blocks, source.path, writer)
                else:
                    fasta = genbank_as_fasta(blocks, source.path) if kind == "GenBank" else blocks
                    read_fasta(fasta, source.path, nucleotide_table(lower_case), writer)
            source.check_unchanged()
            read.append(Source(str(source.path), source.size, source.mtime_ns, reader.sha256.hexdigest()))
        writer.finish(tuple(read))


def _writer(folder: Path, is_nucleotide: bool, lower_case: LowerCase) -> TokenArrayWriter:
    if is_nucleotide:
        return TokenArrayWriter(folder, "nucleotide", lower_case, LETTERS)
    return TokenArrayWriter(folder, "byte", None, None)


def _kinds(sources: list[SourceFile], source_format: SourceFormat) -> list[Kind]:
    """What each source is; all of them or none are text."""
    if source_format == "text":
        return ["text"] * len(sources)
    if source_format == "fasta":
        return ["GenBank" if begins_like_genbank(_start(source)) else "FASTA" for source in sources]
    kinds = [source_kind(source) for source in sources]
    for source, kind in zip(sources, kinds, strict=True):
        if (kind == "text") != (kinds[0] == "text"):
            raise UserError(
                f"{source.path}: is {kind}, but {sources[0].path} is {kinds[0]}: expected one kind"
            )
    return kinds


def source_kind(source: SourceFile) -> Kind:
    """What a file is, by how it begins; UserError where its name says otherwise."""
    start = _start(source)
    if start.startswith(b">"):
        return "FASTA"
    if begins_like_genbank(start):
        return "GenBank"
    first = start[:1].decode(errors="backslashreplace")
    for kind, suffixes, expected in (("FASTA", _FASTA_SUFFIXES, ">"), ("GenBank", GENBANK_SUFFIXES, "LOCUS")):
        if set(suffixes).intersection(source.path.suffixes[-2:]):
            raise UserError(
                f"{source.path}: named like {kind}, but begins with {first!r}: "
                f'expected "{expected}" (or format="text", to read it as text)'
            )
    return "text"


def _start(source: SourceFile) -> bytes:
    with closing(SourceReader(source, on_read=lambda num_bytes: None).blocks()) as blocks:
        return next(blocks).lstrip()[:6]


@contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    """Makes a folder beside `folder`, and removes it, unless it has been renamed, whatever happens."""
    temporary = folder.parent / f"{_TEMPORARY_PREFIX}{folder.name}-{uuid.uuid4().hex}"
    try:
        temporary.mkdir(parents=True)
        _remove_abandoned(folder.parent)
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{folder.parent}: cannot be written: {error.strerror or error}") from error


def _remove_abandoned(cache_dir: Path) -> None:
    """Removes what killed builds left, once nothing has been written to it for a day."""
    for path in cache_dir.iterdir():
        if path.name.startswith(_TEMPORARY_PREFIX):
            with suppress(OSError):  # another process may be removing or renaming it right now
                newest = max(file.stat().st_mtime for file in [path, *path.iterdir()])
                if time.time() - newest > _ABANDONED_AFTER_SECONDS:
                    shutil.rmtree(path)


def _publish(temporary: Path, folder: Path) -> None:
    """Renames a finished array to its place, unless another process was first: then theirs is as good."""
    try:
        os.rename(temporary, folder)
    except OSError:
        if not os.path.exists(folder):
            raise
