import pickle

import numpy as np
import pytest

from reformer.data import WindowSampler, build_token_array, evaluation_windows
from reformer.data.regions import hold_out, named_records, read_regions
from reformer.data.tokens import Record
from reformer.errors import UserError

FASTA = b">a\nACGTACGTAC\n>b\nTTTTT\n>c\nGGGGGG\n"


@pytest.fixture
def array(write, tmp_path):
    return build_token_array(write("g.fa", FASTA), tmp_path / "cache")


def test_what_is_held_out_and_the_rest_are_all_and_share_nothing(array, write):
    bed = write("r.bed", b"#c\ntrack x\na\t6\t8\tname\na\t2\t4\na\t3\t7\n\nc\t0\t2\nb 0 5\n")
    rest, held_out = hold_out(array, read_regions(bed, array))
    assert rest.records[:] == [Record("a:0-2", 0, 2), Record("a:8-10", 8, 2), Record("c:2-6", 17, 4)]
    assert held_out.records[:] == [Record("a:2-8", 2, 6), Record("b", 10, 5), Record("c:0-2", 15, 2)]
    assert (len(rest), len(held_out), len(array)) == (8, 13, 21)
    np.testing.assert_array_equal(rest.window(17, 4), array.tokens[17:21])
    assert rest.letter_counts() == {}
    assert rest.vocabulary == array.vocabulary


def test_windows_stay_in_what_is_selected(array):
    rest, held_out = hold_out(array, named_records(array, ["b"]))
    assert [window.record for window in evaluation_windows(held_out, 100)] == ["b"]
    sampler = WindowSampler(rest, 6, 0)
    starts = {sampler.start(i) for i in range(200)}
    assert starts == {0, 1, 2, 3, 4, 15}


def test_a_selection_survives_pickling(array):
    rest, _ = hold_out(array, named_records(array, ["a"]))
    loaded = pickle.loads(pickle.dumps(rest))
    assert loaded.records[:] == rest.records[:]
    assert len(loaded) == 11


@pytest.mark.parametrize(
    ("bed", "message"),
    [
        (b"a\t1\n", "line 1: expected a name, a start and an end"),
        (b"a\tx\t3\n", "line 1: expected a name, a start and an end"),
        (
            b"a\t0\t3\nz\t1\t2\n",
            "line 2: 'z' not in .*g.fa, which has 'a', 'b', 'c': expected the same names",
        ),
        (b"chrA\t0\t3\n", "line 1: sequence 'chrA' is not in .*g.fa, which has 'a'"),
        (b"b\t1\t6\n", r"line 1: \[1, 6\): expected bases of the 5 of 'b'"),
        (b"b\t2\t2\n", r"line 1: \[2, 2\)"),
        (b"# none\n", "no region: expected"),
    ],
)
def test_regions_that_cannot_be(array, write, bed, message):
    with pytest.raises(UserError, match=message):
        read_regions(write("r.bed", bed), array)


def test_names_and_everything(array):
    with pytest.raises(UserError, match=r"^held_out_records: 'x' not in .*g\.fa, which has 'a', 'b'"):
        named_records(array, ["a", "x"])
    with pytest.raises(UserError, match="all of it is held out"):
        hold_out(array, array.records[:])


@pytest.mark.parametrize("spans", [[(5, 0)], [(5, 3), (7, 1)], [(20, 2)]])
def test_a_selection_that_cannot_be(array, spans):
    with pytest.raises(ValueError, match="expected tokens behind"):
        array.select([Record("x", *span) for span in spans])
