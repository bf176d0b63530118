"""Small data, recipes and models for the tests of training."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from reformer.training.recipe import Recipe, load_recipe
from reformer.training.run import train

TINY_MODEL = {
    "hidden_size": 16,
    "attention_head_size": 8,
    "num_attention_heads": 2,
    "feed_forward_size": 16,
    "attn_layers": ["local", "lsh"],
    "local_attn_chunk_length": 16,
    "lsh_attn_chunk_length": 16,
    "position_embedding_type": "rotary",
}

MakeRecipe = Callable[..., Recipe]


def write_fasta(path: Path, *lengths: int, letters: str = "ACGT", seed: int = 0) -> Path:
    """A FASTA file with a record of random letters of each length."""
    generator = np.random.default_rng(seed)
    records = ["".join(generator.choice(list(letters), length)) for length in lengths]
    path.write_text("".join(f">record{i}\n{letters}\n" for i, letters in enumerate(records)))
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFORMER_CACHE", str(tmp_path / "cache"))


def base_values(folder: Path) -> dict[str, Any]:
    """A recipe of 12 steps, 8 at length 32 and 4 at length 64, with its data in `folder`."""
    return {
        "data": {
            "train": [str(write_fasta(folder / "train.fa", 500))],
            "eval": {"held_out": [str(write_fasta(folder / "held_out.fa", 200, seed=1))]},
        },
        "model": dict(TINY_MODEL),
        "training": {
            "lengths": [{"length": 32, "steps": 8, "batch_size": 2}, {"length": 64, "steps": 4}],
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "eval_every": 6,
            "save_every": 3,
            "device": "cpu",
        },
        "output_dir": str(folder / "run"),
    }


def write_recipe(path: Path, values: dict[str, Any], *overrides: str) -> Recipe:
    """Writes a recipe and loads it with overrides."""
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_recipe(path, overrides)


@pytest.fixture
def recipe_values(tmp_path: Path) -> dict[str, Any]:
    """The values of the base recipe."""
    return base_values(tmp_path)


@pytest.fixture
def make_recipe(tmp_path: Path, recipe_values: dict[str, Any]) -> MakeRecipe:
    """The base recipe with overrides."""
    return lambda *overrides: write_recipe(tmp_path / "recipe.yaml", recipe_values, *overrides)


@pytest.fixture(scope="session")
def base_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the base recipe, finished; not to be changed."""
    folder = tmp_path_factory.mktemp("base")
    values = base_values(folder)
    values["data"]["cache_dir"] = str(folder / "cache")
    recipe = write_recipe(folder / "recipe.yaml", values)
    return train(recipe, console=Console(file=io.StringIO())).folder
