from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reformer.errors import UserError
from reformer.training.safetensors_header import TensorEntry, read_safetensors_header


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7, dtype=torch.bfloat16)}, path, {"format": "pt"})
    return path


def test_header(path: Path) -> None:
    assert read_safetensors_header(path) == {"a": TensorEntry("F32", (3, 5)), "b": TensorEntry("BF16", (7,))}


def test_every_truncation_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut off"):
            read_safetensors_header(path)


@pytest.mark.parametrize("content", [b"x" * 100, bytes(100), (4).to_bytes(8, "little") + b"[1] ", b"{}"])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a safetensors file"):
        read_safetensors_header(path)


def test_longer_than_its_header_says(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match="cut off or damaged"):
        read_safetensors_header(path)
