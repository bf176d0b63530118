"""Weights of trax's Reformer language model under the names that ours have.

trax keeps weights in nested tuples, one for each of its layers, without names. Here an array's name is the
way to it: the indices joined by dots. With N for a reversible block (four trax layers: attention, swap,
feed-forward, swap), H heads of D features and d the hidden size:

    1                       token embeddings [vocab, d]
    3.A.0                   axial positions of axis A
    5.4N.0.0.{0,1}          layer norm of the attention: scale, bias [d]
    5.4N.1.K                lsh: query-key, value, output; local: query, key, value, output;
                            [H, d, D], the output [H, D, d]
    5.4N+2.0.1.2.0.{0,1}    layer norm of the feed-forward
    5.4N+2.0.1.2.1.{0,1}    first dense layer: weight [d, ff], bias
    5.4N+2.0.1.2.4.{0,1}    second dense layer
    7.{0,1}                 last layer norm [2d]
    9.{0,1}                 head: weight [2d, vocab], bias

A feed-forward that trax applies in chunks lies one level deeper, at 5.4N+2.0.1.2.2.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from reformer.models.configuration import ReformerConfig

Read = Callable[[str], Tensor]

_PROJECTIONS = {"lsh": ("query_key", "value"), "local": ("query", "key", "value")}


def state_dict_from_trax(arrays: Mapping[str, np.ndarray], config: ReformerConfig) -> dict[str, Tensor]:
    """Name the weights of a trax language model, in float32.

    Args:
        arrays: by the names above.
        config: with axial positions, and "local" and "lsh" layers only.

    Returns:
        What `load_state_dict` of `ReformerForCausalLM` takes; shapes are not checked.

    Raises:
        ValueError: an array is missing, or has no place in such a model.
    """
    if config.position_embedding_type != "axial" or not set(config.attn_layers) <= set(_PROJECTIONS):
        raise ValueError('trax\'s weights need axial positions, and "local" and "lsh" layers only')
    used = set()

    def read(name: str) -> Tensor:
        if name not in arrays:
            raise ValueError(f"array {name!r} is missing")
        used.add(name)
        return torch.from_numpy(np.array(arrays[name], dtype=np.float32))

    weights = {"reformer.embeddings.word_embeddings.weight": read("1")}
    for axis in range(len(config.axial_pos_shape)):
        weights[f"reformer.embeddings.position_embeddings.weights.{axis}"] = read(f"3.{axis}.0")
    for index, kind in enumerate(config.attn_layers):
        layer = f"reformer.encoder.layers.{index}"
        weights |= _attention(read, f"{layer}.attention", f"5.{4 * index}", _PROJECTIONS[kind])
        inner = f"5.{4 * index + 2}.0.1.2"
        in_chunks = f"{inner}.2.0.0" in arrays
        weights |= _feed_forward(read, f"{layer}.feed_forward", f"{inner}.2" if in_chunks else inner)
    weights |= _pair(read, "reformer.encoder.layer_norm", "7")
    weights["lm_head.decoder.weight"] = read("9.0").T.contiguous()
    weights["lm_head.bias"] = read("9.1")
    if unknown := sorted(set(arrays) - used):
        raise ValueError(
            f"{len(unknown)} array(s) have no place in a model with these attn_layers, "
            f"the first is {unknown[0]!r}"
        )
    return weights


def _attention(read: Read, layer: str, block: str, projections: tuple[str, ...]) -> dict[str, Tensor]:
    weights = _pair(read, f"{layer}.layer_norm", f"{block}.0.0")
    for index, name in enumerate(projections):  # [H, d, D]
        weight = read(f"{block}.1.{index}")
        weights[f"{layer}.self_attention.{name}.weight"] = weight.transpose(1, 2).flatten(0, 1)
    output = read(f"{block}.1.{len(projections)}")  # [H, D, d]
    weights[f"{layer}.output.dense.weight"] = output.flatten(0, 1).T.contiguous()
    return weights


def _feed_forward(read: Read, layer: str, inner: str) -> dict[str, Tensor]:
    weights = _pair(read, f"{layer}.layer_norm", f"{inner}.0")
    for name, place in (("dense", 1), ("output", 4)):
        weights[f"{layer}.{name}.dense.weight"] = read(f"{inner}.{place}.0").T.contiguous()
        weights[f"{layer}.{name}.dense.bias"] = read(f"{inner}.{place}.1")
    return weights


def _pair(read: Read, layer: str, place: str) -> dict[str, Tensor]:
    return {f"{layer}.weight": read(f"{place}.0"), f"{layer}.bias": read(f"{place}.1")}
