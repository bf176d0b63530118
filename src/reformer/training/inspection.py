"""What a folder or a file is, in a few lines, without loading a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.training.json_file import read_json
from reformer.training.metrics import read_metrics
from reformer.training.model_folder import CONFIG_FILE, WEIGHTS_FILE, read_model_config, read_model_header
from reformer.training.run_folder import (
    CHECKPOINTS,
    METRICS_FILE,
    MODEL,
    RECIPE_FILE,
    REPORT_FILE,
    TRAINER_STATE_FILE,
    checkpoint_steps,
)
from reformer.training.safetensors_header import TensorEntry, read_safetensors_header

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

Lines = list[tuple[str, str]]

_TOKEN_ARRAY_INDEX = "index.json"
_HIGHLIGHTS = (
    "hidden_size",
    "attn_layers",
    "num_attention_heads",
    "attention_head_size",
    "feed_forward_size",
    "num_hashes",
    "num_buckets",
    "lsh_window",
    "lsh_induction_length",
    "lsh_attn_chunk_length",
    "local_attn_chunk_length",
    "position_embedding_type",
    "residual",
    "vocab_size",
)
_SHOWN_RECORDS = 10


def inspect_path(path: Path) -> Lines:
    """Says what a folder or file is, as pairs of a name and a value.

    Raises:
        UserError: when there is nothing that we know, or what there is is not whole.
        OSError: when it cannot be read.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_file():
        return _inspect_file(path)
    kinds: tuple[tuple[str, Callable[[Path], Lines]], ...] = (
        (RECIPE_FILE, _inspect_run),
        (_TOKEN_ARRAY_INDEX, _inspect_token_array),
        (CONFIG_FILE, _inspect_model),
        (WEIGHTS_FILE, _inspect_model),
    )
    for file, inspect in kinds:
        if (path / file).exists():
            return inspect(path)
    raise UserError(f"{path}: neither a model, a checkpoint, a run nor a token array")


def _inspect_file(path: Path) -> Lines:
    if path.suffix == ".safetensors":
        return [("kind", "safetensors file, whole"), *_tensor_lines(read_safetensors_header(path))]
    from reformer.data.build import source_kind
    from reformer.data.sources import SourceFile
    from reformer.training.corpus import open_corpus

    array, kind = open_corpus([path]), source_kind(SourceFile.at(path))
    return [
        ("kind", f"{'text (UTF-8)' if kind == 'text' else kind} file, {_bytes(path.stat().st_size)}"),
        *_array_lines(array),
    ]


def _inspect_token_array(folder: Path) -> Lines:
    from reformer.data.tokens import TokenArray

    array = TokenArray.open(folder)
    sources = [("source", f"{source.path} ({_bytes(source.size)})") for source in array.sources]
    return [("kind", f"token array, {array.tokenizer_name}, whole"), *_array_lines(array), *sources]


def _array_lines(array: TokenArray) -> Lines:
    lines = [("tokens", f"{len(array):,}"), ("records", f"{len(array.records):,}")]
    lines += [(f"  {record.name}", f"{record.length:,}") for record in array.records[:_SHOWN_RECORDS]]
    if len(array.records) > _SHOWN_RECORDS:
        lines.append(("  ...", f"and {len(array.records) - _SHOWN_RECORDS:,} more"))
    if letters := array.letter_counts():
        lines.append(("letters", ", ".join(f"{letter} {count:,}" for letter, count in letters.items())))
    return lines


def _inspect_model(folder: Path) -> Lines:
    config = read_model_config(folder)
    header = read_model_header(folder)
    state_file = folder / TRAINER_STATE_FILE
    kind = "model, whole"
    if state_file.exists():
        kind = f"checkpoint of step {read_json(state_file).get('global_step', 0):,}, whole"
    highlights = [(name, _value(config[name])) for name in _HIGHLIGHTS if name in config]
    return [
        ("kind", kind),
        ("type", f"{config.get('model_type')}, {', '.join(config.get('architectures') or ['?'])}"),
        *_tensor_lines(header),
        *highlights,
    ]


def _tensor_lines(header: dict[str, TensorEntry]) -> Lines:
    types = sorted({entry.dtype for entry in header.values()})
    # Tables of integers, such as what a token is on the other strand, are not trained.
    num_parameters = sum(entry.num_elements for entry in header.values() if "F" in entry.dtype)
    return [("parameters", f"{num_parameters:,} in {len(header):,} tensors, {', '.join(types)}")]


def _inspect_run(folder: Path) -> Lines:
    from reformer.training.recipe import AnyRecipe, load_sections

    recipe = load_sections(folder / RECIPE_FILE, kind=AnyRecipe)
    steps = checkpoint_steps(folder / CHECKPOINTS)
    is_finished = (folder / MODEL / CONFIG_FILE).exists()
    lines = [
        ("kind", "run, finished" if is_finished else "run, not finished (go on with --resume)"),
        ("data", _value(recipe.data.train)),
        ("checkpoints", ", ".join(f"step {step:,}" for step in steps) or "none"),
        *_metric_lines(folder / METRICS_FILE, recipe.training.num_steps),
    ]
    if (folder / REPORT_FILE).exists():
        lines.append(("report", str(folder / REPORT_FILE)))
    if is_finished:
        lines += [
            (f"model {name}" if name == "kind" else name, value)
            for name, value in _inspect_model(folder / MODEL)
        ]
    return lines


def _metric_lines(file: Path, num_steps: int) -> Lines:
    """The last training step and the last evaluation of every set."""
    metrics = read_metrics(file) if file.exists() else []
    lines = []
    training = [line for line in metrics if "loss" in line]
    if training:
        last = training[-1]
        lines.append(("step", f"{last['step']:,} of {num_steps:,}, {_bits_of(last)}"))
    evaluations = {line["eval"]: line for line in metrics if "eval" in line}
    for name, line in evaluations.items():
        lines.append((f"  {name}", f"{_bits_of(line)} at step {line['step']:,}"))
    return lines


def _bits_of(line: dict[str, Any]) -> str:
    return f"{line['bits_per_token']:.4f} bits/{line.get('per', 'token')}"


def _value(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def _bytes(size: int) -> str:
    return f"{size:,} bytes"
