"""What made a file is in it or beside it, and holds what another can do it again with."""

import hashlib
import json
from pathlib import Path

import pytest

from reformer.errors import UserError
from reformer.genomics.provenance import one_line, provenance, provenance_beside


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    (tmp_path / "run" / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "run"


def test_the_model_and_all_options(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run)
    made = provenance(
        "dna embed", Path("."), "cpu", genome=Path("g.fa"), step=None, windows={"at": Path("x")}
    )
    assert json.loads(one_line(made)) == made
    assert made["command"] == "reformer dna embed"
    assert made["model"] == {
        "folder": str(run / "model"),
        "weights_sha256": hashlib.sha256(b"weights").hexdigest(),
    }
    assert made["options"] == {
        "genome": str(run / "g.fa"),
        "step": None,
        "windows": {"at": str(run / "x")},
        "device": "cpu",
    }


def test_it_is_beside_what_is_whole(run: Path, tmp_path: Path) -> None:
    made = provenance("dna generate", run, "cpu")
    out = tmp_path / "x.fa"
    with pytest.raises(UserError), provenance_beside(out, made):
        raise UserError("no")
    assert not list(tmp_path.glob("*x.fa*"))
    with provenance_beside(out, made):
        out.write_text(">a\nC\n")
    assert json.loads((tmp_path / "x.fa.json").read_text()) == made
