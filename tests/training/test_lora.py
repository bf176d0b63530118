"""Runs that train low-rank adapters of a trained model."""

import io
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor, nn

from reformer.errors import UserError
from reformer.training.checkpoints import load_weights, save_adapters
from reformer.training.fine_tuning import take_weights
from reformer.training.lora import adapt, adapter_state, load_states, merged_state
from reformer.training.model_folder import load_language_model, load_model
from reformer.training.recipe import load_recipe
from reformer.training.run import LanguageModelling, train
from reformer.training.run_folder import checkpoint_steps
from tests.training.conftest import write_recipe
from tests.training.test_run import metrics, run, weights

RANK = 2
ADAPTED = (".query.", ".key.", ".query_key.", ".value.", ".dense.")


@pytest.fixture
def values(recipe_values: dict[str, Any], base_run: Path) -> dict[str, Any]:
    """A recipe that adapts the model of the base run."""
    del recipe_values["model"]
    recipe_values["training"] |= {"start_from": str(base_run), "lora_rank": RANK, "learning_rate": 0.05}
    return recipe_values


def adapted(base_run: Path) -> Any:
    """The base run's model with adapters that do something, in evaluation."""
    model, _ = load_model(base_run, "cpu")
    torch.manual_seed(1)
    adapt(model, RANK)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(weight, std=0.5)
    return model.eval()


def ids(length: int = 40) -> Tensor:
    return torch.randint(4, 8, (2, length), generator=torch.Generator().manual_seed(0))


def is_adapted(name: str) -> bool:
    return (
        name.startswith("reformer.encoder.layers.")
        and name.endswith("weight")
        and any(part in name for part in ADAPTED)
    )


@torch.no_grad()
def test_the_first_step_has_the_outputs_of_the_model_it_starts_from(base_run: Path) -> None:
    model, _ = load_model(base_run, "cpu")
    expected = model(ids()).logits
    adapt(model, RANK)
    assert torch.equal(model(ids()).logits, expected)


@torch.no_grad()
def test_the_merged_model_computes_the_same(base_run: Path, tmp_path: Path) -> None:
    model = adapted(base_run)
    model.save_pretrained(tmp_path, state_dict=merged_state(model))
    plain = type(model).from_pretrained(tmp_path).eval()
    assert not adapter_state(plain)
    torch.testing.assert_close(plain(ids()).logits, model(ids()).logits, rtol=0, atol=1e-4)
    before, _ = load_model(base_run, "cpu")
    assert (plain(ids()).logits - before(ids()).logits).abs().max() > 0.1


def test_what_is_saved_comes_back_bit_for_bit(base_run: Path) -> None:
    model = adapted(base_run)
    merged, adapters = merged_state(model), adapter_state(model)
    assert len(adapters) == 3 * 11
    other, _ = load_model(base_run, "cpu")
    adapt(other, RANK)
    for weight in other.parameters():
        nn.init.constant_(weight, 7)
    load_states(other, merged, adapters)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    del adapters[min(adapters)]
    with pytest.raises(RuntimeError):
        load_states(other, merged, adapters)


def test_a_run_changes_what_is_adapted_by_its_rank_and_nothing_else(
    values: dict[str, Any], base_run: Path, tmp_path: Path
) -> None:
    said = io.StringIO()
    folder = train(write_recipe(tmp_path / "r.yaml", values), console=Console(file=said)).folder
    before, after = (load_file(run / "model" / "model.safetensors") for run in (base_run, folder))
    assert before.keys() == after.keys()
    assert sum(map(is_adapted, before)) == 11
    for name, weight in before.items():
        change = torch.linalg.svdvals((after[name] - weight).double()) if is_adapted(name) else None
        if change is None:
            assert torch.equal(after[name], weight), name
        else:
            assert change[RANK - 1] > 1e-3, name
            assert change[RANK] < 1e-6, name
    # A has RANK rows of as many inputs, B of as many outputs: 16 each, 16 + 16 for each of 11 layers.
    trained, plain = 11 * RANK * 32, sum(weight.numel() for weight in before.values())
    share = 100 * trained / (plain + trained)
    assert f"trains  {share:.2g} % of the weights ({trained:,} of {plain + trained:,})\n" in said.getvalue()
    model, _ = load_model(folder, "cpu")
    assert not adapter_state(model)


def test_optimizer_state_is_of_what_is_trained(values: dict[str, Any], tmp_path: Path) -> None:
    folder = run(write_recipe(tmp_path / "r.yaml", values)).folder
    checkpoint = folder / "checkpoints" / "checkpoint-12"
    moments = load_file(checkpoint / "optimizer.safetensors")
    assert sum(tensor.numel() for name, tensor in moments.items() if name.endswith("exp_avg")) == 704
    assert len(load_file(checkpoint / "adapters.safetensors")) == 33


