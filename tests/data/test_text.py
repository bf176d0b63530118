from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer.data import build_token_array
from reformer.data.text import read_text
from reformer.errors import UserError
from tests.data.test_fasta import ListSink

Write = Callable[[str, bytes], Path]


class TextSink(ListSink):
    def end_record(self, letter_counts: object = None) -> int:
        return len(self.records[-1][1])


def blocks_of(content: bytes, size: int) -> list[bytes]:
    return [content[i : i + size] for i in range(0, len(content), size)]


def test_files_become_records_byte_for_byte(write: Write, tmp_path: Path) -> None:
    first = "\r\n  Ein Märchen, 物語\r\n[BOS]\n".encode()
    second = "ΑΩ".encode() * 700_000  # two blocks, and a character across the boundary
    paths = [write("tale.v2.txt", first), write("deep/book.txt.gz", gzip.compress(second))]
    array = build_token_array(paths, tmp_path / "cache")
    assert array.records[:] == [("tale.v2", 0, len(first)), ("book", len(first), len(second))]
    assert array.tokens.tobytes() == first + second
    assert (array.tokenizer_name, array.lower_case, array.letter_counts()) == ("byte", None, {})


def test_text_like_fasta_can_be_read_as_text(write: Write, tmp_path: Path) -> None:
    path = write("quote.fa", b"> so he said\n")
    array = build_token_array(path, tmp_path / "cache", format="text")
    assert array.tokens.tobytes() == b"> so he said\n"


@given(
    text=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1), size=st.integers(1, 9)
)
def test_any_text_in_any_blocks_is_kept(text: str, size: int) -> None:
    sink = TextSink()
    read_text(blocks_of(text.encode(), size), Path("a.txt"), sink)
    assert [(name, bytes(ids).decode()) for name, ids in sink.records] == [("a", text)]


@given(
    before=st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    bad=st.sampled_from([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\x80", b"\0"]),
    size=st.integers(1, 9),
)
def test_a_byte_that_is_not_text_is_named_by_its_offset(before: str, bad: bytes, size: int) -> None:
    content = before.encode() + bad
    what = "a NUL byte; expected text in UTF-8" if bad == b"\0" else "not UTF-8 text"
    with pytest.raises(UserError, match=rf"^a\.txt, byte {len(before.encode())}: {what}") as error:
        read_text(blocks_of(content, size), Path("a.txt"), TextSink())
    assert "\n" not in str(error.value)


def test_a_name_that_is_not_unicode_is_escaped(tmp_path: Path) -> None:
    path = Path(f"{tmp_path}/caf\udce9.txt")
    path.write_bytes(b"text")
    array = build_token_array(path, tmp_path / "cache")
    assert array.records[0].name == "caf\\xe9"
    assert array.sources[0].path == str(path)
