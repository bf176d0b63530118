"""Saving, loading, and transformers' Auto classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from reformer import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
    ReformerModel,
)
from tests.models.small_models import HEADS, assert_identical, build, config, tokens

AUTO = {
    ReformerModel: transformers.AutoModel,
    ReformerForCausalLM: transformers.AutoModelForCausalLM,
    ReformerForMaskedLM: transformers.AutoModelForMaskedLM,
    ReformerForQuestionAnswering: transformers.AutoModelForQuestionAnswering,
    ReformerForSequenceClassification: transformers.AutoModelForSequenceClassification,
    ReformerForTokenClassification: transformers.AutoModelForTokenClassification,
}


@pytest.mark.parametrize("positions", ["axial", "learned", "rotary", "none"])
@pytest.mark.parametrize("cls", [ReformerModel, *HEADS])
@torch.no_grad()
def test_saved_and_loaded_is_the_same_bit_for_bit(cls: Any, positions: str, tmp_path: Path) -> None:
    model = build(cls, position_embedding_type=positions)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.suffix != ".json") == [".safetensors"]
    x = tokens(2, 30)
    for loader in (cls, AUTO[cls]):
        loaded = loader.from_pretrained(tmp_path)
        assert type(loaded) is cls
        assert not loaded.training
        assert_identical(loaded.state_dict(), model.state_dict())
        assert all(torch.equal(a, b) for a, b in zip(loaded(x).to_tuple(), model(x).to_tuple(), strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    model = build(ReformerForCausalLM).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = ReformerForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert_identical(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize("cls", [ReformerModel, *HEADS])
def test_auto_classes_know_the_configuration(cls: Any) -> None:
    causal = {} if cls in (ReformerModel, ReformerForCausalLM) else {"is_decoder": False}
    assert type(AUTO[cls].from_config(config(**causal))) is cls


def test_transformers_own_reformer_is_left_alone() -> None:
    theirs = transformers.ReformerConfig(attn_layers=["local"], is_decoder=True)
    model = transformers.AutoModelForCausalLM.from_config(theirs)
    assert type(model) is transformers.ReformerModelWithLMHead
    assert type(transformers.AutoConfig.for_model("reformer")) is transformers.ReformerConfig
    assert type(transformers.AutoConfig.for_model("reformer-torch")) is ReformerConfig


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("cls", HEADS)
def test_a_head_on_a_saved_base_is_initialised(cls: Any, tmp_path: Path) -> None:
    causal = {"is_decoder": cls is ReformerForCausalLM}
    base = build(ReformerModel, **causal)
    base.save_pretrained(tmp_path)
    model = cls.from_pretrained(tmp_path)
    assert_identical(model.reformer.state_dict(), base.state_dict())
    fresh = build(cls)
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name
        if name.endswith("bias") and not name.startswith("reformer."):
            assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_a_resized_model_loads(tmp_path: Path) -> None:
    model = build(ReformerForCausalLM)
    model.resize_token_embeddings(47, mean_resizing=False)
    model.save_pretrained(tmp_path)
    assert_identical(ReformerForCausalLM.from_pretrained(tmp_path).state_dict(), model.state_dict())


def test_initial_weights_have_the_spread_that_the_configuration_asks_for() -> None:
    sizes = {"hidden_size": 128, "axial_pos_embds_dim": [64, 64]}
    spreads = {"axial_norm_std": 0.7, "initializer_range": 0.05}
    model = build(ReformerForCausalLM, position_embedding_type="axial", **sizes, **spreads)
    for name, tensor in model.state_dict().items():
        if "position_embeddings" in name:
            assert 0.6 < tensor.std() < 0.8, name
        elif name.endswith("layer_norm.weight"):
            assert (tensor == 1).all(), name
        elif name.endswith("bias"):
            assert not tensor.any(), name
        else:
            assert 0.045 < tensor.std() < 0.055, name
