"""Weights in trax's layout, read back."""

from pathlib import Path

import numpy as np
import pytest
import torch

from reformer import ReformerForCausalLM
from reformer.models.trax import state_dict_from_trax
from tests.models.small_models import assert_identical, build
from tests.models.trax_layout import flat, nested_weights

LAYERS = ["local", "lsh", "lsh", "local"]


def _model() -> ReformerForCausalLM:
    model = build(ReformerForCausalLM, attn_layers=LAYERS, position_embedding_type="axial")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("in_chunks", [False, True])
def test_every_weight_comes_back(in_chunks: bool, tmp_path: Path) -> None:
    model = _model()
    np.savez(tmp_path / "weights.npz", **flat(nested_weights(model, in_chunks=in_chunks)))
    with np.load(tmp_path / "weights.npz", allow_pickle=False) as arrays:
        weights = state_dict_from_trax(dict(arrays), model.config)
    wanted = model.state_dict()
    assert weights.keys() == wanted.keys()
    assert_identical({name: weights[name] for name in wanted}, dict(wanted))


def test_the_way_to_an_array_is_the_one_of_transformers_script() -> None:
    """Its public conversion script reads `weights[5][4 * i][1][0]` and so on."""
    weights = nested_weights(_model())
    arrays = flat(weights)
    block = weights[5][4 * 1 : 4 * 2]  # an LSH layer
    assert arrays["5.4.0.0.1"] is block[0][0][0][1]
    assert len(block[0][1]) == 3
    assert arrays["5.4.1.2"].shape == (2, 8, 32)
    assert arrays["5.6.0.1.2.4.0"] is block[2][0][1][2][4][0]
    assert len(weights[5][0][1]) == 4  # a local layer


def test_what_is_missing_or_left_over_is_named() -> None:
    model = _model()
    arrays = flat(nested_weights(model))
    with pytest.raises(ValueError, match=r"array '9\.1' is missing"):
        state_dict_from_trax({name: a for name, a in arrays.items() if name != "9.1"}, model.config)
    with pytest.raises(ValueError, match=r"1 array\(s\) have no place .* the first is '5\.99'"):
        state_dict_from_trax(arrays | {"5.99": np.zeros(1)}, model.config)
    local = build(ReformerForCausalLM, attn_layers=["lsh"] * 4, position_embedding_type="axial").config
    with pytest.raises(ValueError, match=r"have no place in a model with these attn_layers.*5\.0\.1\.3"):
        state_dict_from_trax(arrays, local)
    learned = build(ReformerForCausalLM, attn_layers=LAYERS, position_embedding_type="learned").config
    with pytest.raises(ValueError, match="need axial positions"):
        state_dict_from_trax(arrays, learned)
