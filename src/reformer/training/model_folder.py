"""Loads a trained model from its folder; says in one line what is wrong with a folder that is not whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.training.json_file import read_json
from reformer.training.safetensors_header import TensorEntry, read_safetensors_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.models.auto import (
        ReformerForCausalLM,
        ReformerForMaskedLM,
        ReformerForTokenClassification,
    )

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_TOKENIZER_FILE = "tokenizer_config.json"


def find_model_folder(path: Path) -> Path:
    """The model's own folder: `path` itself, or `model` in it where `path` is a run folder.

    Raises:
        UserError: when there is no model.
    """
    if not path.exists():
        raise UserError(f"{path}: no such folder; expected a model, a checkpoint or a run folder")
    if not path.is_dir():
        raise UserError(f"{path}: a file; expected the folder of a model, a checkpoint or a run")
    for folder in (path, path / "model"):
        if (folder / CONFIG_FILE).exists():
            return folder
    if (path / WEIGHTS_FILE).exists():
        raise UserError(f"{path}: {CONFIG_FILE} is missing")
    raise UserError(f"{path}: no model here; expected {CONFIG_FILE} and {WEIGHTS_FILE}, or a finished run")


def read_model_config(folder: Path) -> dict[str, Any]:
    """The values of `config.json`.

    Raises:
        UserError: when it is damaged.
    """
    return read_json(folder / CONFIG_FILE)


def read_model_header(folder: Path) -> dict[str, TensorEntry]:
    """The tensors of `model.safetensors`, without loading them.

    Raises:
        UserError: when the file is missing or damaged.
    """
    file = folder / WEIGHTS_FILE
    if not file.exists():
        raise UserError(f"{file}: missing")
    return read_safetensors_header(file)


def load_model(path: Path, device: str = "auto") -> tuple[ReformerForCausalLM, PreTrainedTokenizerBase]:
    """Loads a causal model in eval mode, with its tokenizer.

    Args:
        path: a model, a checkpoint or a run folder.
        device: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        UserError: for a missing, damaged or foreign file, a weight that is not finite, a tokenizer that does
            not fit the model, a model of another kind, and a device that is not there.
    """
    return _load(path, device, ("ReformerForCausalLM",))


def load_language_model(
    path: Path, device: str = "auto"
) -> tuple[ReformerForCausalLM | ReformerForMaskedLM, PreTrainedTokenizerBase]:
    """Loads a causal or a masked model; see `load_model`. Which it is, `model.config.is_decoder` says."""
    return _load(path, device, ("ReformerForCausalLM", "ReformerForMaskedLM"))


def load_token_classifier(
    path: Path, device: str = "auto"
) -> tuple[ReformerForTokenClassification, PreTrainedTokenizerBase]:
    """Loads a model that labels tokens; see `load_model`."""
    return _load(path, device, ("ReformerForTokenClassification",))


def _load(path: Path, device: str, kinds: tuple[str, ...]) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model of one of some kinds, and its tokenizer."""
    folder = find_model_folder(path)
    torch_device = resolve_device(device)
    model = load_without_tokenizer(folder, kinds)
    tokenizer = load_tokenizer(folder)
    if len(tokenizer) != model.config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}"
        )
    return model.to(torch_device).eval(), tokenizer


def model_kind(folder: Path, kinds: tuple[str, ...]) -> str:
    """The class of a model; arguments are those of `load_without_tokenizer`.

    Raises:
        UserError: when it is none of them.
    """
    from reformer.models import auto

    config = read_model_config(folder)
    if config.get("model_type") != auto.ReformerConfig.model_type:
        hint = "; `reformer convert` makes one of it" if config.get("model_type") == "reformer" else ""
        raise UserError(
            f"{folder / CONFIG_FILE}: expected model_type {auto.ReformerConfig.model_type!r}, "
            f"got {config.get('model_type')!r}{hint}"
        )
    (kind,) = (config.get("architectures") or kinds)[:1]
    if kind not in kinds:
        raise UserError(f"{folder / CONFIG_FILE}: expected {' or '.join(kinds)}, got {kind}")
    return str(kind)


def load_without_tokenizer(folder: Path, kinds: tuple[str, ...]) -> Any:
    """Loads a model on the CPU.

    Args:
        folder: the model's own.
        kinds: classes in `reformer.models.auto`, of which it must be one; the first where the folder does not
            say what it is.

    Raises:
        UserError: for a missing, damaged or foreign file, a weight that is not finite, a model of another
            kind.
    """
    from transformers.utils import logging

    from reformer.models import auto

    kind = model_kind(folder, kinds)
    read_model_header(folder)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model, loading = getattr(auto, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{folder}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    for problem in ("missing_keys", "unexpected_keys"):
        if names := sorted(loading[problem]):
            which = problem.removesuffix("_keys")
            raise UserError(
                f"{folder / WEIGHTS_FILE}: {len(names)} {which} tensor(s), the first is {names[0]}"
            )
    _check_finite(model, folder)
    return model


def resolve_device(device: str) -> str:
    """Returns "cpu" or "cuda".

    Raises:
        UserError: for another name, or "cuda" where there is none.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r}: expected auto, cpu or cuda")
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise UserError("device 'cuda': torch finds no GPU on this machine")
    return "cuda" if has_gpu and device != "cpu" else "cpu"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer that is saved with a model, from its own folder.

    Raises:
        UserError: when it is missing, damaged or none of ours.
    """
    from transformers import ReformerTokenizer

    from reformer.data.tokenizers import (
        ByteTokenizer,
        Enwik8Tokenizer,
        NucleotideTokenizer,
        ProteinTokenizer,
    )

    name = read_json(folder / _TOKENIZER_FILE).get("tokenizer_class")
    known = (ByteTokenizer, NucleotideTokenizer, ProteinTokenizer, Enwik8Tokenizer, ReformerTokenizer)
    for tokenizer in known:
        if tokenizer.__name__ == name:
            return tokenizer.from_pretrained(folder, local_files_only=True)
    *others, last = (one.__name__ for one in known)
    names = ", ".join(others)
    raise UserError(f"{folder / _TOKENIZER_FILE}: expected tokenizer_class {names} or {last}, got {name!r}")


def _check_finite(model: PreTrainedModel, folder: Path) -> None:
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{folder / WEIGHTS_FILE}: {name} has values that are not finite (NaN or infinite)"
            )
