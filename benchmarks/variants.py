"""Do variant scores tell what breaks a gene from what does not? 1,000 synthetic variants of yeast.

    python -m benchmarks.variants [--models genes causal masked] [--seeds 0 1 2] [--steps 1200] [--out FOLDER]

The kinds of models that `reformer dna score` takes are trained for some minutes on chromosome 1 of *S.
mikatae* and *S. kudriavzevii* and score variants of *S. cerevisiae* chromosome I, which none has seen.
"genes" is `reformer dna annotate train` as its packaged recipe has it; "causal" and "masked" are small
language models of `reformer train`. Variants are the same for all models and seeds.

AUROC: the probability that a variant of the one class has a lower score than one of the other. Its 95 %
interval is from bootstrap resampling of genes, each with all its variants, and of the gaps between genes:
variants of one gene share what the model makes of that gene. Insertions and deletions differ from
substitutions in more than what they do to a gene, so the classes are also compared one by one. With the first
seed of each model, scoring runs twice, and the files must be the same; pysam reads them, and bcftools where
it is installed. Rows of other models and seeds that FOLDER/variants.json has stay in it; "summary" is over
the seeds of all rows.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pysam
import yaml

from benchmarks.seeds import over_seeds
from benchmarks.variant_classes import SyntheticVariant, VariantMaker, write_vcf
from reformer.bench.machine import describe_machine
from reformer.cli import main as reformer
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.genes import Gene
from reformer.genomics.genome import Genome
from reformer.genomics.quickstart import TEST_FILE, TRAIN_FILE, yeast_file
from reformer.training.atomic import write_text_atomically
from reformer.training.metrics import read_metrics

TRAIN_FILES = ("SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic.fna.gz", TEST_FILE)
TRAIN_ANNOTATIONS = ("SmikIFO1815_1.gff.gz", "SkudIFO1802_1.gff.gz")
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
    "hidden_size": 64,
    "num_attention_heads": 2,
    "attention_head_size": 32,
    "feed_forward_size": 128,
    "attn_layers": ["local", "lsh"],
    "num_hashes": 1,
    "position_embedding_type": "rotary",
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.0,
    "local_attention_probs_dropout_prob": 0.0,
}
LM_WINDOW, LM_BATCH = 1024, 4  # of the language models, in training; they score with windows as long
RESAMPLES = 2000
VARIANT_SEED = 0


@dataclass(frozen=True)
class Scored:
    """Scores of the variants of a class, and numbers of the genes, or gaps between genes, they are in."""

    scores: npt.NDArray[np.float64]
    groups: npt.NDArray[np.int64]


def train_language_model(objective: str, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Trains a language model; what it cost, and how well it predicts the genome that is scored."""
    looks_ahead = {"local_num_chunks_after": 1} if objective == "masked" else {}
    recipe = {
        "data": {
            "train": [str(yeast_file(name)) for name in TRAIN_FILES],
            "eval": {"cerevisiae": [str(yeast_file(GENOME))]},
            "reverse_complement": True,
        },
        "model": MODEL | looks_ahead,
        "training": {
            "objective": objective,
            "seed": seed,
            "lengths": [{"length": LM_WINDOW, "steps": steps, "batch_size": LM_BATCH}],
            "learning_rate": 3e-3,
            "warmup_steps": 20,
            "weight_decay": 0.01,
            "eval_every": steps,
            "save_every": steps,
        },
        "output_dir": str(folder / "run"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    run("train", folder / "recipe.yaml")
    (evaluation,) = [line for line in read_metrics(folder / "run" / "metrics.jsonl") if "eval" in line]
    return {
        "model": recipe["model"],
        "recipe": recipe["training"],
        "bits_per_base_on_the_scored_genome": round(evaluation["bits_per_base"], 4),
    }


def train_genes(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Trains an annotation model as the packaged recipe says."""
    files: list[str | Path] = []
    for name, annotation in zip(TRAIN_FILES, TRAIN_ANNOTATIONS, strict=True):
        files += ["--genome", yeast_file(name), "--genes", yeast_file(annotation)]
    run("dna", "annotate", "train", *files, "--out", folder / "run", f"training.seed={seed}")
    recipe = yaml.safe_load((folder / "run" / "recipe.yaml").read_text())
    return {"model": recipe["model"], "recipe": recipe["training"]}


@dataclass(frozen=True)
class Contender:
    """How a model is trained, the INFO field that its score is in, and options of `reformer dna score`."""

    train: Callable[[Path, int, int], dict[str, Any]]
    field: str
    options: tuple[str, ...] = ()


MODELS = {
    "genes": Contender(train_genes, "REFORMER_GENE_LLR"),
    **{
        objective: Contender(
            partial(train_language_model, objective), "REFORMER_LLR", ("--window", str(LM_WINDOW))
        )
        for objective in ("causal", "masked")
    },
}


def run(*arguments: str | Path) -> None:
    """Runs `reformer ARGUMENTS` in this process."""
    if reformer(list(map(str, arguments))):
        raise SystemExit(f"reformer {' '.join(map(str, arguments))} did not end well")


def trained(model: Contender, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    about = model.train(folder, steps, seed)
    last = [line for line in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in line][-1]
    return about | {"seconds": round(last["seconds"], 1), "tokens": last["tokens"]}


@dataclass(frozen=True)
class VariantFile:
    """Synthetic variants of the scored chromosome, in a VCF file."""

    path: Path
    sequence: str
    length: int
    variants: list[SyntheticVariant]
    genes: list[Gene]


def write_variants(folder: Path) -> VariantFile:
    """Makes the variants."""
    genes = read_genes(yeast_file(ANNOTATION))
    with Genome(yeast_file(GENOME)) as genome:
        ((name, length),) = genome.lengths.items()
        letters = genome.letters(Interval(name, 0, length)).upper()
    variants = VariantMaker(letters, genes, VARIANT_SEED).draw(NUMBERS)
    write_vcf(folder / "v.vcf", name, length, variants)
    return VariantFile(folder / "v.vcf", name, length, variants, genes)


def score(model: Contender, folder: Path, file: VariantFile, out: Path) -> float:
    """Scores the variants; seconds of one core."""
    start = time.process_time()
    run("dna", "score", folder / "run", file.path, yeast_file(GENOME), out, *model.options)
    return time.process_time() - start


def read_scores(model: Contender, file: VariantFile, scored: Path) -> dict[str, Scored]:
    """The scores of each class."""
    rows: dict[str, list[tuple[float, int]]] = {kind: [] for kind in NUMBERS}
    with pysam.VariantFile(str(scored)) as opened:
        for record in opened:
            kind = record.info["KIND"].replace("_", " ")
            rows[kind].append((record.info[model.field][0], record.start))
    starts = {kind: [start for _, start in found] for kind, found in rows.items()}
    return {
        kind: Scored(np.array([number for number, _ in found]), groups_of(starts[kind], file.genes))
        for kind, found in rows.items()
    }


def groups_of(positions: Sequence[int], genes: Sequence[Gene]) -> npt.NDArray[np.int64]:
    """Odd numbers for genes, those that overlap being one, even ones for the gaps between them."""
    ends: list[int] = []
    for start, end in sorted((gene.interval.start, gene.interval.end) for gene in genes):
        if ends and start < ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            ends += [start, end]
    return np.searchsorted(ends, positions, side="right")


def check(model: Contender, folder: Path, file: VariantFile, scored: Path) -> dict[str, Any]:
    """What is expected of any scored file: the same once more, readable, and wrong REFs marked."""
    again = folder / "again.vcf.gz"
    score(model, folder, file, again)
    wrong = file.variants[::100]
    return {
        "twice_the_same_file": scored.read_bytes() == again.read_bytes(),
        "read_by_bcftools": _num_read_by_bcftools(scored, model.field),
        "wrong_ref_reported": _num_wrong_reported(folder, file, wrong),
        "wrong_ref": len(wrong),
    }


def _num_read_by_bcftools(path: Path, field: str) -> int | None:
    """Variants in which bcftools finds a score; None where it is not installed."""
    if shutil.which("bcftools") is None:
        return None
    command = ["bcftools", "query", "-i", f'INFO/{field}!="."', "-f", f"%POS %{field}\n", str(path)]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def _num_wrong_reported(folder: Path, file: VariantFile, variants: list[SyntheticVariant]) -> int:
    """How many variants are marked once REF is another base than the genome's."""
    wrong = [replace(v, reference="ACGT"["TGCA".index(v.reference[0])] + v.reference[1:]) for v in variants]
    write_vcf(folder / "wrong.vcf", file.sequence, file.length, wrong)
    out = folder / "wrong.vcf.gz"
    files = [folder / "wrong.vcf", yeast_file(GENOME), out]
    run("dna", "score", folder / "run", *files, "--on-mismatch", "filter")
    with pysam.VariantFile(str(out)) as opened:
        return sum("REF_MISMATCH" in record.filter for record in opened)


def compare(lower: Scored, higher: Scored) -> dict[str, Any]:
    """AUROC, ties counting one half, with the 95 % interval of a bootstrap that resamples groups."""
    groups, index = np.unique(np.concatenate([lower.groups, higher.groups]), return_inverse=True)
    member_of = np.eye(len(groups))[index]
    below, above = member_of[: len(lower.scores)], member_of[len(lower.scores) :]
    difference = higher.scores[None] - lower.scores[:, None]
    wins = below.T @ ((difference > 0) + (difference == 0) / 2) @ above  # [groups, groups]
    pairs = np.outer(below.sum(0), above.sum(0))
    drawn = np.random.default_rng(0).multinomial(
        len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES
    )
    draws = [float(times @ wins @ times / (times @ pairs @ times)) for times in drawn]
    interval = np.quantile(draws, [0.025, 0.975])
    return {
        "auroc": round(float(wins.sum() / pairs.sum()), 3),
        "interval_95": [round(float(bound), 3) for bound in interval],
        "numbers": [len(lower.scores), len(higher.scores)],
        "groups": len(groups),
    }


def _together(scored: dict[str, Scored], kinds: tuple[str, ...]) -> Scored:
    return Scored(
        np.concatenate([scored[kind].scores for kind in kinds]),
        np.concatenate([scored[kind].groups for kind in kinds]),
    )


def measure(name: str, steps: int, seed: int, *, is_checked: bool) -> dict[str, Any]:
    """Trains, scores and compares."""
    with tempfile.TemporaryDirectory(prefix="reformer-variants-") as temporary:
        folder, model = Path(temporary), MODELS[name]
        training = trained(model, folder, steps, seed)
        file, out = write_variants(folder), folder / "scored.vcf.gz"
        scoring = {"variants": len(file.variants), "cpu_seconds": round(score(model, folder, file, out), 1)}
        scored = read_scores(model, file, out)
        if is_checked:
            scoring |= check(model, folder, file, out)
    return {
        "model": name,
        "seed": seed,
        "machine": describe_machine(),
        "training": training,
        "scoring": scoring,
        "median_score": {kind: round(float(np.median(one.scores)), 3) for kind, one in scored.items()},
        "comparisons": {
            title: compare(_together(scored, lower), _together(scored, higher))
            for title, (lower, higher) in COMPARISONS.items()
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """AUROC of each model over its seeds, and from the lowest to the highest bound of their intervals."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(row["model"] for row in rows):
        for title in COMPARISONS:
            own = [row["comparisons"][title] for row in rows if row["model"] == name]
            bounds = [bound for one in own for bound in one["interval_95"]]
            figures = over_seeds([one["auroc"] for one in own])
            found.setdefault(name, {})[title] = figures | {"intervals_95": [min(bounds), max(bounds)]}
    return found


def main() -> None:
    """Measure, print and write `variants.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of training")
    parser.add_argument("--steps", type=int, default=1200, help="of the language models")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "variants.json"
    for name in options.models:
        for seed in options.seeds:
            row = measure(name, options.steps, seed, is_checked=seed == options.seeds[0])
            for title, compared in row["comparisons"].items():
                low, high = compared["interval_95"]
                print(f"{name}: AUROC {compared['auroc']:.3f} ({low:.3f} to {high:.3f})  {title}", flush=True)
            print(f"{name}: {row['scoring']}", flush=True)
            rows = json.loads(file.read_text())["rows"] if file.exists() else []
            rows = [one for one in rows if (one["model"], one["seed"]) != (name, seed)] + [row]
            write_text_atomically(file, json.dumps({"summary": summary(rows), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
