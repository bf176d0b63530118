"""Whole training runs of tiny models."""

import io
import itertools
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from reformer.errors import UserError
from reformer.training.recipe import Recipe, load_recipe
from reformer.training.run import RunResult, train
from reformer.training.run_folder import checkpoint_steps
from tests.training.conftest import MakeRecipe, write_fasta

STEPS = 12


def run(recipe: Recipe, resume: bool = False) -> RunResult:
    """Trains without a word."""
    return train(recipe, resume=resume, console=Console(file=io.StringIO()))


def metrics(folder: Path | str) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without what depends on the clock."""
    lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    clock = {"tokens_per_second", "peak_memory_bytes", "seconds"}
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def weights(folder: Path | str) -> bytes:
    """The saved model."""
    return (Path(folder) / "model" / "model.safetensors").read_bytes()


def test_what_a_run_leaves(base_run: Path) -> None:
    folder = base_run
    assert sorted(path.name for path in folder.iterdir()) == [
        *("checkpoints", "data.json", "machine.json", "metrics.jsonl", "model"),
        *("recipe.yaml", "report.html", "tensorboard"),
    ]
    lines = metrics(folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert [line["length"] for line in steps] == [32] * 8 + [64] * 4
    assert [line["tokens"] for line in steps[::7]] == [64, 8 * 64]
    assert steps[0]["bits_per_token"] == pytest.approx(steps[0]["loss"] / math.log(2))
    assert [line["learning_rate"] for line in steps[:3]] == [0, 0.005, 0.01]
    evaluations = [line for line in lines if "eval" in line]
    assert [(line["step"], line["eval"]) for line in evaluations] == [(6, "held_out"), (12, "held_out")]
    assert [bound for bound, _ in evaluations[0]["bits_by_position"]] == [2, 4, 8, 16, 32, 64]


def test_nothing_is_a_pickle(base_run: Path) -> None:
    files = [path for path in base_run.rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files if "tfevents" not in path.name}
    assert kinds == {".json", ".jsonl", ".safetensors", ".yaml", ".html"}
    zip_or_pickle = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
    assert not [path for path in files if path.read_bytes()[:4].startswith(zip_or_pickle)]


def test_the_model_saved_is_the_best_one(base_run: Path, tmp_path: Path) -> None:
    from reformer.training.corpus import open_corpus
    from reformer.training.evaluation import evaluate_bits
    from reformer.training.model_folder import load_model

    model, tokenizer = load_model(base_run, "cpu")
    assert tokenizer("ACGT")["input_ids"] == [4, 5, 6, 7]
    best = min(line["bits_per_token"] for line in metrics(base_run) if "eval" in line)
    report = evaluate_bits(model, open_corpus([base_run.parent / "held_out.fa"]), 64)
    assert report.total.bits_per_token == pytest.approx(best, abs=1e-6)


def test_the_recipe_in_the_run_folder_reproduces_the_run(base_run: Path, tmp_path: Path) -> None:
    again = load_recipe(base_run / "recipe.yaml", [f"output_dir={tmp_path / 'again'}"])
    assert run(again) == RunResult(tmp_path / "again", STEPS, False, tmp_path / "again" / "report.html")
    assert metrics(tmp_path / "again") == metrics(base_run)
    assert weights(tmp_path / "again") == weights(base_run)


def test_another_seed_is_another_run(base_run: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("training.seed=1", "training.lengths=[{length: 32, steps: 1, batch_size: 2}]")
    run(recipe)
    assert metrics(recipe.output_dir)[0]["loss"] != metrics(base_run)[0]["loss"]


def test_accumulated_batches_are_one_batch(make_recipe: MakeRecipe) -> None:
    stages = [
        "training.lengths=[{length: 32, steps: 3, batch_size: 4}]",
        "training.lengths=[{length: 32, steps: 3}]",
    ]
    exact = [
        "model.hidden_dropout_prob=0",
        "model.local_attention_probs_dropout_prob=0",
        "model.attn_layers=[local]",
    ]
    folder = make_recipe().output_dir
    run(make_recipe(*exact, stages[0], f"output_dir={folder}-one"))
    run(make_recipe(*exact, stages[1], "training.gradient_accumulation=4", f"output_dir={folder}-four"))
    one, four = metrics(f"{folder}-one"), metrics(f"{folder}-four")
    for line, other in zip(one, four, strict=True):
        if "loss" in line:
            assert other["loss"] == pytest.approx(line["loss"], rel=1e-5)
            assert other["grad_norm"] == pytest.approx(line["grad_norm"], rel=1e-4)
            assert other["tokens"] == line["tokens"]


def test_bf16(base_run: Path, make_recipe: MakeRecipe) -> None:
    folder = make_recipe().output_dir
    run(make_recipe("training.bf16=true"))
    bf16, fp32 = (metrics(f)[0]["loss"] for f in (folder, base_run))
    assert bf16 != fp32
    assert bf16 == pytest.approx(fp32, rel=0.02)
    saved = load_file(Path(folder) / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_compiling_needs_a_compiler(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="on a CPU; no-such-compiler was not found"):
        run(make_recipe("training.compile=true", "model.hidden_dropout_prob=0"))


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_one_that_is_not(make_recipe: MakeRecipe) -> None:
    plain, compiled = (
        run(make_recipe(f"training.compile={way}", f"output_dir={way}", "model.hidden_dropout_prob=0"))
        for way in ("false", "true")
    )
    losses = [
        [line["loss"] for line in metrics(result.folder) if "loss" in line] for result in (plain, compiled)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_whole_text_without_evaluation(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("In the beginning was the Word. " * 20)
    recipe = make_recipe(
        f"data.train=[{tmp_path / 'book.txt'}]", "data.eval={}", "training.lengths=[{length: full, steps: 4}]"
    )
    run(recipe)
    assert [line["length"] for line in metrics(recipe.output_dir)] == [620] * 4


def test_text_has_no_other_strand(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text " * 100)
    with pytest.raises(UserError, match="reverse_complement: the data are byte tokens"):
        run(make_recipe(f"data.train=[{tmp_path / 'x.txt'}]", "data.eval={}", "data.reverse_complement=true"))


def test_without_tensorboard(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as where it is not installed
    recipe = make_recipe("training.lengths=[{length: 32, steps: 1}]", "data.eval={}")
    output = io.StringIO()
    train(recipe, console=Console(file=output))
    assert output.getvalue().count("no TensorBoard events: tensorboard is not installed\n") == 1
    assert not (Path(recipe.output_dir) / "tensorboard").exists()


def test_best_and_latest_checkpoints_are_kept(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("training.eval_every=2", "training.save_every=1", "training.keep_checkpoints=2")
    run(recipe)
    folder = Path(recipe.output_dir)
    bits = {line["step"]: line["bits_per_token"] for line in metrics(folder) if "eval" in line}
    best = min(bits, key=lambda step: bits[step])
    assert checkpoint_steps(folder / "checkpoints") == sorted({best, STEPS - 1, STEPS})
    kept = load_file(folder / "checkpoints" / f"checkpoint-{best}" / "model.safetensors")
    saved = load_file(folder / "model" / "model.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in saved)


def test_evaluation_and_checkpoints_change_no_step(base_run: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("data.eval={}", "training.save_every=100")
    run(recipe)
    assert [line for line in metrics(base_run) if "loss" in line] == metrics(recipe.output_dir)


def test_ctrl_c_then_resume_equals_the_uninterrupted_run(base_run: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()

    class PressCtrlC(io.StringIO):
        def write(self, text: str) -> int:
            if text.startswith("step 1/"):
                os.kill(os.getpid(), signal.SIGINT)
            return super().write(text)

    output = PressCtrlC()
    result = train(recipe, console=Console(file=output))
    assert (result.step, result.interrupted, result.report) == (1, True, None)
    assert f"reformer train {recipe.output_dir}/recipe.yaml --resume" in output.getvalue()
    assert checkpoint_steps(Path(recipe.output_dir) / "checkpoints") == [1]
    assert run(recipe, resume=True).step == STEPS
    assert metrics(recipe.output_dir) == metrics(base_run)
    assert weights(recipe.output_dir) == weights(base_run)

    run(recipe, resume=True)  # of a finished run: changes nothing
    assert metrics(recipe.output_dir) == metrics(base_run)
    assert weights(recipe.output_dir) == weights(base_run)


def test_more_frequent_checkpoints_after_a_resume(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("training.keep_checkpoints=9", "training.save_every=5")
    run(recipe)
    checkpoints = Path(recipe.output_dir) / "checkpoints"
    for step in (10, 12):
        os.rename(checkpoints / f"checkpoint-{step}", checkpoints / f"gone-{step}")
    run(make_recipe("training.keep_checkpoints=9", "training.save_every=2"), resume=True)
    assert checkpoint_steps(checkpoints) == [5, 6, 8, 10, 12]  # 6 was the first evaluation


def test_numbers_that_leave_their_range_stop_training(make_recipe: MakeRecipe) -> None:
    rate = "training.learning_rate=1e30"
    recipe = make_recipe(rate, "training.warmup_steps=5", "training.save_every=1")
    message = "step 3: the input of the layers is NaN .*; the last whole checkpoint is .*/checkpoint-2$"
    with pytest.raises(UserError, match=message):
        run(recipe)
    assert checkpoint_steps(Path(recipe.output_dir) / "checkpoints") == [1, 2]


def test_a_loss_that_is_not_a_number_stops_training(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from reformer.models.modeling import ReformerForCausalLM

    forward = ReformerForCausalLM.forward
    losses = itertools.count(1)

    def nan_at_the_third(self: ReformerForCausalLM, **inputs: Any) -> Any:
        output = forward(self, **inputs)
        output.loss = output.loss * (math.nan if next(losses) == 3 else 1)
        return output

    monkeypatch.setattr(ReformerForCausalLM, "forward", nan_at_the_third)
    recipe = make_recipe("training.save_every=1", "data.eval={}")
    with pytest.raises(
        UserError, match=r"step 3: loss is nan; the last whole checkpoint is .*/checkpoint-2$"
    ):
        run(recipe)
    assert len(metrics(recipe.output_dir)) == 2
    assert checkpoint_steps(Path(recipe.output_dir) / "checkpoints") == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.lengths.0.length=501", "501 tokens, but the longest record of the training data has 500"),
        ("model.num_buckets=7", "num_buckets"),
        ("data.train=[missing.fa]", "missing.fa: cannot be read"),
        ("training.compile=true", "branches with dropout cannot be compiled: hidden_dropout_prob must be 0"),
    ],
)
def test_what_is_wrong_is_found_before_anything_is_made(
    make_recipe: MakeRecipe, change: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(make_recipe(change))
    assert not Path(make_recipe().output_dir).exists()


def test_evaluation_data_of_another_kind(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(UserError, match="holds byte tokens, but the training data nucleotide tokens"):
        run(make_recipe(f"data.eval.text=[{tmp_path / 'x.txt'}]"))


def test_training_data_that_changed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("training.lengths=[{length: 32, steps: 1}]", "data.eval={}")
    run(recipe)
    write_fasta(tmp_path / "train.fa", 500, seed=9)
    with pytest.raises(UserError, match=r"train.fa: has changed since the run in .* began"):
        run(recipe, resume=True)


def test_a_checkpoint_that_was_damaged_is_named(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe("training.lengths.0.steps=2", "training.lengths.1.steps=1")
    run(recipe)
    checkpoint = Path(recipe.output_dir) / "checkpoints" / "checkpoint-3"
    for file in ("model.safetensors", "optimizer.safetensors", "optimizer.json", "trainer_state.json"):
        whole = (checkpoint / file).read_bytes()
        (checkpoint / file).write_bytes(whole[:-9])
        with pytest.raises(UserError, match=file):
            run(recipe, resume=True)
        (checkpoint / file).write_bytes(whole)
