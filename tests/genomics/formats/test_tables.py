import h5py
import numpy as np
import pyarrow.parquet as parquet
import pytest

from reformer.genomics.formats.tables import write_hdf5, write_parquet

RNG = np.random.default_rng(0)
BATCHES = [
    {
        "name": [f"é{i}" for i in range(rows)],
        "start": np.arange(rows, dtype=np.int64),
        "embedding": RNG.normal(size=(rows, 5)).astype(np.float32),
    }
    for rows in (3, 1, 4)
]


def column(name):
    parts = [batch[name] for batch in BATCHES]
    return (
        [value for part in parts for value in part] if isinstance(parts[0], list) else np.concatenate(parts)
    )


def test_pyarrow_reads_parquet(tmp_path):
    write_parquet(tmp_path / "x.parquet", iter(BATCHES))
    table = parquet.read_table(tmp_path / "x.parquet")
    assert parquet.ParquetFile(tmp_path / "x.parquet").num_row_groups == 3
    assert table["name"].to_pylist() == column("name")
    assert table["start"].to_pylist() == column("start").tolist()
    np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), dtype="f4"), column("embedding"))


def test_h5py_reads_hdf5(tmp_path):
    write_hdf5(tmp_path / "x.h5", iter(BATCHES))
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["name"].asstr()[:].tolist() == column("name")
        for name in ("start", "embedding"):
            assert file[name].dtype == column(name).dtype
            np.testing.assert_array_equal(file[name][:], column(name))


@pytest.mark.parametrize("write", [write_parquet, write_hdf5])
@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no row to write"),
        ([BATCHES[0], {"name": ["x"]}], "expected {'name': 'text'"),
        ([{"a": np.ones(2)}, {"a": np.ones(2, dtype="f4")}], "float32[]"),
        ([{"a": np.ones(2), "b": ["x"]}], "columns of [1, 2] rows in one batch"),
    ],
)
def test_batches_that_are_wrong_leave_nothing(tmp_path, write, batches, message):
    with pytest.raises(ValueError) as caught:
        write(tmp_path / "x", batches)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
