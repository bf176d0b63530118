"""Folders and files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reformer.errors import UserError

_PARTIAL = ".partial"
_REMOVED = ".removed"


def partial_path(path: Path) -> Path:
    """The temporary name, in the same folder, that `path` has while it is written."""
    return path.with_name(f".{path.name}{_PARTIAL}")


def check_writable(path: Path) -> None:
    """Raises UserError where no file of that name can be: before work whose result goes there."""
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: expected a file to write, in a folder that exists")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that takes the name `path` when the block ends, and goes away if it fails.

    Its files are on disk (fsync) before the renaming. A folder of that name is replaced.

    Raises:
        OSError: when the folder cannot be written.
    """
    partial = partial_path(path)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        publish_folder(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def publish_folder(partial: Path, path: Path) -> None:
    """Flushes every file under `partial` to disk and gives the folder its name, at once if none has it."""
    for file in partial.rglob("*"):
        _flush(file)
    _flush(partial)
    if path.exists():
        removed = _hide(path)
        os.replace(partial, path)
        shutil.rmtree(removed)
    else:
        os.replace(partial, path)
    _flush(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder so that it is never there in part."""
    shutil.rmtree(_hide(path))


def _hide(path: Path) -> Path:
    """Gives a folder a name that `remove_leftovers` knows, and returns it."""
    removed = path.with_name(f".{path.name}{_REMOVED}")
    shutil.rmtree(removed, ignore_errors=True)
    os.replace(path, removed)
    return removed


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary name for a file that takes the name `path` when the block ends.

    The block writes and closes the file; if it fails, the file goes away and what had the name stays.

    Raises:
        OSError: when the file cannot be written.
    """
    partial = partial_path(path)
    try:
        yield partial
        _flush(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def write_text_atomically(path: Path, text: str) -> None:
    """Writes a file under a temporary name and renames it when it is on disk.

    Raises:
        OSError: when the file cannot be written.
    """
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half-written directly in `folder`."""
    for path in [*folder.glob(f".*{_PARTIAL}"), *folder.glob(f".*{_REMOVED}")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _flush(path: Path) -> None:
    """Waits until a file or a folder's list of names is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
