import numpy as np
import pytest

from reformer.genomics.windows import Windows


@pytest.mark.parametrize("length", [1, 99, 100, 101, 180, 181, 1000])
@pytest.mark.parametrize("windows", [Windows(100, 10), Windows(100, 0), Windows(7, 3)])
def test_windows_cover_every_base_once(length, windows):
    found = [np.arange(start, end)[inner] for start, end, inner in windows.of(length)]
    assert np.array_equal(np.concatenate(found), np.arange(length))
    assert all(end - start <= windows.length for start, end, _ in windows.of(length))
    with pytest.raises(ValueError, match="twice the overlap"):
        Windows(6, 3)
