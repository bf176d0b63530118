"""What a user can get wrong: each mistake is one line that says what and where, and leaves nothing behind."""

import gzip
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from tests.cli.conftest import RunCommand, recipe_values
from tests.training.conftest import write_fasta

SEQUENCE = b"ACGTTGCA" * 40
TRAIN = ("train", "recipe.yaml")
GENERATE = ("generate", "model", "--prompt", "ACGT")


class Case(NamedTuple):
    """A mistake: the files that are not as they should be, the command, what the message says."""

    name: str
    files: dict[str, bytes]
    command: tuple[str, ...]
    message: str


def fasta(name: str, content: bytes, message: str) -> Case:
    """A FASTA file to train on that is not one."""
    return Case(name, {"bad.fa": content}, (*TRAIN, "data.train=[bad.fa]"), message)


def recipe(name: str, content: bytes, message: str) -> Case:
    """A recipe that is not one."""
    return Case(name, {"bad.yaml": content}, ("train", "bad.yaml"), message)


def override(text: str, message: str) -> Case:
    """A value in a recipe that is not what it should be."""
    return Case(text, {}, (*TRAIN, text), message)


def generate(*options: str, message: str) -> Case:
    """Options of `generate` that are out of range."""
    return Case(" ".join(options), {}, (*GENERATE, *options), message)


DATA = [
    fasta("empty FASTA", b"", "bad.fa: the file is empty"),
    fasta(
        "truncated gzip",
        gzip.compress(b">x\n" + os.urandom(3000).hex().encode())[:900],
        "bad.fa: truncated gzip",
    ),
    fasta("gzip with damage", gzip.compress(b">x\n" + SEQUENCE)[:-8] + bytes(8), "bad.fa: damaged gzip"),
    fasta(
        "protein letters",
        b">x\nACGT\nMKVLEF\n",
        "bad.fa, line 3, column 4, record 'x': 'L' is not a nucleotide",
    ),
    fasta("record with no sequence", b">x\n>y\nACGT\n", "bad.fa, line 1: record 'x' has no sequence"),
    fasta("record without a name", b">\nACGT\n", "bad.fa, line 1: a record without a name"),
    fasta("two records of one name", b">x\nAC\n>x\nGT\n", "bad.fa, line 3: duplicate record name 'x'"),
    fasta(
        "text before the first record", b"ACGT\n>x\nACGT\n", "bad.fa: named like FASTA, but begins with 'A'"
    ),
    fasta("gaps", b">x\nAC--GT\n", "bad.fa, line 2, column 3, record 'x': '-' is not a nucleotide"),
    Case("binary text", {"x.txt": b"ab\0c"}, (*TRAIN, "data.train=[x.txt]"), "x.txt, byte 2: a NUL byte"),
    Case("Latin-1 text", {"x.txt": b"caf\xe9 x"}, (*TRAIN, "data.train=[x.txt]"), "x.txt, byte 3: not UTF-8"),
    Case(
        "FASTA and text", {"x.txt": b"text"}, (*TRAIN, "data.train=[train.fa, x.txt]"), "x.txt: is text, but"
    ),
    override("data.train=[.]", "is a folder, expected a file"),
    override("data.train=[missing.fa]", "missing.fa: cannot be read: No such file or directory"),
    override("data.eval.other=[missing.fa]", "missing.fa: cannot be read: No such file or directory"),
    override("data.cache_dir=train.fa", "train.fa: cannot be written"),
]

