"""Time per generated token and memory of the decode cache, by context, next to transformers' Reformer.

    python -m benchmarks.decoding [--contexts 1024 32768 262144 1048576] [--out benchmarks/results]

Contexts are read by the parallel forward, then timed in turns, a few hundred tokens each time. Nothing is
timed before cached logits agree with those of the parallel forward. Random weights: time does not depend on
what they are, and random keys fill the buckets.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from reformer import ReformerConfig, ReformerForCausalLM
from reformer.bench.machine import describe_machine
from reformer.generation.cache_file import load_cache, save_cache
from reformer.generation.loop import decode
from reformer.models.cache import ReformerCache

CONTEXTS = [1 << 10, 1 << 15, 1 << 18, 1 << 20]
PEER_CONTEXT = 1 << 13
VOCAB = 258
GATE = 1e-4
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "feed_forward_size": 512,
    "attn_layers": ["local", "lsh", "local", "lsh"],
    "num_hashes": 2,
    "is_decoder": True,
    "hash_seed": 0,
}


def make_model(**changes: Any) -> ReformerForCausalLM:
    """A causal model whose buckets are full long before 262,144 tokens."""
    torch.manual_seed(0)
    config = ReformerConfig(**SIZES, position_embedding_type="rotary", max_num_buckets=512, **changes)
    return ReformerForCausalLM(config).eval()


def make_ids(length: int) -> Tensor:
    return torch.randint(4, VOCAB, (1, length), generator=torch.Generator().manual_seed(length))


@torch.no_grad()
def largest_difference(model: ReformerForCausalLM) -> float:
    """Of cached logits from those of the parallel forward, over 200 tokens that cross two levels."""
    ids = make_ids(1200)
    cache = model(ids[:, :1000], use_cache=True).past_key_values
    found = [model(ids[:, i : i + 1], past_key_values=cache).logits for i in range(1000, 1200)]
    return float((torch.cat(found, dim=1) - model(ids).logits[:, 1000:]).abs().max())


@torch.no_grad()
def read(model: ReformerForCausalLM, length: int, folder: Path | None) -> tuple[ReformerCache, float | None]:
    """A cache of a context, and the seconds that it took to read it; None where a file had it."""
    file = None if folder is None else folder / f"{length}.safetensors"
    if file is not None and file.exists():
        return load_cache(file, model)[0], None
    cache = ReformerCache(model.reformer.encoder)
    start = time.perf_counter()
    model(make_ids(length), past_key_values=cache, logits_to_keep=1)
    seconds = time.perf_counter() - start
    if file is not None:
        save_cache(file, model, cache, torch.tensor([5]))
    return cache, seconds


@torch.no_grad()
def milliseconds_per_token(model: ReformerForCausalLM, cache: ReformerCache, num_tokens: int) -> float:
    """Greedy decoding, one token at a time."""
    token = torch.full((1, 1), 5)
    start = time.perf_counter()
    for _ in range(num_tokens):
        token = model(token, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
    return (time.perf_counter() - start) / num_tokens * 1000


def loops(model: ReformerForCausalLM, cache: ReformerCache, num_tokens: int) -> dict[str, float]:
    """Milliseconds a token of `generate()` with all ids at hand, by the loop that it runs."""
    results = {}
    for name, loop in (("transformers", None), ("reformer", decode), ("transformers again", None)):
        ids = make_ids(cache.columns + 1)
        options: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "custom_generate": loop}
        start = time.perf_counter()
        model.generate(ids, past_key_values=cache, max_new_tokens=num_tokens, **options)  # type: ignore[misc]
        results[name] = (time.perf_counter() - start) / num_tokens * 1000
    return results


class _Clock:
    """A streamer that notes when what comes comes: the prompt, then each token."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing more comes."""


def peer(num_tokens: int, repeats: int = 3) -> dict[str, float]:
    """Median milliseconds a token of transformers' Reformer and of ours, in turns, through `generate()`.

    With their caches; the time until the first token, in which the prompt is read, is not counted.
    """
    sizes = SIZES | {"axial_pos_shape": [128, 128], "axial_pos_embds_dim": [64, 64], "num_buckets": 256}
    torch.manual_seed(0)
    config = transformers.ReformerConfig(
        **sizes, lsh_attn_chunk_length=64, local_attn_chunk_length=64, max_position_embeddings=1 << 14
    )
    models = {"transformers": transformers.ReformerModelWithLMHead(config).eval(), "reformer": make_model()}
    ids = make_ids(PEER_CONTEXT)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    options = {"do_sample": False, "eos_token_id": None, "use_cache": True}
    for _ in range(repeats):
        for name, model in models.items():
            clock = _Clock()
            model.generate(ids, max_new_tokens=1 + num_tokens, streamer=clock, **options)  # type: ignore
            times = clock.times[1:]
            seconds[name] += [b - a for a, b in itertools.pairwise(times)]
    return {name: statistics.median(values) * 1000 for name, values in seconds.items()}


def main(arguments: list[str] | None = None) -> None:
    """Check, time, and write `decoding.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--caches", type=Path, help="keep the caches in this folder, and read them from it")
    parser.add_argument("--skip", nargs="+", choices=("loops", "peer"), default=[])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(options.threads)
    model = make_model()
    difference = largest_difference(model)
    print(f"largest difference from the parallel forward: {difference:.1e}", flush=True)
    if difference > GATE:
        raise SystemExit(f"benchmarks.decoding: the difference is above {GATE}: nothing is timed")
    caches: dict[int, ReformerCache] = {}
    contexts: dict[int, dict[str, Any]] = {}
    for length in options.contexts:
        caches[length], seconds = read(model, length, options.caches)
        contexts[length] = {"read_seconds": seconds, "cache_bytes": caches[length].num_bytes}
        print(f"{length:9,} tokens: cache of {caches[length].num_bytes:,} bytes", flush=True)
    times: dict[int, list[float]] = {length: [] for length in caches}
    for repeat in range(options.repeats + 1):
        for length, cache in caches.items():
            milliseconds = milliseconds_per_token(model, cache, options.tokens)
            if repeat:  # the first warms up
                times[length].append(milliseconds)
    for length, values in times.items():
        contexts[length] |= {"milliseconds_per_token": statistics.median(values), "all_milliseconds": values}
        print(f"{length:9,} tokens of context: {statistics.median(values):.2f} ms a token", flush=True)
    results: dict[str, Any] = {"machine": describe_machine(), "difference": difference, "contexts": contexts}
    longest = max(caches)
    if "loops" not in options.skip:
        results["loops_milliseconds_per_token"] = {"context": longest} | loops(model, caches[longest], 50)
        print("generate() at the longest context:", results["loops_milliseconds_per_token"], flush=True)
    if "peer" not in options.skip:
        results["peer_milliseconds_per_token"] = {"context": PEER_CONTEXT} | peer(100)
        print("next to transformers' Reformer:", results["peer_milliseconds_per_token"], flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "decoding.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
