"""LoRA (Hu et al. 2021, arXiv 2106.09685): a trained model goes on in few weights.

A linear layer of attention or feed-forward keeps its weight W, which is frozen, and computes with W + B A.
Trained are A `[rank, in]` and B `[out, rank]`, of which B begins as zeros, so that a run begins with the
outputs of the trained model. (The paper's alpha is the rank here, so that its factor alpha / rank is 1.) The
layers are PEFT's; what is saved is a plain model of the sums.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reformer.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LAYERS = "reformer.encoder."
_NAME = "default"
_PLACE = ".base_layer."
_ADAPTERS = (".lora_A.", ".lora_B.")


def adapt(model: PreTrainedModel, rank: int, new: tuple[str, ...] = ()) -> None:
    """Freezes a model, in place, and gives its linear layers adapters, drawn from torch's global generator.

    Args:
        model: with the weights of a trained one.
        rank: of each adapter.
        new: how the names of weights begin that are trained whole, since the trained model had none.

    Raises:
        UserError: PEFT is not installed, or there is no layer to adapt.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise UserError("peft is needed for LoRA: pip install 'reformer-torch[lora]'") from error
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.startswith(_LAYERS)
    ]
    if not layers:
        raise UserError("the model has no linear layers of attention or feed-forward to adapt")
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), model, _NAME)
    for name, weight in model.named_parameters():
        if name.startswith(new):
            weight.requires_grad_()


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the plain model, by its names: W + B A where a layer is adapted."""
    state = {
        _plain(name): tensor
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in _ADAPTERS)
    }
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            with torch.no_grad():
                state[f"{name}.weight"] = state[f"{name}.weight"] + module.get_delta_weight(_NAME)
    return state


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """W, A and B of every adapted layer, which rounding does not let be told from the sum.

    Empty for a plain model.
    """
    parts = (*_ADAPTERS, f"{_PLACE}weight")
    return {name: one for name, one in model.state_dict().items() if any(part in name for part in parts)}


def load_states(model: nn.Module, merged: dict[str, Tensor], adapters: dict[str, Tensor]) -> None:
    """Puts back what `merged_state` and `adapter_state` gave.

    Raises:
        RuntimeError: they are of another model.
    """
    adapted = {_plain(name) for name in adapter_state(model)}
    names = {_plain(name): name for name in model.state_dict()}
    others = {names.get(name, name): tensor for name, tensor in merged.items() if name not in adapted}
    model.load_state_dict(others | adapters)


def _plain(name: str) -> str:
    """What a weight is called without adapters."""
    return name.replace(_PLACE, ".")
