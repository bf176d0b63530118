"""Do variant scores tell what breaks a gene from what does not? 1,000 synthetic variants of yeast.

    python -m benchmarks.variants [--steps 300] [--out benchmarks/results]

A small causal model is trained for some minutes on chromosome 1 of *S. mikatae* and *S. kudriavzevii*, with
`reformer train`'s machinery, and scores variants of *S. cerevisiae* chromosome I, which it has not seen, with
`reformer dna score`. AUROC: the probability that a variant of the one class has a lower score than one of the
other, with a 95 % interval from bootstrap resampling of the variants. Insertions and deletions differ from
substitutions in more than what they do to a gene, so the classes are also compared one by one. After 2.5
million bases of training the answer is no (0.50): such a model has not learnt reading frames.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pysam
import yaml

from benchmarks.variant_classes import VariantMaker, write_vcf
from reformer.bench.machine import describe_machine
from reformer.cli import main as reformer
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.genome import Genome
from reformer.genomics.quickstart import TEST_FILE, TRAIN_FILE, yeast_file
from reformer.training.atomic import write_text_atomically
from reformer.training.metrics import read_metrics

TRAIN_FILES = ("SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic.fna.gz", TEST_FILE)
GENOME, ANNOTATION = TRAIN_FILE, "ScerR64_I.gff.gz"
NUMBERS = {
    "synonymous": 250,
    "missense": 200,
    "nonsense": 150,
    "frameshift": 150,
    "intergenic": 150,
    "repeat indel": 100,
}
COMPARISONS = {
    "nonsense and frameshift against synonymous": (("nonsense", "frameshift"), ("synonymous",)),
    "nonsense against synonymous": (("nonsense",), ("synonymous",)),
    "missense against synonymous": (("missense",), ("synonymous",)),
    "nonsense against missense": (("nonsense",), ("missense",)),
    "frameshift against synonymous": (("frameshift",), ("synonymous",)),
    "frameshift against repeat indel": (("frameshift",), ("repeat indel",)),
    "synonymous against intergenic": (("synonymous",), ("intergenic",)),
}
MODEL = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "attention_head_size": 64,
    "feed_forward_size": 256,
    "attn_layers": ["local", "lsh"],
    "num_hashes": 1,
    "position_embedding_type": "rotary",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
}
RESAMPLES = 2000


def train(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Trains the model; what it cost, and how well it predicts the genome that is scored."""
    recipe = {
        "data": {
            "train": [str(yeast_file(name)) for name in TRAIN_FILES],
            "eval": {"cerevisiae": [str(yeast_file(GENOME))]},
            "reverse_complement": True,
        },
        "model": MODEL,
        "training": {
            "seed": seed,
            "lengths": [{"length": 2048, "steps": steps, "batch_size": 4}],
            "learning_rate": 3e-3,
            "warmup_steps": 20,
            "weight_decay": 0.01,
            "eval_every": steps,
            "save_every": steps,
        },
        "output_dir": str(folder / "run"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    if reformer(["train", str(folder / "recipe.yaml")]):
        raise SystemExit("the training did not end well")
    lines = read_metrics(folder / "run" / "metrics.jsonl")
    (evaluation,) = [line for line in lines if "eval" in line]
    last = [line for line in lines if "loss" in line][-1]
    return {
        "recipe": recipe["training"],
        "seconds": round(last["seconds"], 1),
        "tokens": last["tokens"],
        "bits_per_base_on_the_scored_genome": round(evaluation["bits_per_base"], 4),
    }


def score(folder: Path, window: int, reach: int, seed: int) -> tuple[dict[str, npt.NDArray], dict[str, Any]]:
    """Makes variants and scores them: the scores of each class, and what it took."""
    genes = read_genes(yeast_file(ANNOTATION))
    with Genome(yeast_file(GENOME)) as genome:
        ((name, length),) = genome.lengths.items()
        letters = genome.letters(Interval(name, 0, length)).upper()
    write_vcf(folder / "v.vcf", name, length, VariantMaker(letters, genes, seed).draw(NUMBERS))
    files = [str(folder / "run"), str(folder / "v.vcf"), str(yeast_file(GENOME))]
    options = ["--window", str(window), "--reach", str(reach)]
    start = time.perf_counter()
    contents = []
    for number in (1, 2):
        out = folder / f"scored{number}.vcf.gz"
        if reformer(["dna", "score", *files, str(out), *options]):
            raise SystemExit("the scoring did not end well")
        contents.append(out.read_bytes())
    seconds = (time.perf_counter() - start) / 2
    scores: dict[str, list[float]] = {kind: [] for kind in NUMBERS}
    with pysam.VariantFile(str(folder / "scored1.vcf.gz")) as file:
        for record in file:
            scores[record.info["KIND"].replace("_", " ")].append(record.info["REFORMER_LLR"][0])
    about = {
        "variants": sum(NUMBERS.values()),
        "window": window,
        "reach": reach,
        "seconds": round(seconds, 1),
        "twice_the_same_file": contents[0] == contents[1],
    }
    return {kind: np.array(values) for kind, values in scores.items()}, about


def auroc(lower: npt.NDArray, higher: npt.NDArray) -> float:
    """The probability that one of `lower` is below one of `higher`; ties count one half."""
    difference = higher[:, None] - lower[None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def compare(lower: npt.NDArray, higher: npt.NDArray, seed: int) -> dict[str, Any]:
    """AUROC with its 95 % bootstrap interval."""
    rng = np.random.default_rng(seed)
    draws = [auroc(rng.choice(lower, len(lower)), rng.choice(higher, len(higher))) for _ in range(RESAMPLES)]
    interval = np.quantile(draws, [0.025, 0.975])
    return {
        "auroc": round(auroc(lower, higher), 3),
        "interval_95": [round(float(bound), 3) for bound in interval],
        "numbers": [len(lower), len(higher)],
    }


def _together(scores: dict[str, npt.NDArray], kinds: tuple[str, ...]) -> npt.NDArray:
    return np.concatenate([scores[kind] for kind in kinds])


def main() -> None:
    """Train, score, compare, print and write `variants.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--reach", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reformer-variants-") as name:
        folder = Path(name)
        training = train(folder, options.steps, options.seed)
        scores, scoring = score(folder, options.window, options.reach, options.seed)
    results = {
        "machine": describe_machine(),
        "model": MODEL,
        "training": training,
        "scoring": scoring,
        "median_score": {kind: round(float(np.median(values)), 3) for kind, values in scores.items()},
        "comparisons": {
            name: compare(_together(scores, lower), _together(scores, higher), options.seed)
            for name, (lower, higher) in COMPARISONS.items()
        },
    }
    print(f"{training['bits_per_base_on_the_scored_genome']} bits per base on S. cerevisiae chromosome I")
    for name, found in results["comparisons"].items():  # type: ignore[attr-defined]
        low, high = found["interval_95"]
        print(f"AUROC {found['auroc']:.3f} ({low:.3f} to {high:.3f})  {name}")
    options.out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(options.out / "variants.json", json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
