"""`reformer bench`: nothing is measured that is wrong, and what was measured is kept."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from reformer import cli
from reformer.bench import kernel, op, peers, training, worker
from reformer.bench.case import largest_error
from reformer.bench.command import run_cases
from reformer.bench.registry import CASES
from reformer.bench.results import CaseResults
from reformer.errors import UserError
from tests.benchmarks import toy_worker

README = Path(__file__).parents[2] / "README.md"
CONTENDERS = [(case, name) for case in ("op", "kernel") for name in CASES[case].contenders]


@pytest.fixture(autouse=True)
def short_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (op, peers, kernel):
        monkeypatch.setattr(module, "GATE_LENGTH", 512)


@pytest.mark.parametrize("name", CASES)
def test_cases_are_whole(name: str) -> None:
    case = CASES[name]
    assert set(case.baselines) <= case.contenders.keys()
    assert set(case.quick_lengths) <= set(case.lengths)
    assert all(length & (length - 1) == 0 for length in case.lengths)
    assert f"reformer bench {name}" in README.read_text()


def test_cases_of_the_issue() -> None:
    assert CASES["op"].lengths == (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
    assert set(CASES["op"].baselines) == {"sdpa", "flex", "window", "transformers", "reformer-pytorch"}
    assert CASES["training"].lengths == (16_384, 65_536, 262_144)
    assert CASES["million"].lengths == (1_048_576,)
    assert (CASES["short"].lengths, CASES["short"].batch) == ((512,), 8)
    assert CASES["short"].baselines == ("transformers", "gpt2")
    assert not CASES["million"].quick_lengths


@pytest.mark.parametrize(("case", "name"), [c for c in CONTENDERS if c[1] != "flex"])
def test_contenders_of_the_op_are_right(case: str, name: str) -> None:
    contender = CASES[case].contenders[name]
    if contender.package is not None:
        pytest.importorskip(contender.package)
    try:
        error = contender.gate()
    except NotImplementedError as reason:  # without the compiled kernels
        pytest.skip(str(reason))
    assert 0 < error <= contender.tolerance


@pytest.mark.parametrize("name", ["same", "chunk", "bucket", "transformers", "gpt2"])
def test_models_are_right(name: str) -> None:
    assert 0 < training.compare(name, 256) <= training.TOLERANCES[name]


@pytest.mark.parametrize("window", ["chunk", "bucket"])
def test_a_hash_or_an_attention_of_ours_that_is_wrong_is_found(
    window: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contender = op.ours(window, "torch", torch.float32)
    attend, hashes = op.Hashed.attend, op.Hashed.hash

    def attend_badly(self: op.Hashed, *inputs: Any) -> torch.Tensor:
        wrong = 1.001 if self.backend == "torch" else 1
        return wrong * attend(self, *inputs)

    def hash_badly(self: op.Hashed, q: torch.Tensor) -> list[torch.Tensor]:
        return hashes(self, -q if self.backend == "torch" else q)

    with monkeypatch.context() as patch:
        patch.setattr(op.Hashed, "attend", attend_badly)
        assert contender.gate() > contender.tolerance
    monkeypatch.setattr(op.Hashed, "hash", hash_badly)
    assert contender.gate() > contender.tolerance


@pytest.mark.parametrize("name", ["sdpa", "window", "transformers", "reformer-pytorch"])
def test_a_peer_that_is_wrong_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contender = peers.PEERS[name]
    if contender.package is not None:
        pytest.importorskip(contender.package)
    exact = peers.shared_keys
    monkeypatch.setattr(peers, "shared_keys", lambda q: 1.5 * exact(q))  # of the LSH layers
    monkeypatch.setattr(peers, "WINDOW", 128)
    if name == "window":
        reference = peers.local_attention
        monkeypatch.setattr(
            peers, "local_attention", lambda *x, **options: reference(*x, **(options | {"chunk_length": 64}))
        )
    if name == "sdpa":
        monkeypatch.setattr(peers, "full_attention", toy_worker.leaks)
    assert contender.gate() > contender.tolerance


@pytest.mark.parametrize("name", ["same", "bucket", "gpt2"])
def test_a_model_that_is_wrong_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = training.make_model, []

    def make_one_badly(name: str, length: int) -> Any:
        model = make(name, length)
        if not made:
            torch.nn.init.normal_(list(model.parameters())[-5], std=0.1)
        made.append(name)
        return model

    monkeypatch.setattr(training, "make_model", make_one_badly)
    assert training.compare(name, 256) > training.TOLERANCES[name]


def test_a_missing_gradient_is_an_error() -> None:
    loss = {"loss": torch.ones(())}
    grads = {"a": torch.ones(3), "b": torch.ones(3)}
    assert training.error_between(loss | grads, loss | grads) == 0
    assert training.error_between(loss | {"a": grads["a"]}, loss | grads) == pytest.approx(0.5**0.5)
    assert training.error_between({"loss": torch.tensor(torch.nan)} | grads, loss | grads) == float("inf")
    assert largest_error(torch.tensor([torch.nan]), torch.ones(1)) == float("inf")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("toys")
    fine = run_cases(
        ["toy"],
        folder,
        lengths=[512],
        contenders=["right", "wrong", "dies", "slow"],
        turns=4,
        cases=toy_worker.CASES,
        command=toy_worker.command,
    )
    return fine, json.loads((folder / "toy.json").read_text())


def test_what_is_wrong_is_neither_timed_nor_compared_with(toys: tuple[bool, dict[str, Any]]) -> None:
    fine, report = toys
    gates = {name: gate["status"] for name, gate in report["gates"].items()}
    assert not fine
    assert gates == {"right": "right", "wrong": "wrong", "dies": "right", "slow": "right"}
    assert report["lengths"]["512"].keys() == {"right", "dies", "slow"}
    assert "compared_with" not in report["lengths"]["512"]["right"]
    assert report["faster_from"] == {}


def test_a_process_that_dies_is_a_result_and_the_others_go_on(toys: tuple[bool, dict[str, Any]]) -> None:
    found = toys[1]["lengths"]["512"]
    assert found["dies"] == {"failed": "its process ended with status 7"}
    assert found["right"]["forward_backward_seconds"]["median"] > 0
    assert found["right"]["work_bytes"] > 0


def test_what_is_slow_takes_some_of_the_turns(toys: tuple[bool, dict[str, Any]]) -> None:
    found = toys[1]["lengths"]["512"]
    slow = found["slow"]["forward_seconds"]  # 24 seconds at first, which does not count, then 12 and 8
    assert (slow["runs"], slow["median"]) == (2, 10.0)
    assert found["right"]["forward_seconds"]["runs"] == 4


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("not a number", "wrong", None),
        ("fails", "failed", "ValueError: no luck"),
        ("missing", "unavailable", "no_such_package is not installed (pip install 'reformer-torch[bench]')"),
    ],
)
def test_a_gate_that_gives_no_number(name: str, status: str, reason: str | None, tmp_path: Path) -> None:
    case = toy_worker.CASES["toy"]
    answers = io.StringIO()
    worker._answer(answers, lambda: worker._obey(case, case.contenders[name], {}, "gate", []))
    results = CaseResults("toy", case, tmp_path / "toy.json", tell=lambda line: None)
    assert not results.gate(name, json.loads(answers.getvalue()), 1e-4)
    gate = json.loads((tmp_path / "toy.json").read_text())["gates"][name]
    assert (gate["status"], gate.get("reason")) == (status, reason)
    assert results.wrong == ([] if status == "unavailable" else [name])


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, toy_worker.__file__, "run", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        path, stop = tmp_path / "toy.json", time.monotonic() + 120
        while time.monotonic() < stop and not (path.exists() and '"runs": 1' in path.read_text()):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    found = json.loads(path.read_text())["lengths"]["512"]["waits"]["forward_seconds"]
    assert (found["median"], found["runs"]) == (0.1, 1)
    assert out.splitlines()[-1].startswith(f"written: {path}")


def test_the_command_measures_in_processes_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--lengths", "512", "--contenders", "chunk torch", "--turns", "2"]
    assert cli.main(["bench", "op", *arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "op.json").read_text())
    assert {"cpu", "cores", "threads", "torch", "date"} <= report["machine"].keys()
    assert report["process"].endswith("as Python starts it")
    found = report["lengths"]["512"]["chunk torch"]
    assert found["forward_backward_seconds"]["runs"] == 2
    assert found["forward_seconds"]["lowest"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["op.json"]
    out = capsys.readouterr().out
    assert "chunk torch        forward " in out
    assert out.splitlines()[-1] == f"written: {tmp_path / 'op.json'}"


def test_processes_have_the_environment_that_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = (
        f"import os; open({str(tmp_path / 'found')!r}, 'w').write(os.environ.get('GOMP_SPINCOUNT', 'none'))"
    )
    monkeypatch.setattr(
        "reformer.bench.command.plain_worker", lambda case, contender: [sys.executable, "-c", write]
    )
    given = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    monkeypatch.setattr(cli, "environment_at_start", given)
    cli.prepare_process()
    assert "GOMP_SPINCOUNT" in os.environ
    assert cli.main(["bench", "op", "--contenders", "chunk torch", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "found").read_text() == "none"


def test_the_command_prepares_processes_where_it_is_asked_to(tmp_path: Path) -> None:
    arguments = ["--lengths", "256", "--contenders", "chunk torch", "--turns", "1", "--prepared"]
    assert cli.main(["bench", "op", *arguments, "--out", str(tmp_path)]) == 0
    assert "prepare_process" in json.loads((tmp_path / "op-prepared.json").read_text())["process"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "no case is named 'nothing'; there are op, kernel"),
        (["op", "--contenders", "chunk,x"], "no contender of case op is named 'x'"),
        (["op", "--lengths", "1000"], "powers of two from 256 on"),
        (["op", "--lengths", "1k"], "whole numbers with commas between them, got '1k'"),
        (["op", "--turns", "0"], "--turns must be at least 1, got 0"),
    ],
)
def test_bad_arguments(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", *arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no contender of case million is named 'gpt2'"):
        run_cases(["short", "million"], tmp_path, contenders=["gpt2"])


@pytest.mark.slow
@pytest.mark.parametrize("case", [name for name in CASES if name != "op"])
def test_whole_cases_at_a_small_length(case: str, tmp_path: Path) -> None:
    assert cli.main(["bench", case, "--lengths", "1024", "--turns", "1", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / f"{case}.json").read_text())["lengths"]["1024"]
    assert all(one["work_bytes"] > 0 for one in found.values())


@pytest.mark.slow
def test_ours_next_to_a_peer_with_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--lengths", "256,512", "--contenders", "chunk torch,sdpa", "--turns", "2"]
    assert cli.main(["bench", "op", *arguments, "--out", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "op.json").read_text())
    for found in report["lengths"].values():
        ours, sdpa = (found[name] for name in ("chunk torch", "sdpa"))
        assert ours["compared_with"]["sdpa"]["forward_backward_times_as_fast"] == pytest.approx(
            sdpa["forward_backward_seconds"]["median"] / ours["forward_backward_seconds"]["median"]
        )
    assert {path.name for path in tmp_path.iterdir()} == {"op.json", "op-memory.svg", "op-time.svg"}
    assert "next to sdpa: forward " in capsys.readouterr().out
