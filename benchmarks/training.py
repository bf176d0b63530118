"""Whole training steps, side by side with transformers' Reformer and, for short sequences, GPT-2.

    python -m benchmarks.training [--out FOLDER] [--lengths N ...] [--repeats N] [--contenders NAME ...]

The model has 6 layers (local, lsh) x 3, d = 256, feed-forward 512, 2 heads of 64, 1 hash round and 256
symbols; a step is forward, backward and AdamW. Before anything is timed, a checkpoint that transformers
wrote is loaded into ours, and the losses and the gradients of both must agree. "same" is that model in ours:
chunk window, float32 streams; "chunk" has our int32 streams, "bucket" our window too, and "bucket bfloat16"
runs its products in bfloat16 (left out by default where the processor has no instructions for it). Each
measurement is a process of its own, with the settings of our command line for all; contenders take turns.
Memory is the peak of the resident set in the step over the resident set before it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from reformer.cli import prepare_process
from reformer.training.atomic import write_text_atomically

CONTENDERS = ("same", "chunk", "bucket", "bucket bfloat16", "transformers", "gpt2")
LENGTHS = (512, 16_384, 65_536)
SHORT, SHORT_BATCH = 512, 8  # where GPT-2, whose attention is full, takes part
GATE_LENGTH, GATE = 2_048, 1e-3
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "feed_forward_size": 512,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "attn_layers": ["local", "lsh"] * 3,
    "vocab_size": 256,
    "num_hashes": 1,
    "is_decoder": True,
    "axial_pos_embds_dim": (64, 192),
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "hash_seed": 0,
}


def make_model(contender: str, length: int) -> Any:
    """A model in training mode; those of transformers' shape have the same weights."""
    import torch
    import transformers

    from reformer import ReformerConfig, ReformerForCausalLM

    torch.manual_seed(0)
    shape = SHAPE | {"axial_pos_shape": (length // 128, 128), "max_position_embeddings": length}
    if contender == "gpt2":
        config = transformers.GPT2Config(
            n_embd=256, n_inner=512, n_head=2, n_layer=6, vocab_size=256, n_positions=length,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return transformers.GPT2LMHeadModel(config).train()
    if contender.startswith("bucket"):
        return ReformerForCausalLM(ReformerConfig(**shape)).train()
    num_buckets = _num_buckets(length)
    theirs = transformers.ReformerModelWithLMHead(
        transformers.ReformerConfig(**shape, num_buckets=num_buckets)
    )
    if contender == "transformers":
        return theirs.train()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        options: dict[str, Any] = {}
        if contender == "chunk":
            options = {"as_transformers": False, "residual": "int32"}
        return ReformerForCausalLM.from_pretrained(folder, **options).train()


def _num_buckets(length: int) -> int | list[int]:
    """2T / C buckets, in two factors from 256 on, as transformers chooses them."""
    power = (2 * length // 64).bit_length() - 1
    return 1 << power if power < 8 else [1 << power // 2, 1 << power - power // 2]


def check() -> float:
    """Largest error of the loss or a gradient of ours, relative to transformers' with the same weights."""
    import torch

    tokens = torch.randint(256, (1, GATE_LENGTH), generator=torch.Generator().manual_seed(0))
    found = {}
    for contender in ("transformers", "same"):
        model = make_model(contender, GATE_LENGTH)
        if contender == "same":
            model.eval()  # the rotations of hash_seed, which transformers has in training too
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[contender] = {"loss": loss.detach()} | grads
    theirs, ours = found["transformers"], found["same"]
    return max(
        float((ours[name] - value).abs().max() / value.abs().max().clamp(min=1e-12))
        for name, value in theirs.items()
        if name in ours and value.abs().max() > 0
    )


def measure(contender: str, length: int) -> dict[str, Any]:
    """One step in this process, after a first one that warms up where it is short: seconds and bytes."""
    import torch

    model = make_model(contender, length)
    batch = SHORT_BATCH if length == SHORT else 1
    tokens = torch.randint(256, (batch, length), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled="bfloat16" in contender):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - start, loss.item()

    before = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    times, losses = zip(*(step() for _ in range(6 if length == SHORT else 2)), strict=True)
    return {
        "seconds": min(times),
        "loss": losses[0],
        "step_bytes": _status_bytes("VmHWM") - before,
        "peak_resident_bytes": _status_bytes("VmHWM"),
    }


def _status_bytes(field: str) -> int:
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) * 1024


def _in_subprocess(contender: str, length: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training", "--measure", contender, "--lengths", str(length)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def run(length: int, contenders: list[str], repeats: int) -> dict[str, Any]:
    """Interleaved measurements of one length."""
    taking_part = [name for name in contenders if name != "gpt2" or length == SHORT]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in taking_part}
    for _ in range(repeats):
        for name in taking_part:
            found[name].append(_in_subprocess(name, length))
    result = {}
    for name, runs in found.items():
        seconds = [one["seconds"] for one in runs]
        result[name] = {
            "seconds": {
                "median": statistics.median(seconds),
                "lowest": min(seconds),
                "highest": max(seconds),
            },
            "step_bytes": max(one["step_bytes"] for one in runs),
            "peak_resident_bytes": max(one["peak_resident_bytes"] for one in runs),
            "runs": len(runs),
        }
    for name, of_name in result.items():
        median = of_name["seconds"]["median"]
        line = (
            f"{length:9,} tokens  {name:16} {median:8.3f} s  step {of_name['step_bytes'] / 2**20:8,.0f} MiB"
        )
        if "transformers" in result and name != "transformers":
            theirs = result["transformers"]
            line += f"  {theirs['seconds']['median'] / median:5.2f} times as fast as transformers, "
            line += f"{of_name['step_bytes'] / theirs['step_bytes']:.2f} of its memory"
        print(line, flush=True)
    return result


def main(arguments: list[str] | None = None) -> None:
    """Compare, time, and write `training.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS)
    parser.add_argument("--measure", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    prepare_process()
    import torch

    if options.measure:
        print(json.dumps(measure(options.measure, options.lengths[0])))
        return
    error = check()
    print(f"loss and gradients against transformers': largest relative difference {error:.1e}", flush=True)
    if not error < GATE:
        raise SystemExit(f"benchmarks.training: the difference is above {GATE}: nothing is timed")
    contenders = options.contenders or [name for name in CONTENDERS if name != "bucket bfloat16"]
    if not options.contenders and torch.cpu._is_avx512_bf16_supported():
        contenders = list(CONTENDERS)
    path = options.out / "training.json"
    lengths = json.loads(path.read_text())["lengths"] if path.exists() else {}
    for length in options.lengths:
        lengths[str(length)] = run(length, contenders, options.repeats)
        report = {
            "machine": describe_machine(),
            "largest_difference": error,
            "shape": SHAPE,
            "lengths": lengths,
        }
        options.out.mkdir(parents=True, exist_ok=True)
        write_text_atomically(path, json.dumps(report | {"lengths": lengths}, indent=1) + "\n")


if __name__ == "__main__":
    main()
