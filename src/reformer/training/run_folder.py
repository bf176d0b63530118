"""What is where in a run folder."""

from __future__ import annotations

import re
from pathlib import Path

from reformer.training.atomic import remove_folder

RECIPE_FILE = "recipe.yaml"
METRICS_FILE = "metrics.jsonl"
DATA_FILE = "data.json"
MACHINE_FILE = "machine.json"
START_FILE = "start.json"
REPORT_FILE = "report.html"
CHECKPOINTS = "checkpoints"
MODEL = "model"
TENSORBOARD = "tensorboard"

TRAINER_STATE_FILE = "trainer_state.json"


def checkpoint_path(folder: Path, step: int) -> Path:
    """The checkpoint of a step, in the folder of checkpoints."""
    return folder / f"checkpoint-{step}"


def checkpoint_steps(folder: Path) -> list[int]:
    """The steps that the folder of checkpoints holds whole ones of, ascending."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*"))
    return sorted(int(name[1]) for name in names if name)


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in the folder of checkpoints, if there is one."""
    steps = checkpoint_steps(folder)
    return checkpoint_path(folder, steps[-1]) if steps else None


def remove_old_checkpoints(folder: Path, keep: int, best_step: int | None) -> None:
    """Removes all checkpoints but the latest `keep` and that of `best_step`."""
    for step in checkpoint_steps(folder)[:-keep]:
        if step != best_step:
            remove_folder(checkpoint_path(folder, step))


def num_processes(checkpoint: Path) -> int:
    """How many processes wrote a checkpoint."""
    return len(list(checkpoint.glob("rng_state_*.json")))
