"""The recipes that we show work."""

from pathlib import Path

import pytest

from reformer.training.recipe import load_recipe
from tests.training.conftest import write_fasta
from tests.training.test_run import metrics, run

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
SMALL = [
    "model.hidden_size=16",
    "model.attention_head_size=8",
    "model.feed_forward_size=16",
    "training.device=cpu",
    "training.eval_length=64",
]


def test_there_are_recipes() -> None:
    assert {"yeast.yaml", "book.yaml"} <= {path.name for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe_runs_when_made_small(path: Path, tmp_path: Path) -> None:
    if "fna" in path.read_text():
        data = write_fasta(tmp_path / "data", 200)
    else:
        data = tmp_path / "data"
        data.write_text("It was the best of times, it was the worst of times. " * 4)
    stages = load_recipe(path).training.lengths
    small = [f"training.lengths.{i}.steps=2" for i in range(len(stages))]
    small += [f"training.lengths.{i}.length=32" for i, stage in enumerate(stages) if stage.length != "full"]
    name = next(iter(load_recipe(path).data.eval))
    files = [f"data.train=[{data}]", f"data.eval.{name}=[{data}]"]
    recipe = load_recipe(path, [*SMALL, *small, *files, f"output_dir={tmp_path / 'run'}"])
    run(recipe)
    assert metrics(recipe.output_dir)[-1]["eval"] == name
