"""What made a file: the command, the model if any, and every option, as a file's own metadata or as JSON.

Without time stamps and the name of the file itself, so that the same work gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from reformer.data.sources import sha256_of
from reformer.training.atomic import atomic_file

PROVENANCE_FILE = "provenance.json"
"""Its name in a folder of outputs."""

Provenance = Mapping[str, Any]


def provenance(
    command: str, model: Path | None = None, device: str | None = None, **options: Any
) -> Provenance:
    """Says what makes an output.

    Args:
        command: "dna embed", for example.
        model: a model, checkpoint or run folder, if there is one; the digest of its weights is taken.
        device: "auto", "cpu" or "cuda", with a model; the one that is used is noted.
        options: all others, inputs included; of paths the absolute ones are noted.

    Raises:
        UserError: there is no model, or no such device.
    """
    made: dict[str, Any] = {"command": f"reformer {command}", "version": version("reformer-torch")}
    options = {name: _plain(value) for name, value in options.items()}
    if model is not None:
        from reformer.training.model_folder import WEIGHTS_FILE, find_model_folder

        folder = find_model_folder(model)
        made["model"] = {
            "folder": str(folder.absolute()),
            "weights_sha256": sha256_of(folder / WEIGHTS_FILE),
        }
    if device is not None:
        from reformer.training.model_folder import resolve_device

        options["device"] = resolve_device(device)
    return made | {"options": options}


def one_line(made: Provenance) -> str:
    """As JSON in a line, for metadata."""
    return json.dumps(made)


def write_provenance(path: Path, made: Provenance) -> None:
    """Writes it as JSON to read."""
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


@contextmanager
def provenance_beside(out: Path, made: Provenance) -> Iterator[None]:
    """Writes OUT.json once the block has written OUT, and not if it fails."""
    with atomic_file(Path(f"{out}.json")) as partial:
        write_provenance(partial, made)
        yield


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    return value
