"""What a model has read, in a file: a book read once can be continued many times.

A safetensors file holds the tensors of a `ReformerCache` as `LAYER.NAME`, and in its metadata (JSON under
"reformer_cache") the rest: the version of the format, what tells the model apart, and the last token read.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.training.atomic import partial_path
from reformer.training.safetensors_header import read_safetensors_header

if TYPE_CHECKING:
    from torch import Tensor

    from reformer.models.auto import ReformerForCausalLM
    from reformer.models.cache import ReformerCache

_KEY = "reformer_cache"
_VERSION = 1
_NOT_OF_THE_MODEL = ("transformers_version", "dtype", "architectures", "_name_or_path", "name_or_path")


def save_cache(path: Path, model: ReformerForCausalLM, cache: ReformerCache, last_ids: Tensor) -> None:
    """Write a cache under a temporary name, and rename it when it is on disk.

    Args:
        path: of the file.
        model: that read what is in the cache.
        cache: not empty.
        last_ids: int64 `[B]`, the token of each row that the model is to read next: what it predicts from
            is kept with what it has read.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{index}.{name}": x.contiguous()
        for index, layer in enumerate(cache.layers)
        for name, x in layer.state.items()
    }
    about = {
        "version": _VERSION,
        "config": _config_fingerprint(model),
        "weights": _weights_fingerprint(model),
        "columns": cache.columns,
        "lengths": cache.lengths,
        "last_ids": last_ids.tolist(),
        "numbers": [layer.numbers for layer in cache.layers],
    }
    partial = partial_path(path)
    try:
        save_file(tensors, partial, {_KEY: json.dumps(about)})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def load_cache(path: Path, model: ReformerForCausalLM) -> tuple[ReformerCache, Tensor]:
    """Read a cache for a model.

    Returns:
        The cache, and the next token of each row, int64 `[B]`.

    Raises:
        UserError: the file is damaged, is no cache, or is that of another model.
        OSError: the file cannot be read.
    """
    import torch
    from safetensors import safe_open

    from reformer.models.cache import ReformerCache

    read_safetensors_header(path)
    with safe_open(path, framework="pt") as file:
        about = _about(path, (file.metadata() or {}).get(_KEY))
        for what, found in (("config", _config_fingerprint(model)), ("weights", _weights_fingerprint(model))):
            if about[what] != found:
                raise UserError(f"{path}: the cache of another model: its {what} is not this model's")
        cache = ReformerCache(model.reformer.encoder)
        cache.columns, cache.lengths = about["columns"], about["lengths"]
        device = model.device
        for name in file.keys():  # noqa: SIM118 (no mapping)
            index, _, key = name.partition(".")
            # A copy that torch has aligned: how products are rounded depends on it.
            tensor = file.get_tensor(name).clone()
            cache.layers[int(index)].state[key] = tensor.to(device)  # type: ignore[arg-type]
    for layer, numbers in zip(cache.layers, about["numbers"], strict=True):
        layer.numbers = numbers
        layer.restored(cache.lengths)
    return cache, torch.tensor(about["last_ids"], device=device)  # type: ignore[arg-type]


def _about(path: Path, text: str | None) -> dict[str, Any]:
    if text is None:
        raise UserError(f"{path}: a safetensors file, but not a cache; expected one that --save-cache wrote")
    about = json.loads(text)
    if about["version"] != _VERSION:
        raise UserError(f"{path}: expected a cache of version {_VERSION}, got version {about['version']}")
    return dict(about)


def _config_fingerprint(model: ReformerForCausalLM) -> str:
    values = {key: value for key, value in model.config.to_dict().items() if key not in _NOT_OF_THE_MODEL}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _weights_fingerprint(model: ReformerForCausalLM) -> str:
    import torch

    digest = hashlib.sha256()
    for name, x in sorted(model.state_dict().items()):
        digest.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
