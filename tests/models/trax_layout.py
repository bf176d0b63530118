"""A model's weights in the nested tuples that trax's Reformer language model has, and their flat names."""

from typing import Any

import numpy as np
from torch import nn

from reformer import ReformerForCausalLM
from reformer.layers.attention import LocalSelfAttention


def nested_weights(model: ReformerForCausalLM, *, in_chunks: bool = False) -> tuple[Any, ...]:
    """The tuple that trax would pickle under "weights"; `()` stands for trax layers without weights."""
    base = model.reformer
    axes = tuple((_array(weight),) for weight in base.embeddings.position_embeddings.weights)
    blocks: list[Any] = []
    for layer in base.encoder.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        kind = attention.self_attention
        names = ("query", "key", "value") if isinstance(kind, LocalSelfAttention) else ("query_key", "value")
        heads = [
            _array(getattr(kind, name).weight).reshape(kind.num_heads, kind.head_size, -1).transpose(0, 2, 1)
            for name in names
        ]
        output = _array(attention.output.dense.weight).T.reshape(kind.num_heads, kind.head_size, -1)
        blocks.append(((_norm(attention.layer_norm),), (*heads, output)))
        blocks.append(())
        dense, out = feed_forward.dense.dense, feed_forward.output.dense
        inner: tuple[Any, ...] = (_norm(feed_forward.layer_norm), _linear(dense), (), (), _linear(out), ())
        if in_chunks:
            inner = ((), (), inner, ())
        blocks.append((((), ((), (), inner)),))
        blocks.append(())
    head = (_array(model.lm_head.decoder.weight).T, _array(model.lm_head.bias))
    norm_out = _norm(base.encoder.layer_norm)
    embeddings = _array(base.embeddings.word_embeddings.weight)
    return (), embeddings, (), axes, (), tuple(blocks), (), norm_out, (), head


def flat(node: Any, place: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Arrays by the way to them: the snippet of docs/checkpoints.md."""
    if isinstance(node, (tuple, list)):
        arrays: dict[str, np.ndarray] = {}
        for index, child in enumerate(node):
            arrays |= flat(child, (*place, str(index)))
        return arrays
    return {".".join(place): np.asarray(node)}


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy().copy()


def _norm(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return _array(layer.weight), _array(layer.bias)


def _linear(layer: nn.Module) -> tuple[np.ndarray, np.ndarray]:
    return _array(layer.weight).T, _array(layer.bias)
