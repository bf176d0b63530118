"""What sharing a prefix through the decode cache gains where a million bases around a variant are read.

    python -m benchmarks.variant_windows [--window 1048576] [--steps 100] [--out benchmarks/results]

A small causal model of `reformer dna pretrain` is trained on *D. melanogaster* chromosome 4 (1,348,131 bases)
for STEPS steps and scores variants of it, at two places: before the one lies nearly a whole window on "+",
before the other on "-". Each place has a substitution by either of two bases, a deletion and an insertion.
"decode cache" is `reformer dna score` as it is: what lies before a place is read once, and every allele goes
on from there. "full passes" is what the scores are defined by: a plain forward pass over the whole window for
REF and for each allele, on each strand. Each runs in a process of its own, on one thread; seconds are those
of a core. Nothing is written unless all scores agree within 1e-3 nats.
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pysam

from benchmarks.bits_per_base import files_of
from benchmarks.variant_classes import SyntheticVariant, write_vcf
from reformer.bench.machine import describe_machine
from reformer.cli import main as reformer
from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome
from reformer.genomics.variants.changes import Change
from reformer.training.atomic import write_text_atomically
from reformer.training.metrics import peak_memory_bytes

# Of a layer with more heads, or of more LSH layers, the caches of a million bases take as much more memory.
MODEL = ("attn_layers=[local, lsh]", "hidden_size=64", "attention_head_size=32", "feed_forward_size=128")
REACH = 256  # that of `reformer dna score`
GATE_NATS = 1e-3
FIELDS = ("REFORMER_LLR_FWD", "REFORMER_LLR_REV")

Scores = list[list[float]]  # of each allele, "+" and "-"


def run(*arguments: str | Path | int) -> None:
    """Runs `reformer ARGUMENTS` in this process."""
    if reformer(list(map(str, arguments))):
        raise SystemExit(f"reformer {' '.join(map(str, arguments))} did not end well")


def make_variants(letters: str, window: int) -> list[SyntheticVariant]:
    """Variants right before the end of the first window, counted from either end of a sequence."""
    draw = random.Random(0)
    variants = []
    for place in sorted((window - REACH, len(letters) - window)):
        first = next(i for i in range(place, len(letters)) if set(letters[i : i + 96]) <= set("ACGT"))
        for offset, num_lost, inserted in ((0, 0, ""), (40, 3, ""), (80, 0, "ACGTT")):
            at = first + offset
            base = letters[at]
            alternative = ",".join(draw.sample(sorted(set("ACGT") - {base}), 2)) if not offset else base
            reference = base + letters[at + 1 : at + 1 + num_lost]
            variants.append(SyntheticVariant(at, reference, alternative + inserted, "any"))
    return variants


def by_decode_cache(model: Path, variants: Path, genome: Path, window: int) -> Scores:
    """The scores that `reformer dna score` writes."""
    out = variants.with_name("scored.vcf.gz")
    run("dna", "score", model, variants, genome, out, "--window", window, "--reach", REACH)
    with pysam.VariantFile(str(out)) as file:
        return [
            [record.info[field][number] for field in FIELDS]
            for record in file
            for number in range(len(record.alts or ()))
        ]


def by_full_passes(model: Path, variants: Path, genome: Path, window: int) -> Scores:
    """The scores by their definition."""
    import torch

    from reformer.genomics.strands import IS_BASE, StrandedSequence, TokenIds, changed_ids
    from reformer.training.model_folder import find_model_folder, load_language_model

    net, _ = load_language_model(find_model_folder(model), "cpu")

    @torch.no_grad()
    def nats(ids: TokenIds, num_counted: int) -> float:
        """Log-probability of the last bases, each given all before it."""
        tokens = torch.from_numpy(ids.astype("int64"))[None]
        logits = net(tokens, logits_to_keep=num_counted + 1).logits[:, :-1].double()
        counted = tokens[:, -num_counted:]
        found = logits.log_softmax(-1).gather(-1, counted[..., None]).squeeze(-1)
        return float(found[torch.from_numpy(IS_BASE)[counted]].sum())

    unchanged: dict[tuple[str, int, int, int], float] = {}

    def ratio(sequence: StrandedSequence, change: Change) -> float:
        half = window // 2
        origin = max(0, (change.start // half - 1) * half)
        growth = len(change.inserted) - (change.end - change.start)
        end = min(change.start + REACH, len(sequence), len(sequence) + growth)
        counted, key = end - change.start, (sequence.strand, change.start, origin, end)
        if key not in unchanged:
            unchanged[key] = nats(sequence.ids(origin, end), counted)
        return nats(changed_ids(sequence, change, origin, end), counted) - unchanged[key]

    scores = []
    with pysam.VariantFile(str(variants)) as file, Genome(genome) as opened:
        for record in file:
            forward = StrandedSequence(opened, record.chrom, "+", "fold")
            reverse = StrandedSequence(opened, record.chrom, "-", "fold")
            for alternative in record.alts or ():
                change = Change.of(record.start, record.ref or "", alternative)
                assert change is not None
                flipped = change.on_other_strand(len(reverse))
                scores.append([ratio(forward, change), ratio(reverse, flipped)])
    return scores


WAYS: dict[str, Callable[[Path, Path, Path, int], Scores]] = {
    "decode cache": by_decode_cache,
    "full passes": by_full_passes,
}


def measured(way: str, *arguments: Any) -> tuple[Scores, dict[str, float]]:
    """Scores in this process; what that took since it began."""
    import torch

    torch.set_num_threads(1)
    scores = WAYS[way](*arguments)
    return scores, {"cpu_seconds": time.process_time(), "peak_memory_bytes": peak_memory_bytes()}


def largest_difference(one: Scores, other: Scores) -> float:
    """In nats.

    Raises:
        SystemExit: it is too large, or a score is missing.
    """
    apart = float(np.abs(np.subtract(one, other)).max())
    if not apart <= GATE_NATS:
        raise SystemExit(f"the scores differ by {apart:.2g} nats: expected at most {GATE_NATS:.0e}")
    return apart


def compare(model: Path, genome: Path, folder: Path, window: int) -> dict[str, Any]:
    """Scores variants both ways.

    Raises:
        SystemExit: the scores do not agree.
    """
    with Genome(genome) as opened:
        ((name, length),) = opened.lengths.items()
        letters = opened.letters(Interval(name, 0, length)).upper()
    variants = make_variants(letters, window)
    write_vcf(folder / "v.vcf", name, length, variants)
    results: dict[str, Any] = {}
    scores: dict[str, Scores] = {}
    for way in WAYS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (way, model, folder / "v.vcf", genome, window)
            scores[way], results[way] = pool.apply(measured, arguments)
        print(f"{way:14} {results[way]}", flush=True)
    return {
        "window": window,
        "variants": len(variants),
        "alleles": len(scores["full passes"]),
        "scores": scores["decode cache"],
        "largest_difference_nats": largest_difference(*scores.values()),
        **results,
    }


def main() -> None:
    """Train, score, and write `variant_windows.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--window", type=int, default=1 << 20)
    parser.add_argument("--steps", type=int, default=100, help="of training")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    ((genome,), _) = files_of("fly")
    with tempfile.TemporaryDirectory(prefix="reformer-windows-") as temporary:
        folder = Path(temporary)
        stage = f"training.lengths=[{{length: 2048, steps: {options.steps}, batch_size: 4}}]"
        settings = [stage, *(f"model.{setting}" for setting in MODEL)]
        flags = [word for setting in settings for word in ("--set", setting)]
        run("dna", "pretrain", genome, "--out", folder / "run", *flags)
        found = compare(folder / "run", genome, folder, options.window)
    results = {"machine": describe_machine(), "model": MODEL, "training_steps": options.steps, **found}
    write_text_atomically(options.out / "variant_windows.json", json.dumps(results, indent=1) + "\n")
    print(f"largest difference: {found['largest_difference_nats']:.1e} nats")


if __name__ == "__main__":
    main()
