"""Training in a process of its own, which may be killed at any moment.

The processes are forked from a server that has imported torch and transformers but run nothing, so each
starts at once and none inherits threads.
"""

import json
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from reformer.errors import UserError
from reformer.training.recipe import load_recipe
from reformer.training.run import train

_FILE_EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree")

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    [
        __name__,
        "reformer.models.auto",
        "reformer.training.trainer",
        "reformer.training.report",
        "torch.utils.tensorboard",
    ]
)


def start(recipe: Path, *, resume: bool, kill_at_event: int | None = None) -> BaseProcess:
    """Starts training; the process kills itself at its n-th event in the run folder, if it gets there."""
    process = context.Process(target=_train, args=(recipe, resume, kill_at_event))
    process.start()
    return process


def finish(process: BaseProcess, timeout: float = 300) -> int:
    """Waits for a process and returns its exit code, negative for a signal."""
    process.join(timeout)
    assert process.exitcode is not None, "training did not end"
    return process.exitcode


def start_distributed(recipe: Path, *, resume: bool, world_size: int, port: int) -> list[BaseProcess]:
    """Starts training in several processes that share it, as torchrun would."""
    processes = []
    for rank in range(world_size):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
        process = context.Process(target=_train, args=(recipe, resume, None, environment))
        process.start()
        processes.append(process)
    return processes


def _train(
    recipe: Path, resume: bool, kill_at_event: int | None, environment: dict[str, Any] | None = None
) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {name: str(value) for name, value in (environment or {}).items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    folder = load_recipe(recipe).output_dir
    count = 0

    def count_events(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _FILE_EVENTS:
            return
        in_a_tree = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # relative to an open folder
        if in_a_tree or str(arguments[0]).startswith((folder, os.path.dirname(folder) + "/.run")):
            count += 1
            if count == kill_at_event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count_events)
    try:
        train(load_recipe(recipe), resume=resume)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    Path(folder + ".events").write_text(json.dumps(count))
