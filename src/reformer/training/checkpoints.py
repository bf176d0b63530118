"""Checkpoints that hold everything a run needs to go on, without a pickle anywhere.

A checkpoint is a folder `checkpoint-STEP` with the model and its tokenizer as `from_pretrained` reads them,
`optimizer.safetensors` and `optimizer.json`, `scheduler.json`, the Trainer's own `trainer_state.json` and,
for every process, `rng_state_PROCESS.json`. With LoRA the adapters are merged into that model, and
`adapters.safetensors` has them apart. It is written under another name and renamed when it is whole.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch

from reformer.errors import UserError
from reformer.training.json_file import read_json
from reformer.training.lora import adapter_state, load_states
from reformer.training.run_folder import TRAINER_STATE_FILE
from reformer.training.safetensors_header import read_safetensors_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WEIGHTS_FILE = "model.safetensors"
_ADAPTERS_FILE = "adapters.safetensors"
_OPTIMIZER_TENSORS_FILE = "optimizer.safetensors"
_OPTIMIZER_FILE = "optimizer.json"
_SCHEDULER_FILE = "scheduler.json"


def save_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Writes the state of an optimizer: tensors as `PARAMETER.NAME` in safetensors, the rest in JSON.

    Raises:
        OSError, SafetensorError: when it cannot be written.
    """
    state = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    others: dict[str, Any] = {}
    for parameter, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{parameter}.{name}"] = value
            else:
                others[f"{parameter}.{name}"] = value
    content = {"param_groups": state["param_groups"], "state": others}
    (folder / _OPTIMIZER_FILE).write_text(json.dumps(content), encoding="utf-8")
    safetensors.torch.save_file(tensors, folder / _OPTIMIZER_TENSORS_FILE)


def load_optimizer(optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Restores what `save_optimizer` wrote.

    Raises:
        UserError: when a file is missing or damaged, or belongs to another model.
    """
    content = read_json(folder / _OPTIMIZER_FILE)
    tensors_file = folder / _OPTIMIZER_TENSORS_FILE
    _check_header(tensors_file)
    state: dict[int, dict[str, Any]] = {}
    for key, value in (safetensors.torch.load_file(tensors_file) | content["state"]).items():
        parameter, _, name = key.partition(".")
        state.setdefault(int(parameter), {})[name] = value
    for group in content["param_groups"]:
        if "betas" in group:
            group["betas"] = tuple(group["betas"])
    try:
        optimizer.load_state_dict({"state": state, "param_groups": content["param_groups"]})
    except ValueError as error:
        raise UserError(f"{folder / _OPTIMIZER_FILE}: {error}") from error


def save_scheduler(scheduler: torch.optim.lr_scheduler.LRScheduler, folder: Path) -> None:
    """Writes the state of a learning-rate schedule as JSON, which keeps every float exactly."""
    (folder / _SCHEDULER_FILE).write_text(json.dumps(scheduler.state_dict()), encoding="utf-8")


def load_scheduler(scheduler: torch.optim.lr_scheduler.LRScheduler, folder: Path) -> None:
    """Restores what `save_scheduler` wrote."""
    scheduler.load_state_dict(read_json(folder / _SCHEDULER_FILE))


def save_rng_state(folder: Path, process: int) -> None:
    """Writes the states of the global random generators of Python, NumPy, torch and the current GPU."""
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 - the generator that libraries draw from
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    states = {"python": random.getstate(), "numpy": numpy_state, "torch": _to_hex(torch.get_rng_state())}
    if torch.cuda.is_available():
        states["cuda"] = _to_hex(torch.cuda.get_rng_state())
    (folder / f"rng_state_{process}.json").write_text(json.dumps(states), encoding="utf-8")


def load_rng_state(folder: Path, process: int) -> None:
    """Restores what `save_rng_state` wrote.

    Raises:
        UserError: when the checkpoint has no state of this process (it was written by fewer processes).
    """
    states = read_json(folder / f"rng_state_{process}.json")
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    numpy_state = states["numpy"]
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)  # noqa: NPY002
    torch.set_rng_state(_from_hex(states["torch"]))
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(states["cuda"]))


def save_adapters(model: PreTrainedModel, folder: Path) -> None:
    """Writes the adapters of a model that has some, and what they adapt.

    Raises:
        OSError, SafetensorError: when they cannot be written.
    """
    if adapters := adapter_state(model):
        safetensors.torch.save_file(adapters, folder / _ADAPTERS_FILE)


def load_weights(model: PreTrainedModel, folder: Path) -> None:
    """Loads the weights of a checkpoint into a model, its adapters too: all of them and no others.

    Raises:
        UserError: when the file is missing or damaged, or belongs to another model.
    """
    file = folder / WEIGHTS_FILE
    _check_header(file)
    try:
        if adapter_state(model):
            _check_header(folder / _ADAPTERS_FILE)
            load_states(
                model,
                *(safetensors.torch.load_file(folder / name) for name in (WEIGHTS_FILE, _ADAPTERS_FILE)),
            )
        else:
            safetensors.torch.load_model(model, file)
    except RuntimeError as error:
        raise UserError(f"{file}: not of this model: {' '.join(str(error).split())}") from error


def check_trainer_state(folder: Path) -> None:
    """Raises UserError unless the Trainer's own state, which the Trainer reads itself, can be read."""
    read_json(folder / TRAINER_STATE_FILE)


def _check_header(file: Path) -> None:
    try:
        read_safetensors_header(file)
    except FileNotFoundError as error:
        raise UserError(f"{file}: missing, so the checkpoint is not whole") from error


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
