from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reformer.data import TokenArray, WindowSampler, build_token_array, evaluation_windows
from reformer.data.tokens import Source
from reformer.data.writer import TokenArrayWriter
from reformer.errors import UserError


@pytest.fixture(scope="module")
def make_array(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[int]], TokenArray]:
    """Writes an array with records of given lengths, r0, r1, ..., of random bases."""

    def make(lengths: list[int]) -> TokenArray:
        folder = tmp_path_factory.mktemp("array")
        with TokenArrayWriter(folder, "nucleotide", "fold", None) as writer:
            for i, length in enumerate(lengths):
                writer.begin_record(f"r{i}", "nowhere")
                writer.append(np.random.default_rng(i).integers(4, 8, length, dtype=np.uint8).tobytes())
                writer.end_record()
            writer.finish((Source("made", 0, 0, ""),))
        return TokenArray.open(folder)

    return make


MakeArray = Callable[[list[int]], TokenArray]


@given(
    lengths=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    seed=st.integers(0, 2**64 - 1),
    indices=st.lists(st.integers(0, 2**64 - 1), max_size=5),
    data=st.data(),
)
def test_a_window_lies_in_one_record_and_is_not_a_copy(
    make_array: MakeArray, lengths: list[int], seed: int, indices: list[int], data: st.DataObject
) -> None:
    array = make_array(lengths)
    length = data.draw(st.integers(1, max(lengths)))
    sampler = WindowSampler(array, length, seed)
    assert sampler.num_starts == sum(max(0, n - length + 1) for n in lengths)
    for index in indices:
        start, window = sampler.start(index), sampler.window(index)
        assert any(r.start <= start and start + length <= r.start + r.length for r in array.records)
        assert window.shape == (length,)
        assert np.shares_memory(window, array.tokens)
        np.testing.assert_array_equal(window, array.tokens[start : start + length])


def test_starts_are_uniform_over_all_that_fit(make_array: MakeArray) -> None:
    sampler = WindowSampler(make_array([3, 12, 7, 2, 30]), 5, seed=7)
    allowed = [*range(3, 11), *range(15, 18), *range(24, 50)]
    assert sampler.num_starts == len(allowed) == 37
    draws = 37_000
    counts = Counter(sampler.start(i) for i in range(draws))
    assert sorted(counts) == allowed
    expected = draws / len(allowed)
    chi_square = sum((counts[start] - expected) ** 2 / expected for start in allowed)
    assert chi_square < 73.4  # the 0.9998 quantile at 36 degrees of freedom


def test_windows_depend_on_seed_and_index_alone(make_array: MakeArray) -> None:
    array = make_array([1000, 500])
    state = str(np.random.get_state(legacy=False))  # noqa: NPY002 - that it is left alone is the test
    first = [WindowSampler(array, 100, seed=3).start(i) for i in range(20)]
    sampler = WindowSampler(array, 100, seed=3)
    assert [sampler.start(i) for i in reversed(range(20))] == first[::-1]
    assert [WindowSampler(array, 100, seed=4).start(i) for i in range(20)] != first
    assert len(set(first)) > 15
    assert str(np.random.get_state(legacy=False)) == state  # noqa: NPY002


def philox_4x64_10(counter: list[int], key: list[int]) -> list[int]:
    """Philox as its authors give it (Salmon et al. 2011, section 3.3): 10 rounds on 4 words of 64 bits."""
    word = 2**64
    for _ in range(10):
        first, second = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        high = (first // word, second // word)
        counter = [
            high[1] ^ counter[1] ^ key[0],
            second % word,
            high[0] ^ counter[3] ^ key[1],
            first % word,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) % word, (key[1] + 0xBB67AE8584CAA73B) % word]
    return counter


@pytest.mark.parametrize(("seed", "index"), [(0, 0), (0, 1), (1, 0), (2**64 - 1, 5), (17, 2**63)])
def test_the_draw_is_the_published_generator(make_array: MakeArray, seed: int, index: int) -> None:
    sampler = WindowSampler(make_array([1000]), 100, seed)
    bits = philox_4x64_10([1, 0, 0, 0], [seed, index])[0]  # NumPy's counter starts at 1
    assert sampler.start(index) == bits * 901 // 2**64


def test_a_window_as_long_as_the_longest_record_is_that_record(make_array: MakeArray) -> None:
    array = make_array([5, 9, 8])
    sampler = WindowSampler(array, 9, seed=0)
    assert {sampler.start(i) for i in range(10)} == {5}
    np.testing.assert_array_equal(sampler.window(3), array.tokens[5:14])


def test_a_whole_chromosome_is_one_window(yeast_folder: Path, tmp_path: Path) -> None:
    (path,) = yeast_folder.glob("ScerR64_I_GCF*_genomic.fna.gz")
    array = build_token_array(path, tmp_path)
    window = WindowSampler(array, 230_218, seed=1).window(12)
    assert np.shares_memory(window, array.tokens)
    np.testing.assert_array_equal(window, array.tokens)
    assert list(evaluation_windows(array, 230_218)) == [("NC_001133.9", 0, 230_218)]


def test_windows_that_cannot_be_are_refused(make_array: MakeArray) -> None:
    array = make_array([5, 9, 8])
    with pytest.raises(UserError, match=r"no record has 10 tokens, .*: the longest, 'r1', has 9$"):
        WindowSampler(array, 10, seed=0)
    with pytest.raises(UserError, match="window length is 0: expected 1 or more"):
        WindowSampler(array, 0, seed=0)
    for seed in (-1, 2**64):
        with pytest.raises(UserError, match=f"seed is {seed}: expected 0 to"):
            WindowSampler(array, 5, seed=seed)
    with pytest.raises(IndexError, match="window index is -1"):
        WindowSampler(array, 5, seed=0).window(-1)
    with pytest.raises(UserError, match="evaluation window length is 2: expected 3 or more"):
        evaluation_windows(array, 2)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6), length=st.integers(3, 70))
def test_evaluation_windows_cover_every_record_once(
    make_array: MakeArray, lengths: list[int], length: int
) -> None:
    array = make_array(lengths)
    windows = list(evaluation_windows(array, length))
    covered = Counter(p for window in windows for p in range(window.start, window.start + window.length))
    single = {record.start for record in array.records if record.length == 1}
    assert covered == Counter(set(range(len(array))) - single)
    assert windows == sorted(windows, key=lambda window: window.start)
    for record in array.records:
        sizes = [window.length for window in windows if window.record == record.name]
        assert sum(sizes) == (record.length if record.length > 1 else 0)
        assert all(size == length for size in sizes[:-2])
        assert all(2 <= size <= length for size in sizes[-2:])
        assert len(sizes) < 2 or sizes[-2] == length or (sizes[-2], sizes[-1]) == (length - 1, 2)
