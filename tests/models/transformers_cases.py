"""Random configurations of transformers' Reformer, and its model and ours with the same weights."""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models import reformer as theirs

import reformer

VOCAB_SIZE = 40
THEIR_HEADS = {
    "ReformerForCausalLM": theirs.ReformerModelWithLMHead,
    "ReformerForMaskedLM": theirs.ReformerForMaskedLM,
    "ReformerForSequenceClassification": theirs.ReformerForSequenceClassification,
    "ReformerForQuestionAnswering": theirs.ReformerForQuestionAnswering,
    "ReformerModel": theirs.ReformerModel,
}


@dataclass
class Case:
    """A configuration, the name of our class, and an input."""

    values: dict[str, Any]
    name: str
    input_ids: Tensor
    attention_mask: Tensor | None

    @property
    def real(self) -> Tensor:
        """bool `[B, T]`: which tokens are real."""
        if self.attention_mask is None:
            return torch.ones_like(self.input_ids, dtype=torch.bool)
        return self.attention_mask.bool()


def random_case(seed: int, *, whole: bool = False) -> Case:
    """Draw a configuration and an input.

    Args:
        seed: decides all.
        whole: give the input the only length that transformers trains with.
    """
    rng = random.Random(seed)
    name = list(THEIR_HEADS)[seed % len(THEIR_HEADS)]
    causal = name == "ReformerForCausalLM" or (name != "ReformerForMaskedLM" and rng.random() < 0.3)
    kinds = rng.choice([["local"], ["lsh"], ["local", "lsh"], ["local", "lsh"], ["local", "lsh"]])
    layers = kinds + [rng.choice(kinds) for _ in range(rng.randint(0, 2))]
    rng.shuffle(layers)
    lsh_chunk, local_chunk = rng.choice([8, 16, 32]), rng.choice([4, 8, 24])
    used = [{"lsh": lsh_chunk, "local": local_chunk}[kind] for kind in kinds]
    multiple = math.lcm(*used)
    rows, columns = rng.choice([2, 4]), multiple
    if not whole:
        rows *= 2
    length = rows * columns if whole else rng.randint(3, rows * columns)
    axial_dims = [12, 20] if rng.random() < 0.5 else [8, 24]
    values: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "attention_head_size": rng.choice([8, 12, 16]),
        "num_attention_heads": rng.randint(1, 3),
        "feed_forward_size": 48,
        "attn_layers": layers,
        "lsh_attn_chunk_length": lsh_chunk,
        "local_attn_chunk_length": local_chunk,
        "lsh_num_chunks_before": rng.randint(0, 2),
        "lsh_num_chunks_after": 0 if causal else rng.randint(0, 1),
        "local_num_chunks_before": rng.randint(0, 2),
        "local_num_chunks_after": 0 if causal else rng.randint(0, 1),
        "num_hashes": rng.randint(1, 4),
        "num_buckets": rng.choice([2, 6, 8, [4, 6], [2, 4, 2], None]),
        "hash_seed": rng.randint(0, 1000),
        "axial_pos_embds": rng.random() < 0.6,
        "axial_pos_shape": [rows, columns],
        "axial_pos_embds_dim": axial_dims,
        "max_position_embeddings": rows * columns,
        "hidden_act": rng.choice(["relu", "gelu"]),
        "hidden_dropout_prob": 0.0,
        "local_attention_probs_dropout_prob": 0.0,
        "chunk_size_feed_forward": rng.choice([0, multiple]) if whole or length > multiple else 0,
        "chunk_size_lm_head": 0,
        "initializer_range": 0.2,
        "is_decoder": causal,
    }
    if length <= min(used) or (length % multiple and length < min(used)):
        values["chunk_size_feed_forward"] = 0
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(3, VOCAB_SIZE, (2, length), generator=generator)
    mask = None
    if rng.random() < 0.5:
        mask = torch.ones(2, length, dtype=torch.long)
        mask[rng.randint(0, 1), rng.randint(1, length) :] = 0
    return Case(values, name, input_ids, mask)


def pair(case: Case, folder: Path) -> tuple[nn.Module, nn.Module]:
    """Their model, and ours loaded from what theirs saved; both in evaluation mode."""
    torch.manual_seed(0)
    their_model = THEIR_HEADS[case.name](theirs.ReformerConfig(**case.values)).eval()
    their_model.save_pretrained(folder)
    our_model, loading = getattr(reformer, case.name).from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    return their_model, our_model


def outputs(model: nn.Module, case: Case) -> Tensor:
    """What the head gives for real tokens, `[real tokens, features]`, or `[B, labels]` for sequences."""
    output = model(case.input_ids, attention_mask=case.attention_mask)
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)[case.real]
    result = output.get("logits", output.get("last_hidden_state"))
    return result[case.real] if result.dim() == 3 else result
