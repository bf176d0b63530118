"""htslib, the C library below pysam."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reformer.genomics.extras import require


@contextmanager
def silent_htslib() -> Iterator[None]:
    """Keeps htslib from printing its own message before our error; errors are raised all the same."""
    pysam = require("pysam", "to use htslib")
    verbosity = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(verbosity)
