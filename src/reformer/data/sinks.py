"""What the readers of source files write their records to."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class RecordSink(Protocol):
    """Where records go: `begin_record`, any number of `append`s, `end_record`."""

    def begin_record(self, name: str, place: str) -> None:
        """Starts a record; `place` says where it stands, for an error about its name."""

    def append(self, ids: bytes) -> None:
        """Adds token ids, one byte each, to the record."""

    def end_record(self, letter_counts: npt.NDArray[np.int64] | None = None) -> int:
        """Ends the record and returns its length in tokens; counts are in the order of `fasta.LETTERS`."""
