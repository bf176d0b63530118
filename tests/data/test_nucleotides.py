from __future__ import annotations

import numpy as np
import pytest
import torch
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reformer.data import reverse_complement
from reformer.data.nucleotides import NOT_A_NUCLEOTIDE, nucleotide_table
from reformer.data.vocabularies import vocabulary
from reformer.errors import UserError
from tests.data.conftest import expected_ids

id_arrays = hnp.arrays(
    st.sampled_from([np.uint8, np.int16, np.int64]),
    hnp.array_shapes(min_dims=1, max_dims=3, min_side=0),
    elements=st.integers(0, 13),
)


@pytest.mark.parametrize("lower_case", ["fold", "keep"])
def test_the_table_follows_the_rule_for_every_byte(lower_case: str) -> None:
    table = nucleotide_table(lower_case)  # type: ignore[arg-type]
    letters = "ACGTURYSWKMBDHVN"
    for byte in range(256):
        if chr(byte).upper() in letters and byte < 128:
            assert table[byte] == expected_ids(chr(byte), lower_case)[0]
        else:
            assert table[byte] == NOT_A_NUCLEOTIDE


def test_the_vocabularies_are_what_checkpoints_rely_on() -> None:
    special = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[MASK]": 3}
    folded = special | {"A": 4, "C": 5, "G": 6, "T": 7, "N": 8}
    assert vocabulary("nucleotide", "fold") == folded
    assert vocabulary("nucleotide", "keep") == folded | {"a": 9, "c": 10, "g": 11, "t": 12, "n": 13}
    assert list(vocabulary("byte", None).values()) == list(range(260))
    assert vocabulary("byte", None)["[MASK]"] == 259


@given(id_arrays)
def test_reverse_complement_is_an_involution(ids: np.ndarray) -> None:
    for values in (ids, torch.from_numpy(ids)):
        other = reverse_complement(values)
        assert (other.dtype, other.shape) == (values.dtype, values.shape)
        assert (reverse_complement(other) == values).all()
    np.testing.assert_array_equal(reverse_complement(torch.from_numpy(ids)).numpy(), reverse_complement(ids))


@given(st.text(st.sampled_from("ACGTNacgtn"), min_size=1))
def test_reverse_complement_equals_biopython(sequence: str) -> None:
    ids = reverse_complement(expected_ids(sequence, "keep"))
    np.testing.assert_array_equal(ids, expected_ids(str(Seq(sequence).reverse_complement()), "keep"))


def test_reverse_complement_keeps_special_tokens_and_leaves_its_input() -> None:
    ids = np.array([1, 4, 4, 5, 9, 2, 0], dtype=np.uint8)
    ids.flags.writeable = False
    assert reverse_complement(ids).tolist() == [0, 2, 12, 6, 7, 7, 1]


@pytest.mark.parametrize("wrong", [-100, -1, 14])
def test_ids_that_are_no_nucleotides_are_refused(wrong: int) -> None:
    for ids in (np.array([4, wrong]), torch.tensor([4, wrong])):
        with pytest.raises(UserError, match=f"token id {wrong} is not a nucleotide: expected 0 to 13"):
            reverse_complement(ids)
