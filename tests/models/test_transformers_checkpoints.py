"""Folders that transformers' Reformer wrote, loaded by our classes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.models import reformer as theirs

from reformer import ReformerConfig, ReformerForCausalLM, ReformerForSequenceClassification, ReformerModel
from tests.models.small_models import assert_identical, tokens
from tests.models.transformers_cases import random_case

VALUES = random_case(10).values  # causal, local and LSH layers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    theirs.ReformerModelWithLMHead(theirs.ReformerConfig(**VALUES)).save_pretrained(tmp_path)
    return tmp_path


def test_their_fields_keep_their_values_and_ours_follow(folder: Path) -> None:
    config = ReformerConfig.from_pretrained(folder)
    wanted = theirs.ReformerConfig.from_pretrained(folder).to_dict()
    ours = config.to_dict()
    differ = {name for name, value in wanted.items() if ours[name] != value}
    assert differ == {"model_type", "architectures"}
    assert config.architectures == ["ReformerForCausalLM"]
    assert (config.lsh_window, config.as_transformers, config.residual) == ("chunk", True, "float32")
    assert config.position_embedding_type == ("axial" if VALUES["axial_pos_embds"] else "learned")


def test_what_they_leave_out_has_their_default(folder: Path) -> None:
    """Ours has other defaults for some fields, such as the number of heads."""
    (folder / "config.json").write_text(json.dumps({"model_type": "reformer"}))
    ours, wanted = ReformerConfig.from_pretrained(folder).to_dict(), theirs.ReformerConfig().to_dict()
    assert {name for name in wanted if ours[name] != wanted[name]} == {"model_type"}


def test_fields_can_be_changed_while_loading(folder: Path) -> None:
    model = ReformerForCausalLM.from_pretrained(folder, residual="int32", num_hashes=7)
    assert (model.config.residual, model.config.num_hashes) == ("int32", 7)
    assert model.config.as_transformers


def test_the_type_of_the_model_is_ours_before_transformers_looks_at_it(folder: Path) -> None:
    """It would warn of another type."""
    assert ReformerConfig.get_config_dict(folder)[0]["model_type"] == ReformerConfig.model_type


@torch.no_grad()
def test_what_we_save_of_it_loads_again_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    model = ReformerForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "ours")
    again = ReformerForCausalLM.from_pretrained(tmp_path / "ours")
    assert again.config.to_json_string() == model.config.to_json_string()
    assert_identical(again.state_dict(), model.state_dict())
    assert torch.equal(again(tokens(2, 30)).logits, model(tokens(2, 30)).logits)


def test_the_body_alone_and_another_head(folder: Path) -> None:
    saved = load_file(folder / "model.safetensors")
    base, loading = ReformerModel.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"]
    assert loading["unexpected_keys"] == {"lm_head.bias", "lm_head.decoder.weight"}
    body = {f"reformer.{name}": tensor for name, tensor in base.state_dict().items()}
    assert_identical(body, {name: t for name, t in saved.items() if name.startswith("reformer.")})
    model, loading = ReformerForSequenceClassification.from_pretrained(
        folder, num_labels=3, output_loading_info=True
    )
    assert all(name.startswith("classifier.") for name in loading["missing_keys"])
    assert model.classifier.out_proj.out_features == 3


def test_constants_that_old_versions_saved_are_passed_over(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    prefix = "reformer.encoder.layers.0.attention.self_attention"
    weights |= {f"{prefix}.{kind}mask_value_float16": torch.tensor(-1e4) for kind in ("", "self_")}
    weights |= {f"{prefix}.{kind}mask_value_float32": torch.tensor(-1e9) for kind in ("", "self_")}
    weights["lm_head.decoder.bias"] = weights["lm_head.bias"].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _, loading = ReformerForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lsh_window": "bucket"}, 'as_transformers needs lsh_window="chunk"'),
        ({"attn_layers": ["full"]}, 'as_transformers needs .* no "full" among attn_layers'),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    values = {"lsh_window": "chunk", "as_transformers": True}
    with pytest.raises(ValueError, match=message):
        ReformerConfig(**(values | changes))


def test_auto_config_still_gives_theirs(folder: Path) -> None:
    assert type(transformers.AutoConfig.from_pretrained(folder)) is theirs.ReformerConfig
