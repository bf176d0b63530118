"""The configuration of one of our models as transformers' Reformer has it, and the tensors of a model."""

from typing import Any

import torch
import transformers

from reformer.models import modeling
from reformer.models.configuration import ARCHITECTURES, ReformerConfig


def to_transformers(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of transformers' `config.json` for those of ours.

    Fields of ours stay next to theirs, which passes them over, so that `ReformerConfig.from_dict` gives the
    configuration back.

    Raises:
        ValueError: transformers has no such model.
    """
    config = ReformerConfig.from_dict(values)
    if config.lsh_window != "chunk":
        raise ValueError(f'transformers\' Reformer needs lsh_window "chunk", got {config.lsh_window!r}')
    if "full" in config.attn_layers:
        raise ValueError(
            f'transformers\' Reformer knows no "full" attention, got attn_layers {config.attn_layers}'
        )
    if config.position_embedding_type not in ("axial", "learned"):
        raise ValueError(
            'transformers\' Reformer needs position_embedding_type "axial" or "learned", got '
            f"{config.position_embedding_type!r}"
        )
    if config.classifier_pooling != "token":
        raise ValueError(
            'transformers\' Reformer classifies from a token: needs classifier_pooling "token", got '
            f"{config.classifier_pooling!r}"
        )
    theirs = {ours: name for name, ours in ARCHITECTURES.items()}
    names = values.get("architectures") or []
    if unknown := [name for name in names if name not in theirs]:
        raise ValueError(f"transformers' Reformer has no counterpart of {unknown[0]}")
    changes = {
        "model_type": transformers.ReformerConfig.model_type,
        "architectures": [theirs[name] for name in names],
    }
    return config.to_dict() | changes


def expected_shapes(config: ReformerConfig, architecture: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of one of our models, which is not made.

    Raises:
        ValueError: there is no such model, or it cannot have this configuration.
    """
    if architecture not in (*ARCHITECTURES.values(), "ReformerForTokenClassification"):
        raise ValueError(f"{architecture} is no Reformer model that could be converted")
    with torch.device("meta"):
        model = getattr(modeling, architecture)(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
