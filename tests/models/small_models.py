"""Small models and inputs for the tests of models."""

from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reformer import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
)

VOCAB_SIZE = 40
HEADS = [
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
]

Model = TypeVar("Model", bound=PreTrainedModel)


def config(**changes: Any) -> ReformerConfig:
    """A causal model's configuration of three layers; large weights, so that everything matters."""
    causal = changes.get("is_decoder", True)
    values: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "attention_head_size": 8,
        "num_attention_heads": 2,
        "feed_forward_size": 48,
        "attn_layers": ["local", "lsh", "full"],
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "lsh_num_chunks_after": 0 if causal else 1,
        "local_num_chunks_after": 0 if causal else 1,
        "num_hashes": 2,
        "position_embedding_type": "rotary",
        "axial_pos_shape": [16, 20],
        "axial_pos_embds_dim": [12, 20],
        "max_position_embeddings": 320,
        "initializer_range": 0.3,
        "is_decoder": True,
    }
    return ReformerConfig(**(values | changes))


def build(cls: type[Model], *, seed: int = 0, **changes: Any) -> Model:
    """A model in evaluation mode, with the same random weights for the same seed."""
    causal = {"is_decoder": cls is ReformerForCausalLM} if cls in HEADS else {}
    torch.manual_seed(seed)
    return cls(config(**(causal | changes))).eval()


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """Random ids, none of which is special."""
    return torch.randint(3, VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


def gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Copies of the gradients that there are."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_identical(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    """The same names and the same bits."""
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
