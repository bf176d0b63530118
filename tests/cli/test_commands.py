"""The commands on a small run, from the outside."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import yaml

from tests.cli.conftest import RunCommand, recipe_values
from tests.training.conftest import write_fasta


def test_train_says_what_and_where(run_command: RunCommand, tmp_path: Path) -> None:
    values = recipe_values(tmp_path, write_fasta(tmp_path / "train.fa", 300))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    outcome = run_command("train", "recipe.yaml", "training.seed=5", "output_dir=here")
    assert (outcome.code, outcome.out) == (0, "")
    lines = outcome.err.splitlines()
    assert lines[0] == f"run     {tmp_path / 'here'}"
    assert lines[1] == "data    300 nucleotide tokens in 1 record(s)"
    assert lines[2].startswith("model   ")
    assert lines[2].endswith(" parameters on cpu")
    assert lines[-2:] == [
        f"model   {tmp_path}/here/model (the last step)",
        f"report  {tmp_path}/here/report.html",
    ]
    assert yaml.safe_load((tmp_path / "here" / "recipe.yaml").read_text())["training"]["seed"] == 5


def test_ctrl_c_exits_with_130_and_resume_finishes(tmp_path: Path) -> None:
    values = recipe_values(tmp_path, write_fasta(tmp_path / "train.fa", 300))
    values["training"]["lengths"][0]["steps"] = 100_000
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    command = [sys.executable, "-m", "reformer", "train", "recipe.yaml"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("step "))
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert f"  reformer train {tmp_path}/run/recipe.yaml --resume\n" in errors
    assert "Traceback" not in errors
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert checkpoint.name == f"checkpoint-{last['step']}"


def test_evaluate_table(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    held_out = write_fasta(tmp_path / "x.fa", 100, 50, seed=2, letters="ACGTN")
    outcome = run_command("evaluate", finished_run, held_out, "--length", "40")
    assert (outcome.code, outcome.err) == (0, "")
    assert "32 to 39" not in outcome.out
    assert " 16 to 31 " in outcome.out
    assert " bits/base " in outcome.out
    assert " all " in outcome.out


def test_evaluate_json(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    held_out = write_fasta(tmp_path / "x.fa", 100, 50, seed=2, letters="ACGTN")
    outcome = run_command("evaluate", finished_run / "model", held_out, "--json")
    report = json.loads(outcome.out)
    assert report["num_tokens"] == 148
    assert sum(row["num_tokens"] for row in report["by_position"]) == 148
    assert [(row["record"], row["num_tokens"]) for row in report["by_record"]] == [
        ("record0", 99),
        ("record1", 49),
    ]
    assert 1.5 < report["bits_per_base"] < 4
    assert report["num_bases"] < 148


def test_evaluate_behind_a_context(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    held_out = write_fasta(tmp_path / "x.fa", 100, 50, seed=2, letters="ACGTN")
    write_fasta(tmp_path / "y.fa", 80, seed=3)
    (tmp_path / "z.fa").write_text(">other\nACGT\n")
    options = ((), ("--context", "y.fa"), ("--context", "y.fa", "--context", "z.fa"))
    outcomes = [run_command("evaluate", finished_run, held_out, "--json", *one) for one in options]
    assert [(outcome.code, outcome.err) for outcome in outcomes] == [(0, "")] * 3
    reports = [json.loads(outcome.out) for outcome in outcomes]
    for report in reports:
        assert [row["num_tokens"] for row in report["by_record"]] == [99, 49]
        assert [row["below"] for row in report["by_position"]] == [2, 4, 8, 16, 32, 64, 128]
    assert len({report["bits_per_base"] for report in reports}) == 3


def test_evaluate_more_tokens_than_positions(run_command: RunCommand, tmp_path: Path) -> None:
    values = recipe_values(tmp_path, write_fasta(tmp_path / "train.fa", 100))
    values["model"] |= {"position_embedding_type": "learned", "max_position_embeddings": 64}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert run_command("train", "recipe.yaml").code == 0
    write_fasta(tmp_path / "x.fa", 60)
    assert run_command("evaluate", "run", "x.fa").code == 0
    outcome = run_command("evaluate", "run", "x.fa", "--context", "train.fa")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines() == [
        "reformer: error: record 'record0': 60 tokens behind 100 of context: the model reads at most 64"
    ]


def test_evaluate_text(run_command: RunCommand, finished_text_run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("In the beginning")
    outcome = run_command("evaluate", finished_text_run, "x.txt")
    assert outcome.code == 0
    assert "bits/token" in outcome.out
    assert "bits/base" not in outcome.out


def test_generate_is_determined_by_the_seed(run_command: RunCommand, finished_run: Path) -> None:
    def generate(*options: str) -> str:
        outcome = run_command(
            "generate", finished_run, "--prompt", "ACGT", "--max-new-tokens", "30", *options
        )
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    first = generate()
    assert len(first) == 31
    assert set(first.strip()) <= set("ACGTN")
    assert generate() == first
    assert generate("--seed", "1") != first
    assert generate("--top-k", "1") == generate("--top-k", "1", "--seed", "9")


def test_generate_into_a_file(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "prompt.fa").write_text(">x y\nACG\nTAC\n")
    outcome = run_command(
        *("generate", finished_run, "--prompt-file", "prompt.fa", "--max-new-tokens", "5", "--out", "new.txt")
    )
    assert (outcome.code, outcome.out) == (0, "")
    assert len((tmp_path / "new.txt").read_text()) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.txt", "prompt.fa"]


def test_generate_from_a_cache(run_command: RunCommand, finished_text_run: Path, tmp_path: Path) -> None:
    def generate(*options: str) -> str:
        outcome = run_command("generate", finished_text_run, "--max-new-tokens", "20", *options)
        assert outcome.code == 0
        return outcome.out

    first = generate("--prompt", "And the", "--save-cache", "read")
    assert generate("--cache", "read") == first
    assert generate("--cache", "read", "--prompt", " earth") == generate("--prompt", "And the earth")
    outcome = run_command("generate", finished_text_run, "--cache", "none")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "none: expected a file that --save-cache wrote" in outcome.err
    assert [path.name for path in tmp_path.iterdir() if "read" in path.name] == ["read"]


def test_generate_text(run_command: RunCommand, finished_text_run: Path) -> None:
    outcome = run_command("generate", finished_text_run, "--prompt", "And the", "--max-new-tokens", "8")
    assert outcome.code == 0
    assert len(outcome.out) > 1


def info(run_command: RunCommand, path: Path) -> dict[str, str]:
    outcome = run_command("info", path)
    assert (outcome.code, outcome.err) == (0, "")
    rows = [line.strip().split("  ", 1) for line in outcome.out.splitlines()]
    return {name: value.strip() for name, value in rows}


def test_info_on_a_run(run_command: RunCommand, finished_run: Path) -> None:
    lines = info(run_command, finished_run)
    assert lines["kind"] == "run, finished"
    assert lines["checkpoints"] == "step 4"
    assert lines["step"].startswith("4 of 4, ")
    assert lines["attn_layers"] == "local, lsh"


def test_info_on_a_model_and_a_checkpoint(run_command: RunCommand, finished_run: Path) -> None:
    model = info(run_command, finished_run / "model")
    checkpoint = info(run_command, finished_run / "checkpoints" / "checkpoint-4")
    assert (model["kind"], checkpoint["kind"]) == ("model, whole", "checkpoint of step 4, whole")
    assert model["parameters"] == checkpoint["parameters"]
    assert model["type"] == "reformer-torch, ReformerForCausalLM"
    assert model["vocab_size"] == "9"
    weights = info(run_command, finished_run / "model" / "model.safetensors")
    assert weights["kind"] == "safetensors file, whole"


def test_info_on_data(run_command: RunCommand, tmp_path: Path) -> None:
    write_fasta(tmp_path / "x.fa", *range(5, 20))
    fasta = info(run_command, tmp_path / "x.fa")
    assert fasta["kind"].startswith("FASTA file, ")
    assert (fasta["tokens"], fasta["records"], fasta["record0"], fasta["..."]) == (
        "180",
        "15",
        "5",
        "and 5 more",
    )
    assert fasta["letters"].startswith("A ")
    (array,) = (tmp_path / "cache").iterdir()
    assert info(run_command, array)["kind"] == "token array, nucleotide, whole"
    (tmp_path / "x.txt").write_text("text")
    assert info(run_command, tmp_path / "x.txt")["kind"] == "text (UTF-8) file, 4 bytes"


def test_ctrl_c_before_training(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")  # reading it waits for a writer
    command = [sys.executable, "-m", "reformer", "train", "recipe.yaml"]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # jobs in the background ignore it
    ) as process:
        with (tmp_path / "recipe.yaml").open("w"):
            process.send_signal(signal.SIGINT)
            process.wait(60)
        assert process.stderr is not None
        errors = process.stderr.read()
    assert (process.returncode, errors) == (130, "")
