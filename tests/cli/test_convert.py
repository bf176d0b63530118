"""`reformer convert`: there and back, and what it refuses."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models import reformer as theirs

from reformer import ReformerConfig, ReformerForCausalLM, ReformerForMaskedLM, ReformerForTokenClassification
from reformer.data import Enwik8Tokenizer
from tests.cli.conftest import RunCommand
from tests.models.small_models import assert_identical, build, tokens
from tests.models.transformers_cases import THEIR_HEADS, outputs, pair, random_case
from tests.models.trax_layout import flat, nested_weights

CHUNKS: dict[str, Any] = {
    "lsh_window": "chunk",
    "as_transformers": True,
    "attn_layers": ["local", "lsh"],
    "position_embedding_type": "axial",
    "hash_seed": 5,
}


@pytest.mark.parametrize("seed", range(len(THEIR_HEADS)))
@torch.no_grad()
def test_theirs_to_ours_and_back(seed: int, run_command: RunCommand, tmp_path: Path) -> None:
    case = random_case(seed)
    their_model, our_model = pair(case, tmp_path / "theirs")
    assert run_command("convert", "theirs", "ours").code == 0
    model = type(our_model).from_pretrained("ours")
    assert model.config.model_type == ReformerConfig.model_type
    assert torch.equal(outputs(model, case), outputs(our_model, case))
    assert run_command("convert", "ours", "again").code == 0
    again = THEIR_HEADS[case.name].from_pretrained("again")
    assert type(again) is type(their_model)
    assert_identical(again.state_dict(), their_model.state_dict())
    before, after = their_model.config.to_dict(), again.config.to_dict()
    assert {name for name in before if before[name] != after[name]} <= {"_name_or_path"}
    assert torch.equal(outputs(again.eval(), case), outputs(their_model, case))
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("theirs", "ours", "again")]
    assert weights[0] == weights[1] == weights[2]


@pytest.mark.parametrize("positions", ["axial", "learned"])
@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
def test_ours_to_theirs_and_back(cls: Any, positions: str, run_command: RunCommand, tmp_path: Path) -> None:
    model = build(cls, **(CHUNKS | {"position_embedding_type": positions, "residual": "int32"}))
    model.save_pretrained("ours")
    (tmp_path / "ours" / "notes.txt").write_text("kept")
    assert run_command("convert", "ours", "theirs").out.count("\n") == 1
    assert json.loads((tmp_path / "theirs/config.json").read_text())["model_type"] == "reformer"
    assert run_command("convert", "theirs", "back").code == 0
    back = cls.from_pretrained("back")
    assert back.config.to_json_string() == model.config.to_json_string()
    assert (tmp_path / "back/model.safetensors").read_bytes() == (
        tmp_path / "ours/model.safetensors"
    ).read_bytes()
    assert (tmp_path / "back/notes.txt").read_text() == "kept"


def test_what_transformers_does_otherwise_is_said(run_command: RunCommand) -> None:
    model = build(ReformerForCausalLM, **(CHUNKS | {"as_transformers": False}))
    torch.nn.init.ones_(model.lm_head.bias)
    model.save_pretrained("ours")
    lines = run_command("convert", "ours", "theirs").out.splitlines()
    assert "as_transformers is False" in lines[1]
    assert "lm_head.bias is not zero" in lines[2]


@torch.no_grad()
def test_trax_to_ours_and_on_to_theirs(run_command: RunCommand) -> None:
    model = build(ReformerForCausalLM, **CHUNKS)
    model.save_pretrained("ours")
    np.savez("weights.npz", **flat(nested_weights(model)))
    outcome = run_command("convert", "weights.npz", "from_trax", "--config", "ours/config.json")
    assert outcome.out == "from_trax: ReformerForCausalLM, 2 layers of 32, from trax's weights\n"
    loaded = ReformerForCausalLM.from_pretrained("from_trax")
    assert_identical(loaded.state_dict(), model.state_dict())
    assert loaded.config.to_json_string() == model.config.to_json_string()
    assert run_command("convert", "from_trax", "theirs").code == 0
    their_model = theirs.ReformerModelWithLMHead.from_pretrained("theirs").eval()
    ids = tokens(1, 32)
    torch.testing.assert_close(their_model(ids).logits, model(ids).logits, rtol=0, atol=2e-2)


def _broken(folder: Path, what: str) -> None:
    file = folder / "model.safetensors"
    if what == "cut off":
        file.write_bytes(file.read_bytes()[:-8])
    elif what == "missing":
        file.unlink()
    elif what == "too few layers":
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"attn_layers": ["local"]}))
    elif what == "another model":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    elif what == "no JSON":
        (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("cut off", "ours/model.safetensors: expected .* bytes by its header"),
        ("missing", "ours: no weights here; expected model.safetensors"),
        ("too few layers", "ours/model.safetensors: .* has no place in ReformerForCausalLM"),
        (
            "another model",
            'ours/config.json: expected model_type "reformer" or "reformer-torch", got \'bert\'',
        ),
        ("no JSON", "ours/config.json: damaged: not JSON"),
    ],
)
def test_a_damaged_folder(what: str, message: str, run_command: RunCommand, tmp_path: Path) -> None:
    build(ReformerForCausalLM, **CHUNKS).save_pretrained("ours")
    _broken(tmp_path / "ours", what)
    _assert_refused(run_command("convert", "ours", "theirs"), message, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lsh_window": "bucket", "as_transformers": False}, "needs lsh_window \"chunk\", got 'bucket'"),
        ({"attn_layers": ["full", "lsh"], "as_transformers": False}, 'knows no "full" attention'),
        (
            {"position_embedding_type": "rotary"},
            'position_embedding_type "axial" or "learned", got \'rotary\'',
        ),
        ({"classifier_pooling": "mean"}, 'needs classifier_pooling "token"'),
    ],
    ids=["window", "full", "rotary", "pooling"],
)
def test_a_model_that_transformers_has_not(
    changes: dict[str, Any], message: str, run_command: RunCommand, tmp_path: Path
) -> None:
    build(ReformerForCausalLM, **(CHUNKS | changes)).save_pretrained("ours")
    _assert_refused(run_command("convert", "ours", "theirs"), f"ours/config.json: .*{message}", tmp_path)


def test_commands_work_on_what_was_converted(run_command: RunCommand, tmp_path: Path) -> None:
    """With the tokenizer of enwik8, as its checkpoint needs."""
    values = random_case(0).values | {"vocab_size": 258, "max_position_embeddings": 4096}
    values |= {"axial_pos_shape": [64, 64], "chunk_size_feed_forward": 0}
    theirs.ReformerModelWithLMHead(theirs.ReformerConfig(**values)).save_pretrained("theirs")
    Enwik8Tokenizer().save_pretrained("theirs")
    generate = ("--prompt", "The page ", "--max-new-tokens", "4")
    outcome = run_command("generate", "theirs", *generate)
    assert outcome.code == 2
    assert "got 'reformer'; `reformer convert` makes one of it" in outcome.err
    assert run_command("convert", "theirs", "ours").code == 0
    outcome = run_command("generate", "ours", *generate)
    assert (outcome.code, len(outcome.out) > 0) == (0, True)


def test_a_head_that_transformers_has_not(run_command: RunCommand, tmp_path: Path) -> None:
    build(ReformerForTokenClassification, **CHUNKS).save_pretrained("ours")
    message = "no counterpart of ReformerForTokenClassification"
    _assert_refused(run_command("convert", "ours", "theirs"), message, tmp_path)


def test_weights_of_trax_that_are_none(run_command: RunCommand, tmp_path: Path) -> None:
    model = build(ReformerForCausalLM, **CHUNKS)
    model.save_pretrained("ours")
    arrays = flat(nested_weights(model))

    def refused(message: str, *options: str) -> None:
        _assert_refused(run_command("convert", "weights.npz", "theirs", *options), message, tmp_path)

    config = ("--config", "ours/config.json")
    refused("weights.npz: No such file", *config)
    Path("weights.npz").write_bytes(b"not a zip")
    refused("weights.npz: not the weights of a trax model", *config)
    np.savez("weights.npz", **arrays | {"1": np.array([object()])})
    refused("weights.npz: not the weights of a trax model: Object arrays cannot be loaded", *config)
    np.savez("weights.npz", **arrays | {"1": arrays["1"][:-1]})
    refused(r"word_embeddings.weight is \[39, 32\], the configuration says \[40, 32\]", *config)
    np.savez("weights.npz", **arrays)
    refused("weights.npz: trax's weights come without a configuration; name one with --config")
    refused("missing", "--config", "nowhere.json")


def test_a_destination_that_exists(run_command: RunCommand, tmp_path: Path) -> None:
    build(ReformerForCausalLM, **CHUNKS).save_pretrained("ours")
    shutil.copytree("ours", "there")
    outcome = run_command("convert", "ours", "there")
    assert (outcome.code, outcome.err) == (
        2,
        "reformer: error: there: exists; expected the name of a new folder\n",
    )


def _assert_refused(outcome: Any, message: str, folder: Path) -> None:
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert re.search(message, outcome.err), outcome.err
    assert not [path for path in folder.iterdir() if path.name.lstrip(".").startswith("theirs")]
