"""What happens when the disk does not take what a run writes."""

import resource
import signal
import sys
from pathlib import Path

import pytest

from reformer.training.recipe import load_recipe, recipe_text
from reformer.training.run_folder import checkpoint_steps
from tests.training import children
from tests.training.conftest import MakeRecipe


def train_with_small_files(recipe: Path, log: Path, largest: int) -> None:
    """Trains where no file may grow beyond a number of bytes, as on a disk that is full."""
    from reformer.cli import main

    sys.stderr = log.open("w", buffering=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    load_recipe(recipe)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    raise SystemExit(main(["train", str(recipe)]))


@pytest.mark.parametrize("largest", [12_000, 20_000])  # the weights have 14 KB, the optimizer's state 28 KB
def test_no_half_written_checkpoint(make_recipe: MakeRecipe, tmp_path: Path, largest: int) -> None:
    recipe = make_recipe()
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe_text(recipe))
    process = children.context.Process(target=train_with_small_files, args=(path, tmp_path / "log", largest))
    process.start()
    assert children.finish(process) == 2
    checkpoints = Path(recipe.output_dir) / "checkpoints"
    last = (tmp_path / "log").read_text().splitlines()[-1]
    assert last.startswith(f"reformer: error: {checkpoints}/checkpoint-3: cannot be written: ")
    assert "File too large" in last
    assert last.endswith("there is no checkpoint yet")
    assert checkpoint_steps(checkpoints) == []
    assert not list(checkpoints.iterdir())
