"""Files to read, and the real data that the tests of readers share."""

from __future__ import annotations

from tests.data.conftest import fly_folder, write, yeast_folder

__all__ = ["fly_folder", "write", "yeast_folder"]
