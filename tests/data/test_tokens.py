from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reformer.data import TokenArray, build_token_array
from reformer.errors import UserError

Write = Callable[[str, bytes], Path]


@pytest.fixture
def array(write: Write, tmp_path: Path) -> TokenArray:
    path = write("g.fa", b">chr1\nACGTN\n>chr2\nGG\n>chr3\nACG\n")
    return build_token_array(path, tmp_path / "cache")


def test_windows_are_read_only_views_of_the_file(array: TokenArray) -> None:
    window = array.window(3, 4)
    assert type(window) is np.ndarray
    assert window.dtype == np.uint8
    assert window.tolist() == [7, 8, 6, 6]
    assert np.shares_memory(window, array.tokens)
    assert isinstance(array.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        window[0] = 0
    assert np.shares_memory(array.window(0, 10), array.tokens)


@pytest.mark.parametrize(("start", "length"), [(-1, 2), (0, 0), (0, 11), (10, 1), (9, 2), (3, -1)])
def test_windows_outside_the_array_are_refused(array: TokenArray, start: int, length: int) -> None:
    with pytest.raises(UserError, match=rf"window of {length} tokens from {start}: expected .* array's 10"):
        array.window(start, length)


def test_records_are_a_sequence(array: TokenArray) -> None:
    records = array.records
    assert list(records) == [("chr1", 0, 5), ("chr2", 5, 2), ("chr3", 7, 3)]
    assert records[-1] == ("chr3", 7, 3)
    assert records[1:] == list(records)[1:]
    assert records[-1].length == 3
    assert records.starts.tolist() == [0, 5, 7]
    assert records.lengths.tolist() == [5, 2, 3]
    with pytest.raises(IndexError):
        records[3]


def test_opening_again_gives_the_same(array: TokenArray) -> None:
    again = TokenArray.open(str(array.folder))
    assert len(again) == len(array) == 10
    assert again.records[:] == array.records[:]
    assert again.sources == array.sources
    assert again.vocabulary == array.vocabulary
    assert "10 nucleotide tokens in 3 records" in repr(again)
    np.testing.assert_array_equal(again.tokens, array.tokens)


def test_a_pickle_holds_the_path_and_maps_the_file_again(array: TokenArray) -> None:
    pickled = pickle.dumps(array)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert isinstance(again.tokens, np.memmap)
    np.testing.assert_array_equal(again.tokens, array.tokens)


def test_a_window_is_a_view_of_the_mapped_file(write: Write, tmp_path: Path) -> None:
    path = write("many.fa", b"".join(b">read%d\nACGT\n" % i for i in range(30_000)))
    array = TokenArray.open(build_token_array(path, tmp_path / "cache").folder)
    assert array.records[29_999] == ("read29999", 119_996, 4)
    assert isinstance(array.tokens, np.memmap)
    assert np.shares_memory(array.window(100, 100_000), array.tokens)


def edit_index(folder: Path, **changes: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | changes))


def save_records(folder: Path, rows: list[list[int]]) -> None:
    np.save(folder / "records.npy", np.array(rows, dtype="<i8"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "short tokens": (
        lambda f: (f / "tokens.bin").write_bytes(b"\4" * 9),
        r"tokens\.bin: damaged token array: the file has 9 bytes, expected 10; remove the folder and build",
    ),
    "long tokens": (lambda f: (f / "tokens.bin").write_bytes(b"\4" * 11), "has 11 bytes, expected 10"),
    "no tokens": (
        lambda f: (f / "tokens.bin").unlink(),
        r"tokens\.bin: damaged token array: No such file or directory",
    ),
    "short names": (
        lambda f: (f / "names.txt").write_bytes(b"x"),
        r"names\.txt: .* has 1 bytes, expected 15",
    ),
    "cut records": (
        lambda f: (f / "records.npy").write_bytes(b"x" * 100),
        r"records\.npy: .* has 100 bytes, expected 224",
    ),
    "records of another shape": (
        lambda f: save_records(f, [[0, 1]] * 6),
        r"records\.npy has shape \(6, 2\), expected \(3, 4\)",
    ),
    "records that end elsewhere": (
        lambda f: save_records(f, [[0, 5, 0, 4], [5, 2, 5, 4], [7, 9, 10, 4]]),
        r"tokens\.bin has 10 tokens, the records end at 16, expected 10",
    ),
    "not a .npy": (lambda f: (f / "records.npy").write_bytes(b"x" * 224), "damaged token array"),
    "pickle": (
        lambda f: (f / "records.npy").write_bytes(pickle.dumps(b"x" * 210)[:224].ljust(224)),
        "damaged token array",
    ),
    "no index": (lambda f: (f / "index.json").unlink(), r"not a token array: index\.json is missing"),
    "cut index": (
        lambda f: (f / "index.json").write_text((f / "index.json").read_text()[:50]),
        r"index\.json: damaged: not JSON",
    ),
    "binary index": (
        lambda f: (f / "index.json").write_bytes(b"\xff\xfe{}"),
        r"index\.json: damaged: not JSON",
    ),
    "index of something else": (
        lambda f: (f / "index.json").write_text('{"metadata": {}}'),
        r'index\.json: not the index of a token array: expected "format": "reformer token array"',
    ),
    "index is a list": (lambda f: (f / "index.json").write_text("[]"), "not the index of a token array"),
    "version": (lambda f: edit_index(f, version=2), "token array version 2, expected 1: build it again"),
    "vocabulary": (
        lambda f: edit_index(f, vocabulary={"A": 0}),
        "its vocabulary is not that of this version",
    ),
    "tokenizer": (lambda f: edit_index(f, tokenizer_name="bpe"), "tokenizer is 'bpe': expected"),
    "unknown field": (lambda f: edit_index(f, shards=2), "damaged: a field is missing or unknown .*shards"),
    "sources": (
        lambda f: edit_index(f, sources=[{"path": "g.fa"}]),
        "damaged: a field is missing or unknown",
    ),
    "count": (lambda f: edit_index(f, num_tokens=11), "the records end at 10, expected 11"),
    "letters": (lambda f: edit_index(f, letters="ACGT"), r"letter_counts\.npy has shape \(3, 32\), expected"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_array_does_not_open(array: TokenArray, case: str) -> None:
    damage, message = DAMAGE[case]
    assert (array.folder / "records.npy").stat().st_size == 224
    damage(array.folder)
    with pytest.raises(UserError, match=message) as error:
        TokenArray.open(array.folder)
    assert str(error.value).startswith(str(array.folder)) or "tokenizer" in case
    assert "\n" not in str(error.value)


def test_a_file_or_nothing_is_not_an_array(tmp_path: Path, write: Write) -> None:
    with pytest.raises(UserError, match=r"nowhere: not a token array: index\.json is missing"):
        TokenArray.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"index\.json: cannot be read: Not a directory"):
        TokenArray.open(write("g.fa", b">a\nA\n"))
