"""Reads a JSON file that one of our own programs wrote."""

import json
from pathlib import Path
from typing import Any

from reformer.errors import UserError


def read_json(file: Path) -> dict[str, Any]:
    """The mapping that a JSON file holds.

    Raises:
        UserError: when the file is missing, not JSON, or no mapping.
        OSError: when it cannot be read.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file}: missing") from error
    except ValueError as error:
        raise UserError(f"{file}: damaged: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise UserError(f"{file}: damaged: expected a JSON mapping")
    return values
