import numpy as np
import pybigtools
import pytest

from reformer.errors import UserError
from reformer.genomics.formats.tracks import BigWig, write_bigwig


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


def test_what_was_written_is_read(tmp_path):
    rng = np.random.default_rng(2)
    values = {"b": np.repeat(rng.normal(size=300), 7).astype("f4"), "a": rng.normal(size=50).astype("f4")}
    values["b"][100:400] = np.nan
    lengths = {"b": 2100, "a": 60, "empty": 9}
    write_bigwig(tmp_path / "x.bw", lengths, [(name, 0, one) for name, one in values.items()])
    file = BigWig(tmp_path / "x.bw", {**lengths, "other": 7}, "genome.fa")
    np.testing.assert_array_equal(file.values("b", 90, 500), values["b"][90:500])
    np.testing.assert_array_equal(file.values("a", 0, 60), np.append(values["a"], [np.nan] * 10))
    assert np.isnan(file.values("empty", 0, 9)).all()
    assert np.isnan(file.values("other", 2, 7)).all()


def test_pybigwig_writes_what_is_read(tmp_path):
    """libBigWig, with its own way to write intervals of one length."""
    writer = pytest.importorskip("pyBigWig")
    path = tmp_path / "y.bw"
    file = writer.open(str(path), "w")
    file.addHeader([("c", 1000), ("d", 500)])
    file.addEntries("c", 100, values=[1.0, 2.0, 3.5], span=10, step=20)
    file.addEntries(["d"], [7], ends=[9], values=[-4.0])
    file.close()
    found = BigWig(path, {"c": 1000, "d": 500}, "genome.fa")
    expected = np.full(1000, np.nan, dtype="f4")
    for number, value in enumerate((1.0, 2.0, 3.5)):
        expected[100 + 20 * number : 110 + 20 * number] = value
    np.testing.assert_array_equal(found.values("c", 0, 1000), expected)
    assert found.values("d", 6, 10).tolist()[1:3] == [-4.0, -4.0]


def test_broken_bigwig_is_refused_without_another_line(tmp_path, capfd):
    path = tmp_path / "x.bw"
    write_bigwig(path, {"a": 5000}, [("a", 0, np.random.default_rng(0).normal(size=5000))])
    content = path.read_bytes()
    values, messages = BigWig(path, {"a": 5000}, "genome.fa").values("a", 0, 5000), []
    for size in range(0, len(content), max(1, len(content) // 50)):
        path.write_bytes(content[:size])
        try:  # what lies behind the data may be cut off: summaries for browsers
            np.testing.assert_array_equal(BigWig(path, {"a": 5000}, "g").values("a", 0, 5000), values)
        except UserError as error:
            messages.append(str(error).removeprefix(f"{path}: "))
    assert messages[0] == "empty: expected bigWig"
    assert len(messages) > 20
    assert all(message.startswith("truncated: expected more than its") for message in messages[1:])
    assert capfd.readouterr() == ("", "")
    path.write_bytes(content)
    for lengths, message in (({"b": 5000}, "'a' not in genome.fa"), ({"a": 4999}, "'a' has 5,000 bases")):
        with pytest.raises(UserError, match=message):
            BigWig(path, lengths, "genome.fa")
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(UserError, match="bigWig"):
        BigWig(tmp_path / "x.txt", {"a": 5000}, "genome.fa")


def test_damaged_data_are_refused(tmp_path):
    path = tmp_path / "x.bw"
    write_bigwig(path, {"a": 5000}, [("a", 0, np.random.default_rng(0).normal(size=5000))])
    content = path.read_bytes()
    middle = int.from_bytes(content[16:24], "little") + 100  # behind the offset of the data
    path.write_bytes(content[:middle] + bytes(200) + content[middle + 200 :])
    with pytest.raises(UserError, match=r"x\.bw: damaged in 'a': .+") as caught:
        BigWig(path, {"a": 5000}, "genome.fa").values("a", 0, 5000)
    assert "\n" not in str(caught.value)