RECIPES = [
    Case("missing recipe", {}, ("train", "missing.yaml"), "missing.yaml: No such file or directory"),
    Case("folder for a recipe", {}, ("train", "."), ".: Is a directory"),
    recipe("recipe that is not YAML", b"data: [\n", "bad.yaml, line 2: not YAML"),
    recipe("recipe that is no text", b"data: \xff", "bad.yaml: not YAML"),
    recipe("recipe that is no mapping", b"- data\n", "bad.yaml: expected a mapping with data, model"),
    recipe("empty recipe", b"", "bad.yaml: expected a mapping"),
    recipe("key given twice", b"data: {}\ndata: {}\n", "bad.yaml, line 2: data is given twice"),
    recipe("missing section", b"data: {train: [a.fa]}\n", "bad.yaml, line 1: missing key training"),
    Case(
        "override without a value",
        {},
        (*TRAIN, "training.seed"),
        "override 'training.seed': expected key=value",
    ),
    override(
        "training.learning_rat=1", "unknown key training.learning_rat; did you mean training.learning_rate?"
    ),
    override("model.hiden_size=8", "unknown key model.hiden_size; did you mean model.hidden_size?"),
    override("training.learning_rate=fast", "training.learning_rate: expected a number, got 'fast'"),
    override("training.learning_rate=.nan", "training.learning_rate: expected a finite number"),
    override("training.learning_rate=-1", "training.learning_rate: expected a number above 0, got -1"),
    override("training.lengths.0.length=-5", "training.lengths.0.length: expected a number of at least 2"),
    override(
        "training.lengths.0.length=301", "301 tokens, but the longest record of the training data has 300"
    ),
    override(
        "training.lengths.0.steps=0", "training.lengths.0.steps: expected a number of at least 1, got 0"
    ),
    override("training.lengths=[]", "training.lengths: expected at least 1 item(s)"),
    override("training.bf16=maybe", "training.bf16: expected true or false, got 'maybe'"),
    override("training.device=tpu", "training.device: expected 'auto', 'cpu' or 'cuda', got 'tpu'"),
    override("model.attn_layers=[local, lhs]", "override 'model.attn_layers=[local, lhs]': model: "),
    override("model.attn_layers=[]", "attn_layers must name at least one layer"),
    override("model.num_buckets=7", "num_buckets must be an even number"),
    override("model.num_attention_heads=0", "num_attention_heads must be at least 1, got 0"),
    override("model.attention_head_size=7", "rotary positions need an even attention_head_size, got 7"),
    override("model.position_embedding_type=axial", "must add up to hidden_size=16"),
    override("model.lsh_window=bukket", "lsh_window must be one of bucket, chunk, got 'bukket'"),
    override("model.hidden_dropout_prob=2", "hidden_dropout_prob must be in [0, 1), got 2"),
    override("output_dir=train.fa", "work/train.fa is a file; expected a folder"),
    override("output_dir=full", "full is not empty; choose another output_dir"),
    override("output_dir=train.fa/run", "work/train.fa is a file; expected a folder"),
    Case("nothing to resume", {}, (*TRAIN, "--resume"), "run: nothing to resume: no run has begun there"),
]

