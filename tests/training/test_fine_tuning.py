"""Runs that begin with the weights of a trained language model."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from reformer.errors import UserError
from reformer.training.fine_tuning import take_weights
from reformer.training.recipe import Recipe, load_recipe
from reformer.training.run import LanguageModelling, train
from tests.training.conftest import write_recipe

EMBEDDINGS = "reformer.embeddings.word_embeddings.weight"


@pytest.fixture
def values(recipe_values: dict[str, Any], base_run: Path, tmp_path: Path) -> dict[str, Any]:
    """A recipe that starts from the base run; what the model is, its weights say."""
    del recipe_values["model"]
    recipe_values["training"] |= {"start_from": str(base_run), "lengths": [{"length": 32, "steps": 1}]}
    return recipe_values


def started(recipe: Recipe) -> tuple[Any, str]:
    """The model that a run begins with, and what is said of it."""
    task = LanguageModelling()
    model, tokenizer = task.build_model(recipe, task.open_data(recipe))
    return model, str(take_weights(recipe, task, model, tokenizer))


def test_the_same_task_begins_with_all_weights(
    values: dict[str, Any], base_run: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", values, "model.hidden_dropout_prob=0.2")
    assert recipe.model["hidden_size"] == 16
    assert recipe.model["hidden_dropout_prob"] == 0.2  # how it is trained is not what it is
    model, said = started(recipe)
    trained = load_file(base_run / "model" / "model.safetensors")
    assert all(torch.equal(weight, trained[name]) for name, weight in model.named_parameters())
    assert said == f"all weights of {base_run / 'model'}"


def test_another_task_takes_the_body(values: dict[str, Any], base_run: Path, tmp_path: Path) -> None:
    checkpoint = base_run / "checkpoints" / "checkpoint-12"
    overrides = ("training.objective=masked", f"training.start_from={checkpoint}")
    model, said = started(write_recipe(tmp_path / "r.yaml", values, *overrides))
    assert not model.config.is_decoder
    assert (model.config.lsh_num_chunks_after, model.config.local_num_chunks_after) == (1, 1)
    trained = load_file(checkpoint / "model.safetensors")
    for name, weight in model.named_parameters():
        assert torch.equal(weight, trained[name]) == name.startswith("reformer."), name
    assert said == (f"token embeddings and 2 layer(s) of {checkpoint}; new: lm_head; they read both ways now")


def test_other_tokens_have_new_embeddings(values: dict[str, Any], base_run: Path, tmp_path: Path) -> None:
    overrides = ("training.objective=masked", "data.lower_case=keep")
    model, said = started(write_recipe(tmp_path / "r.yaml", values, *overrides))
    trained = load_file(base_run / "model" / "model.safetensors")
    assert model.get_parameter(EMBEDDINGS).shape != trained[EMBEDDINGS].shape
    layers = [name for name in trained if name.startswith("reformer.encoder.")]
    assert all(torch.equal(model.get_parameter(name), trained[name]) for name in layers)
    assert "2 layer(s) of" in said
    assert "new: token embeddings and lm_head" in said


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "model.hidden_size=32",
            "model.hidden_size: 32, but training.start_from has .* a model with 16: expected the same",
        ),
        ("model.attn_layers=[local]", r"model.attn_layers: \['local'\], but .* with \['local', 'lsh'\]"),
        ("training.start_from=nowhere", "training.start_from: .*nowhere: no such folder; expected a model"),
        ("data.lower_case=keep", "its vocabulary, of 9 tokens, is not that of this recipe"),
    ],
)
def test_what_cannot_be_is_one_line(
    values: dict[str, Any], tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        started(write_recipe(tmp_path / "r.yaml", values, override))
    assert "\n" not in str(caught.value)


def test_sequences_of_another_sort_are_refused(values: dict[str, Any], tmp_path: Path) -> None:
    values["data"] = {"train": [str(tmp_path / "t.txt")], "format": "text"}
    (tmp_path / "t.txt").write_text("what is written " * 20)
    with pytest.raises(UserError, match=r"a model of nucleotide sequences, but the data are byte$"):
        started(write_recipe(tmp_path / "r.yaml", values))


def test_a_damaged_model_is_named(values: dict[str, Any], base_run: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(base_run / "model", tmp_path / "model"))
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"training\.start_from: .*model\.safetensors"):
        started(write_recipe(tmp_path / "r.yaml", values, f"training.start_from={model}"))


def test_a_resumed_run_does_not_read_them_again(
    values: dict[str, Any], base_run: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(base_run / "model", tmp_path / "model"))
    values["training"] |= {"start_from": str(source), "save_every": 1}
    del values["data"]["eval"]
    said = io.StringIO()
    recipe = write_recipe(tmp_path / "r.yaml", values)
    run = train(recipe, console=Console(file=said)).folder
    assert f"starts  all weights of {source}\n" in said.getvalue()
    start = json.loads((run / "start.json").read_text())
    assert (start["from"], start["taken"], start["new"]) == (str(source), ["all weights"], [])
    assert load_recipe(run / "recipe.yaml").training.start_from == str(source)
    shutil.rmtree(source)
    moved = run.rename(tmp_path / "moved")
    said = io.StringIO()
    for path in (tmp_path / "r.yaml", moved / "recipe.yaml"):
        train(load_recipe(path, [f"output_dir={moved}"]), resume=True, console=Console(file=said))
    assert "resumes" in said.getvalue()
    assert "starts" not in said.getvalue()
    assert json.loads((moved / "start.json").read_text()) == start
    other = load_recipe(tmp_path / "r.yaml", [f"output_dir={moved}", f"training.start_from={base_run}"])
    with pytest.raises(UserError, match="the run to resume began with"):
        train(other, resume=True, console=Console(file=said))
