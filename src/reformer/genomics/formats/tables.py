"""Rows of numbers and names to parquet or HDF5, in batches, so that memory does not grow with the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.genomics.extras import require
from reformer.training.atomic import atomic_file

Batch = Mapping[str, npt.NDArray | list[str]]
"""Column -> values of some rows: ``[rows]``, ``[rows, size]`` for vectors (embeddings), a list of text."""

_CHUNK_BYTES = 1 << 18


def write_parquet(
    path: str | os.PathLike[str], batches: Iterable[Batch], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes batches of rows as they come, each a row group; the file is either whole or not there.

    Vectors become lists of fixed size.

    Args:
        path: the file, replaced if there is one.
        batches: the rows.
        metadata: what the file says of itself, in its schema.

    Raises:
        ValueError: no batch, or one whose columns, types or numbers of rows differ.
    """
    arrow, parquet = require("pyarrow", "to write parquet"), require("pyarrow.parquet", "to write parquet")
    with atomic_file(Path(path)) as partial:
        writer, first = None, None
        try:
            for batch in batches:
                first = first or batch
                _check(batch, first)
                columns = {name: _arrow_column(arrow, values) for name, values in batch.items()}
                table = arrow.table(columns).replace_schema_metadata(metadata)
                writer = writer or parquet.ParquetWriter(str(partial), table.schema)
                writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise ValueError(f"{path}: no row to write")


def write_hdf5(
    path: str | os.PathLike[str], batches: Iterable[Batch], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes batches of rows as they come, a dataset for each column; the file is either whole or not there.

    Text becomes UTF-8 strings of variable length.

    Args:
        path: the file, replaced if there is one.
        batches: the rows.
        metadata: what the file says of itself, as attributes of its root.

    Raises:
        ValueError: no batch, or one whose columns, types or numbers of rows differ.
    """
    h5py = require("h5py", "to write HDF5")
    with atomic_file(Path(path)) as partial, h5py.File(str(partial), "w") as file:
        file.attrs.update(metadata or {})
        first, num_rows = None, 0
        for batch in batches:
            first = first or batch
            _check(batch, first)
            rows = len(next(iter(batch.values())))
            for name, values in batch.items():
                if name not in file:
                    _create_dataset(h5py, file, name, values)
                file[name].resize(num_rows + rows, axis=0)
                file[name][num_rows:] = values
            num_rows += rows
        if first is None:
            raise ValueError(f"{path}: no row to write")


def _create_dataset(h5py: object, file: object, name: str, values: npt.NDArray | list[str]) -> None:
    is_text = isinstance(values, list)
    shape = () if isinstance(values, list) else values.shape[1:]
    dtype = h5py.string_dtype() if isinstance(values, list) else values.dtype  # type: ignore[attr-defined]
    row_bytes = 16 if is_text else max(1, int(np.prod(shape))) * np.dtype(dtype).itemsize
    chunk = (max(1, _CHUNK_BYTES // row_bytes), *shape)
    file.create_dataset(name, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk)  # type: ignore[attr-defined]


def _arrow_column(arrow: object, values: npt.NDArray | list[str]) -> object:
    if isinstance(values, list):
        return arrow.array(values, arrow.string())  # type: ignore[attr-defined]
    if values.ndim == 1:
        return arrow.array(values)  # type: ignore[attr-defined]
    flat = arrow.array(np.ascontiguousarray(values).reshape(-1))  # type: ignore[attr-defined]
    return arrow.FixedSizeListArray.from_arrays(flat, values.shape[1])  # type: ignore[attr-defined]


def _check(batch: Batch, first: Batch) -> None:
    kinds, expected = _kinds(batch), _kinds(first)
    if kinds != expected:
        raise ValueError(f"columns {kinds}: expected {expected}, as in the first batch")
    if len(numbers := {len(values) for values in batch.values()}) != 1:
        raise ValueError(f"columns of {sorted(numbers)} rows in one batch: expected as many in each")


def _kinds(batch: Batch) -> dict[str, str]:
    return {
        name: "text" if isinstance(values, list) else f"{values.dtype}{list(values.shape[1:])}"
        for name, values in batch.items()
    }
