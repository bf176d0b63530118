import json
import shutil
from pathlib import Path

import pytest
import torch

from reformer.errors import UserError
from reformer.training.model_folder import find_model_folder, load_model, read_model_header, resolve_device


@pytest.fixture
def folder(base_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(base_run, tmp_path / "run"))


def test_model_checkpoint_and_run_are_folders_of_models(folder: Path) -> None:
    checkpoint = folder / "checkpoints" / "checkpoint-12"
    assert find_model_folder(folder) == find_model_folder(folder / "model") == folder / "model"
    assert find_model_folder(checkpoint) == checkpoint
    loaded = [load_model(path, "cpu")[0] for path in (folder, checkpoint)]
    for ours, theirs in zip(loaded[0].parameters(), loaded[1].parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not loaded[0].training


def test_what_is_saved_is_what_was_trained(folder: Path) -> None:
    model, _ = load_model(folder, "cpu")
    state = model.state_dict()
    header = read_model_header(folder / "model")
    assert {name: entry.shape for name, entry in header.items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    assert model.config.vocab_size == 9
    assert model.config.is_decoder


def test_loading_draws_no_random_numbers(folder: Path) -> None:
    state = torch.get_rng_state()
    load_model(folder, "cpu")
    assert torch.equal(torch.get_rng_state(), state)


def test_unknown_tokenizer(folder: Path) -> None:
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(
        UserError, match=r"expected tokenizer_class ByteTokenizer, .* or ReformerTokenizer, got 'Bert"
    ):
        load_model(folder, "cpu")


def test_devices() -> None:
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="expected auto, cpu or cuda"):
        resolve_device("gpu")
