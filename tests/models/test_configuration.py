"""What a configuration accepts, what it refuses, and that it survives being saved."""

from pathlib import Path
from typing import Any

import pytest
import transformers
from huggingface_hub.errors import StrictDataclassFieldValidationError

from reformer import ReformerConfig, ReformerForCausalLM, ReformerForMaskedLM
from tests.models.small_models import config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lsh_induction_length": 1}, "lsh_induction_length must be 0 or at least 2, got 1"),
        ({"lsh_induction_length": 4, "is_decoder": False}, "lsh_induction_length needs a decoder"),
        ({"lsh_induction_length": 4, "is_decoder": True, "lsh_window": "chunk"}, "needs a decoder"),
        ({"lsh_window": "buckets"}, "lsh_window must be one of bucket, chunk, got 'buckets'"),
        ({"position_embedding_type": "absolute"}, "position_embedding_type must be one of axial, rotary"),
        ({"residual": "bfloat16"}, "residual must be one of int32, float32"),
        ({"attn_layers": []}, "attn_layers must name at least one layer"),
        ({"attn_layers": ["local", "longformer"]}, "attn_layers must be one of lsh, local, full"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"num_attention_heads": -2}, "num_attention_heads must be at least 1, got -2"),
        ({"num_hashes": 0}, "num_hashes must be at least 1, got 0"),
        ({"lsh_attn_chunk_length": 0}, "lsh_attn_chunk_length must be at least 1, got 0"),
        ({"lsh_num_chunks_before": -1}, "lsh_num_chunks_before must not be negative, got -1"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must be in \[0, 1\), got 1.0"),
        ({"hidden_dropout_prob": float("nan")}, r"hidden_dropout_prob must be in \[0, 1\), got nan"),
        ({"local_num_chunks_after": 1}, "local_num_chunks_after must be 0"),
        ({"lsh_num_chunks_after": 1}, "lsh_num_chunks_after must be 0"),
        ({"num_buckets": 3}, "num_buckets must be an even number or a list of even factors, got 3"),
        ({"num_buckets": 0}, "num_buckets must be an even number or a list of even factors, got 0"),
        ({"num_buckets": [4, 3]}, "num_buckets must be an even number or a list of even factors"),
        ({"num_buckets": []}, "num_buckets must be an even number or a list of even factors"),
        ({"max_num_buckets": 100}, "max_num_buckets must be a power of two, got 100"),
        ({"max_num_buckets": 0}, "max_num_buckets must be a power of two, got 0"),
        (
            {"position_embedding_type": "axial", "axial_pos_embds_dim": [3, 4]},
            r"axial_pos_embds_dim \(3, 4\) must add up to hidden_size=32",
        ),
        ({"attention_head_size": 7}, "rotary positions need an even attention_head_size, got 7"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunk_size_feed_forward": -1},  # silently leaves out every feed-forward
        {"chunk_size_lm_head": -1},
        {"hidden_act": "rely"},
        {"rope_theta": -1.0},
        {"position_embedding_type": "axial", "axial_pos_shape": [4, 4, 4]},
        {"classifier_dropout": 2.0},
        {"tie_word_embeddings": True},
    ],
    ids=lambda changes: next(reversed(changes)),
)
def test_values_that_cannot_be_but_are_accepted(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        config(**changes)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": "large"}, {"attn_layers": "local"}, {"reversible": None}]
)
def test_values_of_the_wrong_type(changes: dict[str, Any]) -> None:
    with pytest.raises(StrictDataclassFieldValidationError, match="Validation error for field"):
        config(**changes)


def test_positions_follow_axial_pos_embds() -> None:
    sizes = {"hidden_size": 256, "axial_pos_embds_dim": [64, 192]}
    assert ReformerConfig(**sizes).position_embedding_type == "axial"
    assert ReformerConfig(**sizes, axial_pos_embds=False).position_embedding_type == "learned"
    assert ReformerConfig(**sizes, position_embedding_type="none").position_embedding_type == "none"


def test_heads_need_their_direction() -> None:
    with pytest.raises(ValueError, match="ReformerForCausalLM needs a configuration with is_decoder=True"):
        ReformerForCausalLM(config(is_decoder=False))
    with pytest.raises(ValueError, match="ReformerForMaskedLM needs a configuration with is_decoder=False"):
        ReformerForMaskedLM(config(is_decoder=True))


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    saved = config(
        rope_theta=500.0,
        residual="float32",
        reversible=False,
        num_buckets=[4, 6],
        hash_seed=3,
        max_num_buckets=8,
        chunk_size_lm_head=5,
        num_labels=4,
        problem_type="regression",
    )
    saved.save_pretrained(tmp_path)
    for loaded in (
        ReformerConfig.from_pretrained(tmp_path),
        transformers.AutoConfig.from_pretrained(tmp_path),
    ):
        assert type(loaded) is ReformerConfig
        assert loaded.to_json_string() == saved.to_json_string()


def test_fields_of_transformers_keep_their_names() -> None:
    ours, theirs = ReformerConfig(), transformers.ReformerConfig()
    assert set(theirs.to_dict()) <= set(ours.to_dict())
    assert ours.model_type != theirs.model_type


def test_an_encoder_looks_both_ways_unless_told_otherwise() -> None:
    assert ReformerConfig(is_decoder=True).lsh_num_chunks_after == 0
    assert ReformerConfig(is_decoder=False, lsh_num_chunks_before=2).lsh_num_chunks_after == 2
    assert ReformerConfig(is_decoder=False, lsh_window="chunk").lsh_num_chunks_after == 0
    assert ReformerConfig(is_decoder=False, lsh_num_chunks_after=0).lsh_num_chunks_after == 0
