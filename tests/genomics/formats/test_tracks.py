import numpy as np
import pybigtools
import pytest

from reformer.genomics.formats.tracks import write_bigwig


def test_pybigtools_reads_the_values(tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "b": np.repeat(rng.normal(size=300), 7).astype(np.float32),
        "a": rng.normal(size=50).astype("f4"),
    }
    values["b"][100:400] = np.nan
    blocks = [(n, s, v[s : s + 64]) for n, v in values.items() for s in range(0, len(v), 64)]
    lengths = {"b": 2100, "a": 60, "empty": 9}
    write_bigwig(tmp_path / "x.bw", lengths, blocks)
    assert [file.name for file in tmp_path.iterdir()] == ["x.bw"]
    with pybigtools.open(str(tmp_path / "x.bw")) as file:
        assert {name: file.chroms()[name] for name in ("a", "b")} == {"a": 60, "b": 2100}
        for name, expected in values.items():
            found = file.values(name, 0, len(expected), fillna=np.nan, oob=np.nan)
            np.testing.assert_array_equal(found, expected.astype(np.float64))


def test_pybigwig_reads_the_values(tmp_path):
    """libBigWig, which is another library than the one that writes."""
    reader = pytest.importorskip("pyBigWig")
    rng = np.random.default_rng(1)
    values = {"b": np.repeat(rng.integers(0, 100, 40_000) / 100, 5).astype("f4"), "a": np.ones(50, "f4")}
    values["b"][1000:4000] = np.nan
    blocks = [(n, s, v[s : s + 777]) for n, v in values.items() for s in range(0, len(v), 777)]
    write_bigwig(tmp_path / "x.bw", {"b": 200_000, "a": 60, "empty": 9}, blocks)
    file = reader.open(str(tmp_path / "x.bw"))
    assert file.isBigWig()
    assert {name: file.chroms(name) for name in ("a", "b")} == {"a": 60, "b": 200_000}
    for name, expected in values.items():
        found = np.array(file.values(name, 0, len(expected)))
        np.testing.assert_array_equal(found, expected.astype(np.float64))
    assert np.isnan(file.values("a", 50, 60)).all()
    assert file.intervals("a") == ((0, 50, 1.0),)
    # The summary that browsers scale by.
    summary = file.header()
    assert summary["nBasesCovered"] == 197_000 + 50
    assert summary["sumData"] == pytest.approx(np.nansum(values["b"], dtype="f8") + 50, abs=1)
    assert (summary["minVal"], summary["maxVal"]) == (0, 1)
    file.close()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([("x", 0, np.ones(3)), ("y", 0, np.ones(3)), ("x", 3, np.ones(3))], "block of 'x'"),
        ([("z", 0, np.ones(3))], "block of 'z': expected a known sequence"),
        ([("x", 4, np.ones(3)), ("x", 2, np.ones(2))], "block [2, 4) of 'x': expected in [7, 10)"),
        ([("x", 8, np.ones(3))], "block [8, 11) of 'x': expected in [0, 10)"),
        ([("x", 0, np.array([1.0, np.inf]))], "an infinite value in block [0, 2) of 'x'"),
        ([("x", 0, np.array([np.nan]))], "no value to write"),
        ([], "no value to write"),
    ],
)
def test_blocks_that_are_wrong_leave_nothing(tmp_path, blocks, message):
    with pytest.raises(ValueError) as caught:
        write_bigwig(tmp_path / "x.bw", {"x": 10, "y": 10}, blocks)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []
