"""Libraries that only some commands need: imported where used, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from reformer.errors import UserError

_PACKAGES = {"Bio": "biopython"}


def require(module: str, purpose: str) -> ModuleType:
    """Imports `module`, or says what to install.

    Args:
        module: a dotted name, of a library in the extra "genomics".
        purpose: what it is needed for, "to read VCF" for example.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        library = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != library:
            raise
        raise UserError(
            f"{_PACKAGES.get(library, library)} is needed {purpose}: pip install 'reformer-torch[genomics]'"
        ) from error
