"""`reformer.genomics` has the names of its parts, and imports a part when a name of it is used."""

import ast
import importlib
import subprocess
import sys

import pytest

import reformer.genomics


def test_all_names_are_there_and_typed() -> None:
    """What is imported for type checkers is what there is."""
    with open(reformer.genomics.__file__) as file:
        tree = ast.parse(file.read())
    typed = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(name for _, name in typed) == reformer.genomics.__all__
    for module, name in typed:
        assert getattr(reformer.genomics, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        reformer.genomics.nothing  # noqa: B018


def test_reading_files_does_not_wait_for_torch() -> None:
    code = "from reformer.genomics import Genome, Interval, read_bed, read_genes, translated, write_bigwig\n"
    code += "import sys; print({'torch', 'transformers', 'pysam', 'Bio', 'pyarrow'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
