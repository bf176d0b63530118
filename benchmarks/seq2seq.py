"""What an encoder-decoder learns, and the memory of a training step on a long source.

    python -m benchmarks.seq2seq [--out FOLDER] [reverse] [passage] [memory]

`reverse`: sequences of 512 random symbols are to be written backwards. `passage`: a source of random
symbols in lines of 64, of which one begins with a mark, is to be answered by what follows the mark; the test
is on 65,536 tokens. In both, sources grow while the model is trained. The accuracy is the share of tokens
that greedy decoding gets right, on sequences never seen. `memory`: one step (forward, backward, AdamW) of the
default model, six layers in each half and d = 256, on a source of 262,144 tokens and a target of 512, in a
process of its own.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory import _resident_bytes
from reformer.bench.machine import describe_machine

NUM_SYMBOLS = 64
LINE = 64
MARK = 3  # the token before a passage; 0 begins targets, 4 to 67 are symbols
FIRST_SYMBOL = 4
ENOUGH = 0.99


@dataclass(frozen=True)
class Stage:
    """Training on sources of one length, until `enough` of the last batches is right or steps run out."""

    source_length: int
    batch: int
    max_steps: int
    learning_rate: float
    enough: float = 0.999


@dataclass(frozen=True)
class Task:
    """What a model is to learn: `make(batch, source_length)` gives sources and targets."""

    make: Callable[[int, int], tuple[Any, Any]]
    encoder: dict[str, Any]
    decoder: dict[str, Any]
    stages: tuple[Stage, ...]
    test_length: int
    test_sequences: int


def reversed_copy(batch: int, source_length: int) -> tuple[Any, Any]:
    """Random symbols, and the same backwards."""
    import torch

    source = torch.randint(FIRST_SYMBOL, FIRST_SYMBOL + NUM_SYMBOLS, (batch, source_length))
    return source, source.flip(1)


def marked_line(batch: int, source_length: int) -> tuple[Any, Any]:
    """Lines of 64 random symbols, one of which begins with a mark, and the symbols behind the mark."""
    import torch

    source = torch.randint(FIRST_SYMBOL, FIRST_SYMBOL + NUM_SYMBOLS, (batch, source_length))
    begin = torch.randint(source_length // LINE, (batch, 1)) * LINE
    source.scatter_(1, begin, MARK)
    return source, source.gather(1, begin + torch.arange(1, LINE))


HALF = {
    "vocab_size": FIRST_SYMBOL + NUM_SYMBOLS,
    "hidden_size": 128,
    "feed_forward_size": 256,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
    "eos_token_id": None,
    "initializer_range": 0.09,
    "axial_norm_std": 0.3,
    "position_embedding_type": "axial",
}
GRID = {"axial_pos_shape": (16, 32), "axial_pos_embds_dim": (64, 64)}
LINES = {"axial_pos_embds_dim": (16, 112)}
TASKS = {
    "reverse": Task(
        reversed_copy,
        encoder=HALF | {"attn_layers": ["lsh"]} | GRID,
        decoder=HALF | {"attn_layers": ["local"]} | GRID,
        stages=(Stage(32, 64, 600, 2e-3, enough=0.99), Stage(512, 8, 1500, 1e-3)),
        test_length=512,
        test_sequences=16,
    ),
    "passage": Task(
        marked_line,
        encoder=HALF
        | LINES
        | {
            "attn_layers": ["local", "lsh"],
            "local_attn_chunk_length": LINE,
            "local_num_chunks_before": 0,
            "local_num_chunks_after": 0,
            "axial_pos_shape": (1024, LINE),
        },
        decoder=HALF | LINES | {"attn_layers": ["local"], "axial_pos_shape": (1, LINE)},
        stages=(
            Stage(64, 32, 600, 2e-3, enough=0.99),
            Stage(512, 16, 600, 1e-3),
            Stage(4096, 4, 200, 1e-3),
            Stage(65536, 1, 40, 5e-4),
        ),
        test_length=65536,
        test_sequences=16,
    ),
}


def learn(task: Task) -> dict[str, Any]:
    """Train on a task and test."""
    import torch

    from reformer import ReformerForSeq2SeqLM, ReformerSeq2SeqConfig

    torch.manual_seed(0)
    config = ReformerSeq2SeqConfig(encoder=task.encoder, decoder=task.decoder)
    model = ReformerForSeq2SeqLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    begun = time.perf_counter()
    stages = []
    for stage in task.stages:
        steps = 0
        for steps, (loss, accuracy) in enumerate(_training(model, optimizer, task, stage), 1):
            if steps % 20 == 0:
                seconds = time.perf_counter() - begun
                print(
                    f"  {stage.source_length:6,} tokens  step {steps:5}  loss {loss:.4f}  "
                    f"accuracy {accuracy:.4f}  {seconds:6.0f} s",
                    flush=True,
                )
        seconds = time.perf_counter() - begun
        stages.append(
            {"source_length": stage.source_length, "steps": steps, "loss": loss, "seconds": seconds}
        )
    right, total, test_seconds = _test(model, task)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "stages": stages,
        "training_seconds": stages[-1]["seconds"],
        "test_length": task.test_length,
        "test_tokens": total,
        "accuracy": right / total,
        "enough": right / total >= ENOUGH,
        "test_seconds": test_seconds,
    }


def _training(model: Any, optimizer: Any, task: Task, stage: Stage) -> Iterator[tuple[float, float]]:
    """Loss, and accuracy by teacher forcing on a fresh batch as last measured, at each step."""
    import torch

    accuracy = 0.0
    for step in range(stage.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * min(1.0, (step + 1) / 50)
        source, target = task.make(stage.batch, stage.source_length)
        loss = model.train()(input_ids=source, labels=target).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 20 == 19:
            source, target = task.make(stage.batch, stage.source_length)
            with torch.no_grad():
                logits = model.eval()(input_ids=source, labels=target).logits
            accuracy = (logits.argmax(-1) == target).float().mean().item()
        yield loss.item(), accuracy
        if accuracy >= stage.enough:
            return


def _test(model: Any, task: Task) -> tuple[int, int, float]:
    """How many tokens greedy decoding gets right, of how many, and seconds."""
    import torch

    torch.manual_seed(1_000_000)
    begun = time.perf_counter()
    right = total = 0
    together = max(1, 4096 // task.test_length)
    for _ in range(task.test_sequences // together):
        source, target = task.make(together, task.test_length)
        written = model.eval().generate(source, max_new_tokens=target.shape[1], do_sample=False)[:, 1:]
        right += int((written == target).sum())
        total += target.numel()
    return right, total, time.perf_counter() - begun


def measure_memory(source_length: int = 262_144, target_length: int = 512) -> dict[str, Any]:
    """A training step in this process; sizes in bytes, times in seconds."""
    import torch

    from reformer import ReformerForSeq2SeqLM, ReformerSeq2SeqConfig

    torch.manual_seed(0)
    model = ReformerForSeq2SeqLM(ReformerSeq2SeqConfig()).train()
    optimizer = torch.optim.AdamW(model.parameters())
    source = torch.randint(4, 320, (1, source_length))
    target = torch.randint(4, 320, (1, target_length))
    times = [time.perf_counter()]
    loss = model(input_ids=source, labels=target).loss
    times.append(time.perf_counter())
    loss.backward()
    times.append(time.perf_counter())
    optimizer.step()
    times.append(time.perf_counter())
    return {
        "source_length": source_length,
        "target_length": target_length,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss.item(),
        "forward_seconds": times[1] - times[0],
        "backward_seconds": times[2] - times[1],
        "optimizer_seconds": times[3] - times[2],
        "peak_resident_bytes": _resident_bytes("VmHWM"),
    }


def main() -> None:
    """Run what is asked for, all by default, and write `seq2seq.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seq2seq", description=__doc__)
    parser.add_argument("cases", nargs="*", choices=[*TASKS, "memory", []], default=[])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure_memory()))
        return
    path = arguments.out / "seq2seq.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in arguments.cases or [*TASKS, "memory"]:
        if name == "memory":
            command = [sys.executable, "-m", "benchmarks.seq2seq", "--measure"]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result = json.loads(output.splitlines()[-1])
            print(f"memory   process peak {result['peak_resident_bytes'] / 2**30:.2f} GiB", flush=True)
        else:
            result = learn(TASKS[name])
            print(
                f"{name:8} accuracy {result['accuracy']:.4f} of {result['test_tokens']:,} tokens, "
                f"trained for {result['training_seconds']:.0f} s",
                flush=True,
            )
        results[name] = {"machine": describe_machine(), **result}
        arguments.out.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