COMMANDS = [
    Case("unknown command", {}, ("trian", "recipe.yaml"), "No such command 'trian'"),
    Case("unknown option", {}, (*TRAIN, "--resum"), "No such option"),
    Case("missing argument", {}, ("evaluate", "model"), "Missing argument 'FILE'"),
    Case(
        "length that is no number",
        {},
        ("evaluate", "model", "train.fa", "--length", "x"),
        "Invalid value for '--length'",
    ),
    Case(
        "length of a window",
        {},
        ("evaluate", "model", "train.fa", "--length", "2"),
        "expected 3 or more tokens",
    ),
    Case(
        "context of windows",
        {},
        ("evaluate", "model", "train.fa", "--length", "50", "--context", "train.fa"),
        "length is 50: expected none with a context",
    ),
    Case(
        "missing context",
        {},
        ("evaluate", "model", "train.fa", "--context", "missing.fa"),
        "missing.fa: cannot be read",
    ),
    Case(
        "context of another kind",
        {"x": b"text"},
        ("evaluate", "model", "train.fa", "--context", "x"),
        "x: holds byte tokens (260 kinds), but",
    ),
    Case(
        "missing model", {}, ("evaluate", "nowhere", "train.fa"), "nowhere: no such folder; expected a model"
    ),
    Case(
        "file for a model",
        {},
        ("evaluate", "train.fa", "train.fa"),
        "train.fa: a file; expected the folder of",
    ),
    Case(
        "folder without a model",
        {},
        ("evaluate", "full", "train.fa"),
        "full: no model here; expected config.json",
    ),
    Case("missing data", {}, ("evaluate", "model", "missing.fa"), "missing.fa: cannot be read"),
    Case(
        "data of another kind",
        {"x": b"text"},
        ("evaluate", "model", "x"),
        "x: holds byte tokens (260 kinds), but",
    ),
    Case("unknown device", {}, (*GENERATE, "--device", "tpu"), "device 'tpu': expected auto, cpu or cuda"),
    Case(
        "letters outside the alphabet",
        {},
        ("generate", "model", "--prompt", "ACGJ"),
        "prompt, position 3: 'J'",
    ),
    Case("empty prompt", {}, ("generate", "model", "--prompt", ""), "--prompt: the prompt is empty"),
    Case("prompt of white space", {}, ("generate", "model", "--prompt", " \n"), "prompt: no letters"),
    Case("no prompt", {}, ("generate", "model"), "expected one of --prompt and --prompt-file"),
    Case(
        "two prompts",
        {},
        (*GENERATE, "--prompt-file", "train.fa"),
        "expected one of --prompt and --prompt-file",
    ),
    Case(
        "missing prompt file",
        {},
        ("generate", "model", "--prompt-file", "none"),
        "none: No such file or directory",
    ),
    Case(
        "binary prompt",
        {"x": b"\xff"},
        ("generate", "model", "--prompt-file", "x"),
        "x: not UTF-8 text: byte 0",
    ),
    Case(
        "two records",
        {"x": b">a\nA\n>b\nC\n"},
        ("generate", "model", "--prompt-file", "x"),
        "2 FASTA records",
    ),
    generate("--max-new-tokens", "0", message="max-new-tokens is 0: expected at least 1"),
    generate("--max-new-tokens", "-3", message="max-new-tokens is -3: expected at least 1"),
    generate("--temperature", "0", message="temperature is 0.0: expected a number above 0"),
    generate("--temperature", "-1", message="temperature is -1.0: expected a number above 0"),
    generate("--temperature", "nan", message="temperature is nan: expected a number above 0"),
    generate("--top-p", "1.5", message="top-p is 1.5: expected a number above 0 and up to 1"),
    generate("--top-p", "0", message="top-p is 0.0: expected a number above 0 and up to 1"),
    generate("--top-k", "0", message="top-k is 0: expected at least 1"),
    generate("--seed", "-1", message="seed is -1: expected 0 to 2**63 - 1"),
    generate("--out", "full", message="full: expected a file to write, in a folder that exists"),
    generate(
        "--out", "no/where.txt", message="no/where.txt: expected a file to write, in a folder that exists"
    ),
    Case("info on nothing", {}, ("info", "missing"), "missing: no such file or folder"),
    Case(
        "info on a binary",
        {"x": bytes(range(256))},
        ("info", "x"),
        "x, byte 0: a NUL byte; expected text in UTF-8",
    ),
    Case(
        "info on a plain folder",
        {},
        ("info", "full"),
        "full: neither a model, a checkpoint, a run nor a token array",
    ),
]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Path) -> Path:
    """The folder of the command: a recipe, its data, a model, and a folder with something else in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    values = recipe_values(folder, write_fasta(folder / "train.fa", 300))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (folder / "full").mkdir()
    (folder / "full" / "something").write_text("else")
    shutil.copytree(finished_run / "model", folder / "model")
    return folder


def tree(folder: Path) -> dict[Path, bytes]:
    """All files and their contents."""
    return {path: path.read_bytes() for path in folder.rglob("*") if stat.S_ISREG(path.lstat().st_mode)}


def check(run_command: RunCommand, work: Path, command: tuple[str, ...], message: str) -> None:
    """The command fails with one line and leaves everything as it was."""
    before, folders = tree(work), sorted(work.rglob("*"))
    outcome = run_command(*command)
    assert outcome.code == 2
    assert outcome.out == ""
    *others, last = outcome.err.splitlines()
    assert not others
    assert last.startswith("reformer: error: ")
    assert message in last
    assert tree(work) == before
    assert sorted(work.rglob("*")) == folders
    assert not list((work.parent / "cache").glob(".*"))


@pytest.mark.parametrize("case", [*DATA, *RECIPES, *COMMANDS], ids=lambda case: case.name)
def test_one_line_and_nothing_left(run_command: RunCommand, work: Path, case: Case) -> None:
    for name, content in case.files.items():
        (work / name).write_bytes(content)
    check(run_command, work, case.command, case.message)


def test_there_are_enough_of_them() -> None:
    names = [case.name for case in (*DATA, *RECIPES, *COMMANDS)]
    assert len(set(names)) == len(names) >= 60


def nan_weights(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.decoder.weight"][3, 5] = torch.nan
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def missing_tensor(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    del tensors["lm_head.decoder.weight"]
    save_file(tensors, model / "model.safetensors", {"format": "pt"})


def set_config(**values: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | values))

    return change


def cut(name: str, size: int) -> Callable[[Path], None]:
    return lambda model: os.truncate(model / name, (model / name).stat().st_size - size)


def remove(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def pickled(model: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")


MODELS: list[tuple[Callable[[Path], None], str]] = [
    (nan_weights, "model.safetensors: lm_head.decoder.weight has values that are not finite"),
    (missing_tensor, "model.safetensors: 1 missing tensor(s), the first is lm_head.decoder.weight"),
    (cut("model.safetensors", 100), "model.safetensors: expected "),
    (lambda model: os.truncate(model / "model.safetensors", 5), "model.safetensors: not a safetensors file"),
    (
        lambda model: (model / "model.safetensors").write_bytes(b"x" * 99),
        "model.safetensors: not a safetensors file",
    ),
    (remove("model.safetensors"), "model.safetensors: missing"),
    (pickled, "model.safetensors: missing"),
    (remove("config.json"), "model: config.json is missing"),
    (cut("config.json", 20), "config.json: damaged: not JSON"),
    (lambda model: (model / "config.json").write_text("[]"), "config.json: damaged: expected a JSON mapping"),
    (set_config(model_type="bert"), "config.json: expected model_type 'reformer-torch', got 'bert'"),
    (set_config(hidden_size=24), "model: cannot be loaded: "),
    (set_config(attn_layers=["lhs"]), "model: cannot be loaded: "),
    (set_config(attn_layers=["local"]), "unexpected tensor(s), the first is "),
    (remove("tokenizer_config.json"), "tokenizer_config.json: missing"),
    (set_config(vocab_size=11), "model: cannot be loaded: "),
]


@pytest.mark.parametrize(("damage", "message"), MODELS, ids=range(len(MODELS)))
def test_damaged_models(
    run_command: RunCommand, work: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(work / "model")
    check(run_command, work, ("evaluate", "model", "train.fa"), message)


def test_tokenizer_of_another_model(run_command: RunCommand, work: Path, finished_text_run: Path) -> None:
    shutil.copy(finished_text_run / "model" / "tokenizer_config.json", work / "model")
    check(run_command, work, GENERATE, "model: the tokenizer has 260 tokens, the model 9")


def test_info_on_damage(run_command: RunCommand, work: Path) -> None:
    assert run_command("info", "train.fa").code == 0
    (array,) = (work.parent / "cache").iterdir()
    os.truncate(array / "tokens.bin", 299)
    check(
        run_command, work, ("info", str(array)), "damaged token array: the file has 299 bytes, expected 300"
    )
    (work / "full" / "recipe.yaml").write_text("data: [")
    check(run_command, work, ("info", "full"), "full/recipe.yaml, line 1: not YAML")
    os.truncate(work / "model" / "model.safetensors", 1000)
    check(run_command, work, ("info", "model"), "model.safetensors: ")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there(run_command: RunCommand, work: Path) -> None:
    check(
        run_command,
        work,
        (*TRAIN, "training.device=cuda"),
        "training.device: device 'cuda': torch finds no GPU",
    )
    check(run_command, work, (*GENERATE, "--device", "cuda"), "device 'cuda': torch finds no GPU")


def test_runs_that_exist(run_command: RunCommand, work: Path) -> None:
    assert run_command(*TRAIN).code == 0
    check(run_command, work, TRAIN, "run is not empty; go on with --resume or choose another output_dir")
    changed = (*TRAIN, "--resume", "training.seed=3")
    check(run_command, work, changed, "training.seed: 3, but the run to resume began with 0")
    check(run_command, work, (*TRAIN, "--resume", "model.hidden_size=32"), "model.hidden_size: 32, but")
    check(run_command, work, (*TRAIN, "--resume", "data.train=[other.fa]"), "data.train: ")
    write_fasta(work / "train.fa", 300, seed=5)
    check(run_command, work, (*TRAIN, "--resume"), "train.fa: has changed since the run in ")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only to root")
def test_folders_without_permission(run_command: RunCommand, work: Path) -> None:
    (work / "full").chmod(0o500)
    check(run_command, work, (*TRAIN, "output_dir=full/run"), "full cannot be written")
    (work / "train.fa").chmod(0)
    check(run_command, work, ("info", "train.fa"), "Permission denied")


@pytest.mark.parametrize("case", [DATA[1], RECIPES[9], COMMANDS[0], COMMANDS[-2]], ids=lambda case: case.name)
def test_in_a_process_of_its_own(work: Path, case: Case) -> None:
    for name, content in case.files.items():
        (work / name).write_bytes(content)
    result = subprocess.run(
        [sys.executable, "-m", "reformer", *case.command], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("reformer: error: ")
    assert case.message in line
