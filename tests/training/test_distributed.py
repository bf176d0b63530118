"""Training in two processes that share the steps."""

import socket
from pathlib import Path

from reformer.training.recipe import recipe_text
from reformer.training.run_folder import checkpoint_steps
from tests.training import children
from tests.training.conftest import MakeRecipe
from tests.training.test_run import metrics, run, weights

EXACT = (
    "model.hidden_dropout_prob=0",
    "model.local_attention_probs_dropout_prob=0",
    "model.attn_layers=[local]",
    "training.lengths=[{length: 32, steps: 3, batch_size: 2}, {length: 64, steps: 2}]",
    "training.save_every=2",
)


def train_in_two(recipe_path: Path, resume: bool = False) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = children.start_distributed(recipe_path, resume=resume, world_size=2, port=port)
    assert [children.finish(process) for process in processes] == [0, 0]


def test_two_processes_equal_one_that_accumulates(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    one = make_recipe(*EXACT, "training.gradient_accumulation=2", f"output_dir={tmp_path / 'one'}")
    run(one)
    two = make_recipe(*EXACT)
    path = tmp_path / "two.yaml"
    path.write_text(recipe_text(two))
    train_in_two(path)
    folder = Path(two.output_dir)
    for ours, theirs in zip(metrics(folder), metrics(one.output_dir), strict=True):
        for name in ("loss", "grad_norm", "bits_per_token"):
            if name in ours:
                assert abs(ours[name] - theirs[name]) < 2e-4 * theirs[name], (ours["step"], name)
        assert ours.get("tokens") == theirs.get("tokens")

    before, model = metrics(folder), weights(folder)
    steps = checkpoint_steps(folder / "checkpoints")
    assert steps == [4, 5]
    (folder / "checkpoints" / "checkpoint-5").rename(tmp_path / "gone")
    train_in_two(path, resume=True)
    assert metrics(folder) == before
    assert weights(folder) == model
