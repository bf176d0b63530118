"""`reformer serve` from the outside."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from tests.cli.conftest import RunCommand
from tests.training.conftest import write_fasta

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def ask(url: str, **values: object) -> dict:
    request = Request(url, json.dumps(values).encode() if values else None)
    with urlopen(request, timeout=300) as response:
        return json.load(response)  # type: ignore[no-any-return]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal(
    run_command: RunCommand, finished_run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    genome = write_fasta(tmp_path / "x.fa", 100, seed=2, letters="ACGTN")
    expected = json.loads(run_command("evaluate", finished_run, genome, "--json", "--device", "cpu").out)
    command = [sys.executable, "-m", "reformer", "serve", str(finished_run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            assert process.stdout is not None
            said = re.fullmatch(
                r"(http://127\.0\.0\.1:\d+)  causal language model: /score, /generate, /embed\n",
                process.stdout.readline(),
            )
            assert said is not None
            (found,) = ask(f"{said[1]}/score", sequences=[genome.read_text().split("\n")[1]])["results"]
            # The page's examples are those of a model of DNA too.
            for path, body in re.findall(r"curl localhost:8000(/\w*)(?: -d '([^']*)')?", PAGE.read_text()):
                if path in ("/predict",):
                    continue
                assert "error" not in ask(said[1] + path, **(json.loads(body) if body else {}))
        finally:
            process.send_signal(number)
            out, errors = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "")
    assert found["bits_per_base"] == pytest.approx(expected["bits_per_base"], rel=1e-5)
    lines = errors.splitlines()
    assert lines[0].startswith("POST /score 200 100 tokens ")
    assert all(re.match(r"(GET|POST) /\w* 200 [\d,]+ tokens [\d.]+ s$", line) for line in lines), errors


def test_what_cannot_be_served(run_command: RunCommand, finished_run: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = run_command("serve", finished_run, "--port", port)
        message = f"reformer: error: --host 127.0.0.1 --port {port}: Address already in use\n"
        assert (outcome.code, outcome.out, outcome.err) == (2, "", message)
    (tmp_path / "empty").mkdir()
    outcome = run_command("serve", "empty", "--port", "0")
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "empty: no model here" in outcome.err
    outcome = run_command("serve", finished_run, "--port", "65536")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
