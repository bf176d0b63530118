"""Options that name files, as overrides of a recipe."""

import json
from collections.abc import Mapping
from pathlib import Path


def as_overrides(files: Mapping[str, list[Path] | None], out: Path | None) -> list[str]:
    """`key=value` for each key that files are given for, and for the run folder."""
    named = [f"{key}={json.dumps([str(file) for file in given])}" for key, given in files.items() if given]
    return named + ([f"output_dir={json.dumps(str(out))}"] if out is not None else [])
