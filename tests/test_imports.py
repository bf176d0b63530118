"""Imports between the packages go down one list only (DESIGN.md, section 1)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import reformer

SOURCE = Path(reformer.__file__).parent
ORDER = [
    ("cli",),
    ("bench",),
    ("serving",),
    ("genomics", "documents", "video"),
    ("generation",),
    ("training",),
    ("data",),
    ("models",),
    ("layers",),
    ("ops",),
]
"""A package may import itself and those in later lines, and no other of its own line."""
FOR_ALL = {"errors"}
LINE = {package: line for line, packages in enumerate(ORDER) for package in packages}


def imported_names(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a file imports, at its top or anywhere inside."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{origin}.{alias.name}"
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = (
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            )
            if function in ("import_module", "__import__"):
                yield node.lineno, str(node.args[0].value)


def violations(source: Path) -> list[str]:
    """Every import between packages that the list does not allow, as `file:line: what`."""
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        module = ".".join(("reformer", *(part for part in parts if part != "__init__")))
        importer = parts[0] if len(parts) > 1 else None  # None: a module beside the packages
        for line, name in imported_names(path, module):
            if name != "reformer" and not name.startswith("reformer."):
                continue
            imported = name.split(".")[1] if "." in name else ""
            if not _allowed(importer, parts[0], imported):
                found.append(f"{path.relative_to(source)}:{line}: {importer or parts[0]} imports {name}")
    return found


def _allowed(importer: str | None, module: str, imported: str) -> bool:
    if importer is None:
        return module != "errors"  # reformer/__init__.py and __main__.py stand above all packages
    if imported in FOR_ALL or imported == importer:
        return True
    # A name that is no package of ours comes from reformer/__init__.py, which stands above them all.
    return imported in LINE and LINE[imported] > LINE[importer]


def test_imports_go_down_the_list() -> None:
    assert violations(SOURCE) == []


def test_every_package_is_in_the_list() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages <= LINE.keys()
    assert packages >= {"ops", "layers", "models", "data", "training"}


def test_ops_import_neither_transformers_nor_random_numbers() -> None:
    for path in (SOURCE / "ops").glob("*.py"):
        for _, name in imported_names(path, f"reformer.ops.{path.stem}"):
            assert name.split(".")[0] not in ("transformers", "random", "numpy"), path


@pytest.mark.parametrize(
    ("file", "code", "name"),
    [
        ("models/a.py", "from reformer.training.run import train", "reformer.training.run.train"),
        ("models/a.py", "import reformer.training", "reformer.training"),
        ("models/a.py", "import os, reformer.data.tokens as t", "reformer.data.tokens"),
        ("models/a.py", "from .. import training", "reformer.training"),
        ("models/a.py", "from ..training import run", "reformer.training.run"),
        ("models/a.py", "from reformer import training", "reformer.training"),
        ("models/a.py", "from reformer import ReformerForCausalLM", "reformer.ReformerForCausalLM"),
        ("models/__init__.py", "from ..cli import main", "reformer.cli.main"),
        ("models/deep/a.py", "from ...cli import main", "reformer.cli.main"),
        ("models/a.py", "def f():\n    from reformer.cli import main", "reformer.cli.main"),
        ("models/a.py", "if TYPE_CHECKING:\n    import reformer.cli", "reformer.cli"),
        ("models/a.py", "importlib.import_module('reformer.cli')", "reformer.cli"),
        ("models/a.py", "import reformer", "reformer"),
        ("ops/a.py", "import reformer.layers", "reformer.layers"),
        ("genomics/a.py", "from reformer.video import frames", "reformer.video.frames"),
        ("documents/a.py", "from reformer import genomics", "reformer.genomics"),
        ("training/a.py", "from reformer.generation import sample", "reformer.generation.sample"),
        ("errors.py", "import reformer.ops", "reformer.ops"),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, code: str, name: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{code}\n")
    (found,) = violations(tmp_path)
    assert found.startswith(f"{file}:")
    assert found.endswith(f"imports {name}")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("cli/a.py", "from reformer.genomics import markov\nimport reformer.ops.hashing"),
        (
            "models/a.py",
            "from reformer.layers import x\nfrom reformer.errors import E\nfrom . import b",
        ),
        ("genomics/a.py", "from reformer.generation import x\nfrom reformer import ops"),
        ("__init__.py", "from reformer.models import modeling"),
        ("__main__.py", "from reformer.cli import main"),
        ("ops/a.py", "import torch\nimport reformers"),
    ],
)
def test_a_right_import_is_not(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{code}\n")
    assert violations(tmp_path) == []
