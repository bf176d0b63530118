"""Plain text as byte tokens: one file, one record."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

from reformer.data.sinks import RecordSink
from reformer.errors import UserError


def read_text(blocks: Iterable[bytes], path: Path, sink: RecordSink) -> None:
    """Reads a UTF-8 file as one record, named by the file's stem; its bytes are kept as they are.

    Args:
        blocks: the content of the file.
        path: names the record, and the file in errors.
        sink: receives the record.

    Raises:
        UserError: a NUL or a byte that is not UTF-8; the message names its offset (from 0).
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    stem = Path(path.name.removesuffix(".gz")).stem
    sink.begin_record(os.fsencode(stem).decode("utf-8", errors="backslashreplace"), str(path))
    offset = 0
    for block in blocks:
        if (nul := block.find(b"\0")) >= 0:
            raise UserError(f"{path}, byte {offset + nul}: a NUL byte; expected text in UTF-8")
        _check_utf8(decoder, block, path, offset)
        sink.append(block)
        offset += len(block)
    _check_utf8(decoder, b"", path, offset, final=True)
    sink.end_record()


def _check_utf8(
    decoder: codecs.IncrementalDecoder, block: bytes, path: Path, offset: int, final: bool = False
) -> None:
    held_back = len(decoder.getstate()[0])
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError as error:
        place = offset - held_back + error.start
        raise UserError(f"{path}, byte {place}: not UTF-8 text ({error.reason}); expected UTF-8") from error
