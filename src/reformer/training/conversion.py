"""Converts model folders between transformers' Reformer format and ours, and trax's weights to ours."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.training.atomic import atomic_folder
from reformer.training.json_file import read_json
from reformer.training.model_folder import CONFIG_FILE, WEIGHTS_FILE, find_model_folder
from reformer.training.safetensors_header import TensorEntry, read_safetensors_header

if TYPE_CHECKING:
    from reformer.models.auto import ReformerConfig

_HEAD_BIAS = "lm_head.bias"
_FOREIGN_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"}


def convert_folder(source: Path, destination: Path) -> str:
    """Converts a folder of transformers' format to ours, or one of ours to transformers'.

    Tensors have the same names in both, so weights are copied byte by byte; what differs is `config.json`.
    Other files, such as the tokenizer's, are copied.

    Args:
        source: folder of a model, or of a run.
        destination: folder to make.

    Returns:
        What was done, and what transformers will do otherwise, as lines.

    Raises:
        UserError: the source is no such model, is not whole, or transformers has none like it.
    """
    from reformer.models.auto import ReformerConfig
    from reformer.models.conversion import to_transformers

    folder = find_model_folder(source)
    file = folder / CONFIG_FILE
    values = read_json(file)
    kind = values.get("model_type")
    try:
        config = ReformerConfig.from_dict(values)
        architecture = (config.architectures or ["ReformerForCausalLM"])[0]
        if kind == ReformerConfig.model_type:
            converted, to = to_transformers(values), "transformers' format"
        elif kind == "reformer":
            converted, to = config.to_dict(), "the format of this library"
        else:
            raise ValueError(f'expected model_type "reformer" or "{ReformerConfig.model_type}", got {kind!r}')
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: {' '.join(str(error).split())[:300]}") from error
    _check_tensors(folder, config, architecture)
    _check_is_new(destination)
    with atomic_folder(destination) as partial:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name != CONFIG_FILE and path.suffix not in _FOREIGN_SUFFIXES:
                shutil.copyfile(path, partial / path.name)
        _write_config(partial, converted)
    notes = _differences(folder, config) if kind == ReformerConfig.model_type else []
    return "\n".join([f"{destination}: {architecture}, {_size(config)}, in {to}", *notes])


def convert_trax(source: Path, config_file: Path, destination: Path) -> str:
    """Converts the weights of a trax language model to a folder of ours.

    Args:
        source: an `.npz` with the arrays that `reformer.models.trax` names.
        config_file: `config.json` that fits them, in transformers' format or ours.
        destination: folder to make.

    Returns:
        What was done, as one line.

    Raises:
        UserError: a file is missing or damaged, or weights and configuration do not fit.
    """
    import numpy as np
    from safetensors.torch import save_file

    from reformer.models.auto import ReformerConfig
    from reformer.models.trax import state_dict_from_trax

    try:
        config = ReformerConfig.from_dict(read_json(config_file))
    except (ValueError, TypeError) as error:
        raise UserError(f"{config_file}: {' '.join(str(error).split())[:300]}") from error
    try:
        with np.load(source, allow_pickle=False) as arrays:
            weights = state_dict_from_trax(dict(arrays), config)
    except (ValueError, zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise UserError(f"{source}: not the weights of a trax model: {error}") from error
    architecture = "ReformerForCausalLM" if config.is_decoder else "ReformerForMaskedLM"
    config.architectures = [architecture]
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    _check_shapes(source, shapes, config, architecture)
    _check_is_new(destination)
    with atomic_folder(destination) as partial:
        save_file(weights, partial / WEIGHTS_FILE, metadata={"format": "pt"})
        _write_config(partial, config.to_dict())
    return f"{destination}: {architecture}, {_size(config)}, from trax's weights"


def _differences(folder: Path, config: ReformerConfig) -> list[str]:
    """What transformers computes otherwise with the same weights, as lines."""
    from safetensors import safe_open

    notes = []
    if not config.as_transformers:
        notes.append(
            "note: as_transformers is False here; outputs differ where transformers' layout of chunks does"
        )
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if _HEAD_BIAS in tensors.keys() and tensors.get_tensor(_HEAD_BIAS).any():  # noqa: SIM118
                notes.append(f"note: {_HEAD_BIAS} is not zero, and transformers 5 does not add it")
    return notes


def _check_tensors(folder: Path, config: ReformerConfig, architecture: str) -> None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder}: no weights here; expected {WEIGHTS_FILE}")
    entries: dict[str, TensorEntry] = {}
    for file in files:
        entries |= read_safetensors_header(file)
    where = files[0] if len(files) == 1 else folder
    _check_shapes(where, {name: entry.shape for name, entry in entries.items()}, config, architecture)


def _check_shapes(
    where: Path, shapes: dict[str, tuple[int, ...]], config: ReformerConfig, architecture: str
) -> None:
    from reformer.models.conversion import expected_shapes
    from reformer.models.modeling import is_constant_of_old_checkpoint

    try:
        expected = expected_shapes(config, architecture)
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error
    for name, shape in expected.items():
        if name not in shapes:
            raise UserError(f"{where}: {name} is missing")
        if shapes[name] != shape:
            raise UserError(f"{where}: {name} is {list(shapes[name])}, the configuration says {list(shape)}")
    for name in shapes:
        if name not in expected and not is_constant_of_old_checkpoint(name):
            raise UserError(f"{where}: {name} has no place in {architecture}")


def _check_is_new(destination: Path) -> None:
    if destination.exists():
        raise UserError(f"{destination}: exists; expected the name of a new folder")


def _write_config(folder: Path, values: dict[str, Any]) -> None:
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (folder / CONFIG_FILE).write_text(text, encoding="utf-8")


def _size(config: ReformerConfig) -> str:
    return f"{len(config.attn_layers)} layers of {config.hidden_size}"