def test_ctrl_c_then_resume_equals_the_uninterrupted_run(
    values: dict[str, Any], base_run: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(base_run / "model", tmp_path / "source"))
    overrides = (f"training.start_from={source}", "training.objective=masked")
    whole = run(write_recipe(tmp_path / "r.yaml", values, *overrides, f"output_dir={tmp_path / 'whole'}"))
    recipe = write_recipe(tmp_path / "r.yaml", values, *overrides)

    class PressCtrlC(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("step 1/"):
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(text)

    assert train(recipe, console=Console(file=PressCtrlC())).interrupted
    assert checkpoint_steps(Path(recipe.output_dir) / "checkpoints") == [1]
    shutil.rmtree(source)
    said = io.StringIO()
    train(load_recipe(Path(recipe.output_dir) / "recipe.yaml"), resume=True, console=Console(file=said))
    assert "trains  " in said.getvalue()
    assert metrics(recipe.output_dir) == metrics(whole.folder)
    assert weights(recipe.output_dir) == weights(whole.folder)
    other = load_recipe(Path(recipe.output_dir) / "recipe.yaml", ["training.lora_rank=3"])
    with pytest.raises(UserError, match=r"training\.lora_rank: 3, but the run to resume began with 2"):
        run(other, resume=True)


def test_what_is_new_is_trained_whole(values: dict[str, Any], base_run: Path, tmp_path: Path) -> None:
    overrides = ("training.objective=masked", "data.lower_case=keep")
    recipe = write_recipe(tmp_path / "r.yaml", values, *overrides)
    folder = run(recipe).folder
    assert json.loads((folder / "start.json").read_text())["new"] == ["token embeddings", "lm_head"]
    began, task = (
        LanguageModelling().build_model(recipe, LanguageModelling().open_data(recipe)),
        LanguageModelling(),
    )
    model, tokenizer = began
    take_weights(recipe, task, model, tokenizer)
    ended, _ = load_language_model(folder, "cpu")
    changed = {
        name
        for name, weight in model.named_parameters()
        if not torch.equal(weight, ended.get_parameter(name))
    }
    new = {"reformer.embeddings.word_embeddings.weight", "lm_head.bias", "lm_head.decoder.weight"}
    assert changed == new | {name for name, _ in model.named_parameters() if is_adapted(name)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.lora_rank=-1"], "training.lora_rank: expected a number of at least 0, got -1"),
        (["training.lora_rank=1.5"], "training.lora_rank: expected an integer, got 1.5"),
        (["training.start_from=null"], r"training.lora_rank: 2: .* expected a model in training.start_from"),
    ],
)
def test_what_cannot_be_is_one_line(
    values: dict[str, Any], tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        write_recipe(tmp_path / "r.yaml", values, *overrides)
    assert "\n" not in str(caught.value)


def test_without_peft(values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    recipe = write_recipe(tmp_path / "r.yaml", values)
    with pytest.raises(
        UserError, match=r"lora_rank: peft is needed for LoRA: pip install 'reformer-torch\[lora\]'$"
    ):
        run(recipe)
    assert not Path(recipe.output_dir).exists()


def test_a_model_without_linear_layers(base_run: Path) -> None:
    model, _ = load_model(base_run, "cpu")
    model.reformer.encoder.layers = nn.ModuleList()
    with pytest.raises(UserError, match="no linear layers of attention or feed-forward to adapt"):
        adapt(model, RANK)


def test_a_checkpoint_without_its_adapters_is_named(base_run: Path, tmp_path: Path) -> None:
    model = adapted(base_run)
    model.save_pretrained(tmp_path, state_dict=merged_state(model))
    with pytest.raises(UserError, match=r"adapters\.safetensors: missing, so the checkpoint is not whole"):
        load_weights(model, tmp_path)
    save_adapters(model, tmp_path)
    load_weights(model, tmp_path)
    file = tmp_path / "adapters.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"adapters\.safetensors"):
        load_weights(model, tmp_path)


def test_adapters_of_compiled_branches(base_run: Path) -> None:
    """As `training.compile` has them; compiled code is the traced one here, without a compiler."""
    gradients = []
    for compiled in (False, True):
        model = adapted(base_run).train()
        for module in model.modules():
            if hasattr(module, "dropout") and isinstance(module.dropout, float):
                module.dropout = 0.0
        if compiled:
            model.reformer.encoder.compile_branches(backend="aot_eager")
        torch.manual_seed(2)
        model(input_ids=ids(), labels=ids()).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) == 22
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5)
