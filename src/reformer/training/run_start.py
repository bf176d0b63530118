"""What comes before a run: may it begin, or go on, in its folder; and the folder itself."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from reformer.errors import UserError
from reformer.training.atomic import atomic_folder, remove_leftovers, write_text_atomically
from reformer.training.fine_tuning import Taken
from reformer.training.recipe import Recipe, check_resumable, load_recipe, recipe_text
from reformer.training.run_data import RunData
from reformer.training.run_folder import (
    CHECKPOINTS,
    DATA_FILE,
    MACHINE_FILE,
    RECIPE_FILE,
    START_FILE,
    latest_checkpoint,
    num_processes,
)


def check_run_folder(folder: Path, recipe: Recipe, resume: bool) -> None:
    """Checks that a run can begin in a folder, or go on in it.

    Raises:
        UserError: when the folder cannot be made, has something in it already, or has no run to resume, or
            one of another recipe or another number of processes.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise recipe.error("output_dir", f"{existing} is a file; expected a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise recipe.error("output_dir", f"{existing} cannot be written")
    has_run = (folder / RECIPE_FILE).exists()
    if not resume:
        if folder.exists() and any(folder.iterdir()):
            hint = "go on with --resume or choose" if has_run else "choose"
            raise recipe.error("output_dir", f"{folder} is not empty; {hint} another output_dir")
        return
    if not has_run:
        raise UserError(f"{folder}: nothing to resume: no run has begun there ({RECIPE_FILE} is missing)")
    check_resumable(recipe, _begun(folder, type(recipe)))
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    latest = latest_checkpoint(folder / CHECKPOINTS)
    if latest and (began_with := num_processes(latest)) != processes:
        raise UserError(
            f"{folder}: began with {began_with} process(es) and cannot be resumed with {processes}"
        )


def _begun(folder: Path, kind: type[Recipe]) -> Recipe:
    """The recipe that a run began with, wherever its folder is now."""
    return load_recipe(folder / RECIPE_FILE, [f"output_dir={json.dumps(str(folder))}"], kind)


def write_run_files(folder: Path, recipe: Recipe, data: RunData, taken: Taken | None) -> None:
    """Makes the run folder in one step, or brings that of a resumed run into order.

    Args:
        folder: the run's.
        recipe: the recipe.
        data: the data.
        taken: what the model has of a trained one, where it begins with that.
    """
    start = {} if taken is None else {START_FILE: json.dumps(taken.to_json(), indent=1) + "\n"}
    texts = {
        **start,
        DATA_FILE: json.dumps(data.sources(), indent=1) + "\n",
        MACHINE_FILE: json.dumps(_machine(), indent=1) + "\n",
        RECIPE_FILE: recipe_text(recipe),  # last: a folder with a recipe is a run
    }
    if not folder.exists():
        with atomic_folder(folder) as partial:
            for name, text in texts.items():
                (partial / name).write_text(text, encoding="utf-8")
        return
    remove_leftovers(folder)
    remove_leftovers(folder / CHECKPOINTS)
    for name, text in texts.items():
        write_text_atomically(folder / name, text)


def _machine() -> dict[str, Any]:
    """What the run ran on."""
    from importlib.metadata import version

    import torch

    packages = {name: version(name) for name in ("reformer-torch", "torch", "transformers", "numpy")}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **packages,
    }
