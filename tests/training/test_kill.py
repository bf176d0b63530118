"""A run that is killed goes on as if it had not been."""

import json
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from reformer.training.recipe import recipe_text
from reformer.training.run_folder import checkpoint_path, checkpoint_steps
from reformer.training.safetensors_header import read_safetensors_header
from tests.training import children
from tests.training.conftest import MakeRecipe
from tests.training.test_run import metrics, weights

KILLED = -9


class Killed:
    """A recipe, its uninterrupted run, and a run of it that is killed again and again."""

    def __init__(self, tmp_path: Path, make_recipe: MakeRecipe, *overrides: str) -> None:
        self.folder = tmp_path / "run"
        self.whole = tmp_path / "whole"
        self._recipe = tmp_path / "killed.yaml"
        self._recipe.write_text(recipe_text(make_recipe(*overrides)))
        uninterrupted = tmp_path / "uninterrupted.yaml"
        uninterrupted.write_text(recipe_text(make_recipe(*overrides, f"output_dir={self.whole}")))
        assert children.finish(children.start(uninterrupted, resume=False)) == 0
        self.num_events = json.loads((tmp_path / "whole.events").read_text())

    def go_on(self, *, kill_at_event: int | None = None, kill_after: tuple[int, float] | None = None) -> int:
        """Trains on, to the end or until killed; whatever is there afterwards is whole.

        Args:
            kill_at_event: see `children.start`.
            kill_after: how many lines of metrics to wait for, and then how many seconds.
        """
        resume = (self.folder / "recipe.yaml").exists()
        process = children.start(self._recipe, resume=resume, kill_at_event=kill_at_event)
        if kill_after is not None:
            num_lines, seconds = kill_after
            wait_for_lines(self.folder / "metrics.jsonl", num_lines, process)
            time.sleep(seconds)
            process.kill()
        code = children.finish(process)
        assert code in (0, KILLED)
        for step in checkpoint_steps(self.folder / "checkpoints"):
            checkpoint = checkpoint_path(self.folder / "checkpoints", step)
            for file in checkpoint.glob("*.safetensors"):
                assert read_safetensors_header(file)
            for file in checkpoint.glob("*.json"):
                assert json.loads(file.read_text())
            assert len(list(checkpoint.iterdir())) == 9
        return code

    def check_equal(self) -> None:
        """The run that was killed left what the uninterrupted one did, and nothing half-written."""
        assert metrics(self.folder) == metrics(self.whole)
        assert weights(self.folder) == weights(self.whole)
        names = [
            sorted(str(p.relative_to(f)) for p in f.rglob("*") if "tfevents" not in p.name)
            for f in (self.folder, self.whole)
        ]
        assert names[0] == names[1]


def wait_for_lines(file: Path, number: int, process: BaseProcess) -> None:
    """Waits until a process has appended a number of lines to a file."""
    seen = position = 0
    while seen < number and process.is_alive():
        time.sleep(0.002)
        if file.exists() and (size := file.stat().st_size) != position:
            if size > position:  # else a resumed run has dropped lines
                seen += file.read_bytes()[position:size].count(b"\n") if position else 0
            position = size


def test_killed_at_file_events(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    run = Killed(tmp_path, make_recipe)
    assert run.num_events > 100
    generator = random.Random(0)
    for event in (1, 4, generator.randrange(5, 40), generator.randrange(40, 80)):
        assert run.go_on(kill_at_event=event) == KILLED
    assert run.go_on() == 0
    run.check_equal()


@pytest.mark.slow
def test_killed_at_every_file_event(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    run = Killed(
        tmp_path,
        make_recipe,
        "training.lengths=[{length: 32, steps: 4}]",
        "training.eval_every=2",
        "training.save_every=1",
        "training.keep_checkpoints=1",
    )
    event = 1
    while run.go_on(kill_at_event=event) == KILLED:  # each goes on from where the one before was killed
        event += 1
    assert event > 60
    run.check_equal()


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    stages = "training.lengths=[{length: 32, steps: 400, batch_size: 2}, {length: full, steps: 20}]"
    run = Killed(tmp_path, make_recipe, stages, "training.save_every=7", "training.eval_every=20")
    generator = random.Random(1)
    for _ in range(10):
        moment = generator.randrange(60), generator.uniform(0, 0.05)
        assert run.go_on(kill_after=moment) == KILLED
    assert checkpoint_steps(run.folder / "checkpoints")[-1] > 50
    assert run.go_on() == 0
    run.check_equal()
