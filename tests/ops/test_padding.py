"""Padding changes nothing, wherever it is and whatever it holds (DESIGN.md, section 3, point 6)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.cases import Case, Inputs, attend_and_differentiate, make_inputs

NUM_REAL, LENGTH = 90, 150
PLACES = {
    "left": torch.arange(LENGTH - NUM_REAL, LENGTH),
    "right": torch.arange(NUM_REAL),
    "both": torch.arange(20, 20 + NUM_REAL),
    "middle": torch.cat([torch.arange(40), torch.arange(LENGTH - NUM_REAL + 40, LENGTH)]),
    "scattered": torch.randperm(LENGTH, generator=torch.Generator().manual_seed(0))[:NUM_REAL].sort().values,
}
CASES = [
    Case(window=window, causal=causal, look=look, correct_duplicates=duplicates, chunk_length=8).possible()
    for window in ("bucket", "chunk", "local")
    for causal, look, duplicates in ((True, (1, 0), False), (False, (1, 1), True), (True, (2, 1), True))
]


def padded(inputs: Inputs, places: list[Tensor], seed: int) -> Inputs:
    """Put the real tokens of each row of the batch at its places, among large garbage."""
    g = torch.Generator().manual_seed(seed)
    new: dict[str, Any] = {}
    for name in ("q", "k", "v", "grad_out"):
        x = getattr(inputs, name)
        new[name] = 100 * torch.randn(*x.shape[:2], LENGTH, x.shape[3], generator=g, dtype=x.dtype)
    shape = (*inputs.k_buckets.shape[:3], LENGTH)
    buckets = torch.randint(int(inputs.k_buckets.max()) + 3, shape, generator=g)
    mask = torch.zeros(shape[0], LENGTH, dtype=torch.bool)
    for b, place in enumerate(places):
        for name, tensor in new.items():
            tensor[b, :, place] = getattr(inputs, name)[b]
        buckets[b][..., place] = inputs.k_buckets[b]
        mask[b, place] = True
    return replace(inputs, q_buckets=buckets, k_buckets=buckets, key_padding_mask=mask, **new)


@pytest.mark.parametrize(
    ("backend", "small_tiles"), [("reference", False), ("torch", False), ("torch", True)]
)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_real_tokens_get_the_same_output_and_gradients(case: Case, backend: str, small_tiles: bool) -> None:
    inputs = make_inputs(replace(case, T=NUM_REAL), seed=0)
    expected = attend_and_differentiate(case, inputs, backend)
    for first, second in (("left", "right"), ("both", "middle"), ("scattered", "left")):
        places = [PLACES[first], PLACES[second]]
        batch = padded(inputs, places, seed=1)
        actual = attend_and_differentiate(replace(case, small_tiles=small_tiles), batch, backend)
        for name, tensor in actual.items():
            for b, place in enumerate(places):
                difference = tensor[b, :, place] - expected[name][b]
                assert difference.abs().max() < 1e-12, f"{name}, padding {(first, second)[b]}"
            assert (tensor.transpose(1, 2)[~batch.key_padding_mask] == 0).all(), f"{name} at padding"


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_row_alone_equals_the_row_in_its_batch(case: Case, backend: str) -> None:
    inputs = padded(
        make_inputs(replace(case, T=NUM_REAL), seed=0), [PLACES["left"], PLACES["scattered"]], seed=1
    )
    together = attend_and_differentiate(case, inputs, backend)
    for b in range(2):
        alone = Inputs(**{name: getattr(inputs, name)[b : b + 1] for name in vars(inputs)})
        for name, tensor in attend_and_differentiate(case, alone, backend).items():
            assert (tensor[0] - together[name][b]).abs().max() < 1e-12, name


@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_a_mask_without_padding_changes_nothing(window: str) -> None:
    case = Case(window=window, T=70).possible()
    inputs = make_inputs(case, seed=0)
    full = replace(inputs, key_padding_mask=torch.ones(2, 70, dtype=torch.bool))
    expected, actual = (attend_and_differentiate(case, x, "torch") for x in (inputs, full))
    for name in expected:
        assert (expected[name] - actual[name]).abs().max() < 1e-12
