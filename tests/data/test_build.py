from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from Bio.bgzf import BgzfWriter

from reformer.data import TokenArray, build_token_array
from reformer.data.sources import SourceReader
from reformer.errors import UserError
from tests.data.conftest import expected_ids

Write = Callable[[str, bytes], Path]


def test_records_of_all_files_follow_each_other(write: Write, tmp_path: Path) -> None:
    paths = [write("one.fa", b">a one\nACGT\nNN\n>b\nacgu\n"), write("two.fa", b">c\nRYK")]
    array = build_token_array(paths, tmp_path / "cache", lower_case="keep")
    assert array.records[:] == [("a", 0, 6), ("b", 6, 4), ("c", 10, 3)]
    np.testing.assert_array_equal(array.tokens, expected_ids("ACGTNNacguRYK", "keep"))
    assert (array.tokenizer_name, array.lower_case) == ("nucleotide", "keep")
    assert array.letter_counts(1) == {"a": 1, "c": 1, "g": 1, "u": 1}
    assert array.letter_counts()["N"] == 2
    for source, path in zip(array.sources, paths, strict=True):
        status = path.stat()
        assert (source.path, source.size, source.mtime_ns) == (str(path), status.st_size, status.st_mtime_ns)
        assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_hash_of_a_gzip_source_is_that_of_the_file(write: Write, tmp_path: Path) -> None:
    path = write("g.fa.gz", gzip.compress(b">a\n" + b"ACGT" * 50_000) + b"\0" * 100)
    (source,) = build_token_array(path, tmp_path / "cache").sources
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_second_call_opens_without_reading(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write("g.fa", b">a\nACGT\n"), tmp_path / "cache"
    first = build_token_array(path, cache)

    def refuse(self: SourceReader) -> Iterator[bytes]:
        raise AssertionError("the source was read again")

    with monkeypatch.context() as patched:
        patched.setattr(SourceReader, "blocks", refuse)
        assert build_token_array(path, cache).folder == first.folder
        with pytest.raises(AssertionError, match="read again"):
            build_token_array(path, cache, lower_case="keep")


@pytest.mark.parametrize("change", ["content", "mtime", "policy", "path"])
def test_anything_that_could_matter_changes_the_cache_folder(
    change: str, write: Write, tmp_path: Path
) -> None:
    path, cache = write("g.fa", b">a\nACGT\n"), tmp_path / "cache"
    first = build_token_array(path, cache)
    if change == "content":
        path.write_bytes(b">a\nACGTA\n")
    elif change == "mtime":
        os.utime(path, ns=(0, 1_000_000_007))
    elif change == "path":
        path = path.rename(tmp_path / "h.fa")
    second = build_token_array(path, cache, lower_case="keep" if change == "policy" else "fold")
    assert second.folder != first.folder
    assert len(second) == (5 if change == "content" else 4)


def test_a_relative_path_is_the_same_source(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("g.fa", b">a\nACGT\n")
    monkeypatch.chdir(tmp_path)
    assert build_token_array("g.fa", "cache").folder == build_token_array(path, tmp_path / "cache").folder


def test_progress_counts_the_bytes_on_disk(write: Write, tmp_path: Path) -> None:
    paths = [write("a.fa.gz", gzip.compress(b">a\n" + b"ACGT" * 100_000)), write("b.fa", b">b\nACGT")]
    calls: list[tuple[int, int]] = []
    build_token_array(paths, tmp_path / "cache", progress=lambda done, total: calls.append((done, total)))
    total = sum(path.stat().st_size for path in paths)
    assert calls[-1] == (total, total)
    assert calls == sorted(calls)


def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    path = tmp_path / "one-line.fa"
    with open(path, "wb") as file:
        file.write(b">a\n")
        for _ in range(48):
            file.write(b"ACGTN" * 200_000)
    tracemalloc.start()
    try:
        array = build_token_array(path, tmp_path / "cache")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(array) == 48_000_000
    assert peak < 16e6


def build_when_both_have_begun(path: Path, cache: Path, barrier: Barrier) -> None:
    waited = False

    def wait_once(num_read: int, num_total: int) -> None:
        nonlocal waited
        if not waited:
            waited = True
            barrier.wait(timeout=60)

    array = build_token_array(path, cache, progress=wait_once)
    assert waited, "the other process had finished before this one began"
    assert array.records[:] == [("a", 0, 3_000_000)]


def test_two_processes_building_the_same_array_both_get_it(write: Write, tmp_path: Path) -> None:
    path, cache = write("g.fa", b">a\n" + b"ACG" * 1_000_000), tmp_path / "cache"
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=build_when_both_have_begun, args=(path, cache, barrier)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(cache.iterdir()) == [build_token_array(path, cache).folder]


BUILD_UNTIL_KILLED = """
import sys, time
from reformer.data.build import build_token_array

def stop(num_read, num_total):
    if num_read > 2_000_000:
        print("half", flush=True)
        time.sleep(60)

build_token_array(sys.argv[1], sys.argv[2], progress=stop)
"""


def test_a_killed_build_leaves_nothing_that_opens(write: Write, tmp_path: Path) -> None:
    path, cache = write("g.fa", b">a\n" + b"ACG" * 1_000_000), tmp_path / "cache"
    command = [sys.executable, "-c", BUILD_UNTIL_KILLED, str(path), str(cache)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.send_signal(signal.SIGKILL)
    (left,) = cache.iterdir()
    assert (left / "tokens.bin").stat().st_size > 0
    with pytest.raises(UserError, match=r"not a token array: index.json is missing"):
        TokenArray.open(left)

    array = build_token_array(path, cache)
    assert len(array) == 3_000_000
    assert left.exists(), "it could belong to a build that is still running"
    two_days_ago = time.time() - 2 * 24 * 3600
    for old in (*left.iterdir(), left):
        os.utime(old, (two_days_ago, two_days_ago))
    shutil.rmtree(array.folder)
    assert list(cache.iterdir()) == [left]
    array = build_token_array(path, cache)
    assert list(cache.iterdir()) == [array.folder]


@pytest.mark.parametrize("exception", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_build_leaves_nothing(
    exception: type[BaseException], write: Write, tmp_path: Path
) -> None:
    path, cache = write("g.fa", b">a\nACGT\n"), tmp_path / "cache"

    def interrupt(num_read: int, num_total: int) -> None:
        raise exception

    with pytest.raises(exception):
        build_token_array(path, cache, progress=interrupt)
    assert list(cache.iterdir()) == []


def test_a_source_that_changes_while_it_is_read_is_refused(write: Write, tmp_path: Path) -> None:
    path, cache = write("g.fa", b">a\nACGT\n"), tmp_path / "cache"

    def touch(num_read: int, num_total: int) -> None:
        os.utime(path, ns=(0, num_read))

    with pytest.raises(UserError, match=r"g\.fa: changed while it was being read"):
        build_token_array(path, cache, progress=touch)
    assert list(cache.iterdir()) == []


def bgzf_without_end(path: Path) -> bytes:
    with BgzfWriter(str(path)) as file:
        file.write(b">a\n" + b"ACGT" * 50_000)
    return path.read_bytes()[:-28]


def refused_sources(folder: Path) -> dict[str, tuple[list[Path], str]]:
    """Sources that are refused, with what the message says after the file's path."""
    compressed = gzip.compress(b">a\n" + b"ACGT" * 50_000)
    contents = {
        "empty.fa": (b"", ": the file is empty"),
        "empty.txt": (b"", ": the file is empty"),
        "nothing.gz": (gzip.compress(b""), ": the gzip file holds nothing"),
        "truncated.fa.gz": (
            compressed[:-9],
            ": truncated gzip file: it ends inside its compressed data",
        ),
        "header.gz": (compressed[:2], ": truncated gzip file: it ends inside its compressed"),
        "damaged.gz": (
            compressed[:100] + b"?" + compressed[101:],
            ": damaged gzip file: ",
        ),
        "tail.gz": (compressed + b"tail", ": damaged gzip file: Not a gzipped file"),
        "cut.bgz": (
            bgzf_without_end(folder / "whole"),
            ": truncated BGZF file: the block that marks its end",
        ),
        "late.fa": (b"ACGT\n>a\nACGT\n", ": named like FASTA, but begins with 'A': expected \">\""),
        "late.fasta.gz": (gzip.compress(b"ACGT\n"), ": named like FASTA, but begins with 'A'"),
        "twice.fa": (b">a\nA\n>b\nC\n>a x\nG\n", r", line 5: duplicate record name 'a' \(record 1 has it\)"),
        "binary": (b"ELF\0\x01\x02", ", byte 3: a NUL byte; expected text in UTF-8"),
    }
    cases = {}
    for name, (content, message) in contents.items():
        (folder / name).write_bytes(content)
        cases[name] = ([folder / name], f"{folder / name}{message}")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    others = {
        "missing.fa": ": cannot be read: No such file or directory",
        "loop": ": cannot be read: Too many levels of symbolic links",
        "pipe": ": is not a regular file",
        ".": ": is a folder, expected a file",
        "late.fa/g.fa": ": cannot be read: Not a directory",
    }
    for name, message in others.items():
        path = Path(os.path.abspath(folder / name))
        cases[name] = ([folder / name], f"{path}{message}")
    (folder / "good.fa").write_bytes(b">a\nACGT\n")
    (folder / "good.txt").write_bytes(b"some text")
    cases["two kinds"] = (
        [folder / "good.fa", folder / "good.txt"],
        f"{folder}/good.txt: is text, but {folder}/good.fa is FASTA: expected one kind",
    )
    cases["twice"] = (
        [folder / "good.fa", folder / "good.fa"],
        f"{folder}/good.fa, line 1: duplicate record name 'a' .record 1 has it.; expected every name once",
    )
    cases["none"] = ([], "no source files: expected at least one FASTA, GenBank or text file")
    return cases


def test_bad_sources_are_refused_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    for paths, message in refused_sources(tmp_path).values():
        with pytest.raises(UserError, match=f"^{message}") as error:
            build_token_array(paths, tmp_path / "cache")
        assert "\n" not in str(error.value)
    assert not any((tmp_path / "cache").iterdir())


def test_text_before_the_first_record_is_refused_if_the_format_is_given(write: Write, tmp_path: Path) -> None:
    path = write("genome", b"ACGT\n>a\nACGT\n")
    with pytest.raises(UserError, match="genome, line 1: text before the first record"):
        build_token_array(path, tmp_path / "cache", format="fasta")
    assert build_token_array(path, tmp_path / "cache").tokenizer_name == "byte"


def test_unknown_arguments_are_refused(write: Write, tmp_path: Path) -> None:
    path = write("g.fa", b">a\nACGT\n")
    with pytest.raises(UserError, match="format is 'genbank': expected"):
        build_token_array(path, tmp_path, format="genbank")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="lower_case is 'upper': expected"):
        build_token_array(path, tmp_path, lower_case="upper")  # type: ignore[arg-type]


@contextmanager
def without_root() -> Iterator[None]:
    """Permissions bind everyone but root, as whom tests may run."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user can enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_an_unreadable_file_is_refused(open_folder: Path, tmp_path: Path) -> None:
    path = open_folder / "g.fa"
    path.write_bytes(b">a\nACGT\n")
    path.chmod(0)
    cache = open_folder / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    with without_root(), pytest.raises(UserError, match=r"g\.fa: cannot be read: Permission denied"):
        build_token_array(path, cache)


def test_a_cache_that_cannot_be_written_is_refused(open_folder: Path, write: Write) -> None:
    path = open_folder / "g.fa"
    path.write_bytes(b">a\nACGT\n")
    cache = open_folder / "cache"
    cache.mkdir(mode=0o555)
    with without_root(), pytest.raises(UserError, match="cache: cannot be written: Permission denied"):
        build_token_array(path, cache)
    with pytest.raises(UserError, match=r"g\.fa: cannot be written: "):
        build_token_array(path, path)


def test_a_full_disk_is_one_line_and_leaves_nothing(write: Write, tmp_path: Path) -> None:
    path, cache = write("g.fa", b">a\n" + b"ACGT" * 100_000), tmp_path / "cache"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match="cache: cannot be written: File too large"):
            build_token_array(path, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(cache.iterdir()) == []
