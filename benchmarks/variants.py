"""Do variant scores tell what breaks a gene from what does not? 1,000 synthetic variants of yeast.

    python -m benchmarks.variants [--models genes bases] [--steps 300] [--out benchmarks/results]

Both kinds of models that `reformer dna score` takes are trained for some minutes on chromosome 1 of *S.
mikatae* and *S. kudriavzevii* and score variants of *S. cerevisiae* chromosome I, which neither has seen.
"genes" is `reformer dna annotate train` as its packaged recipe has it; "bases", a small causal language model
of `reformer train`. AUROC: the probability that a variant of the one class has a lower score than one of the
other, with a 95 % interval from bootstrap resampling of the variants. Insertions and deletions differ from
substitutions in more than what they do to a gene, so the classes are also compared one by one. Scoring runs
twice, and the files must be the same; pysam reads them, and bcftools where it is installed. Models that
FOLDER/variants.json has and that do not run again stay in it.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pysam
import yaml

from benchmarks.variant_classes import SyntheticVariant, VariantMaker, write_vcf
from reformer.bench.machine import describe_machine
from reformer.cli import main as reformer
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import read_genes
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


def train_bases(folder: Path, steps: int, seed: int) -> dict[str, Any]:
    """Trains a language model; what it cost, and how well it predicts the genome that is scored."""
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
    run("train", folder / "recipe.yaml")
    (evaluation,) = [line for line in read_metrics(folder / "run" / "metrics.jsonl") if "eval" in line]
    return {
        "model": MODEL,
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


MODELS = {"genes": (train_genes, "REFORMER_GENE_LLR"), "bases": (train_bases, "REFORMER_LLR")}


def run(*arguments: str | Path) -> None:
    """Runs `reformer ARGUMENTS` in this process."""
    if reformer(list(map(str, arguments))):
        raise SystemExit(f"reformer {' '.join(map(str, arguments))} did not end well")


def trained(name: str, folder: Path, steps: int, seed: int) -> dict[str, Any]:
    about = MODELS[name][0](folder, steps, seed)
    last = [line for line in read_metrics(folder / "run" / "metrics.jsonl") if "loss" in line][-1]
    return about | {"seconds": round(last["seconds"], 1), "tokens": last["tokens"]}


def score(folder: Path, field: str, seed: int) -> tuple[dict[str, npt.NDArray], dict[str, Any]]:
    """Makes variants and scores them: the scores of each class, and what it took."""
    genes = read_genes(yeast_file(ANNOTATION))
    with Genome(yeast_file(GENOME)) as genome:
        ((name, length),) = genome.lengths.items()
        letters = genome.letters(Interval(name, 0, length)).upper()
    variants = VariantMaker(letters, genes, seed).draw(NUMBERS)
    write_vcf(folder / "v.vcf", name, length, variants)
    outs, start = [folder / "1.vcf.gz", folder / "2.vcf.gz"], time.process_time()
    for out in outs:
        run("dna", "score", folder / "run", folder / "v.vcf", yeast_file(GENOME), out)
    seconds = (time.process_time() - start) / len(outs)
    scores: dict[str, list[float]] = {kind: [] for kind in NUMBERS}
    with pysam.VariantFile(str(outs[0])) as file:
        for record in file:
            scores[record.info["KIND"].replace("_", " ")].append(record.info[field][0])
    about = {
        "variants": sum(map(len, scores.values())),
        "cpu_seconds": round(seconds, 1),
        "twice_the_same_file": outs[0].read_bytes() == outs[1].read_bytes(),
        "read_by_bcftools": _num_read_by_bcftools(outs[0], field),
        "wrong_ref_reported": _num_wrong_reported(folder, name, length, variants[::100]),
        "wrong_ref": len(variants[::100]),
    }
    return {kind: np.array(values) for kind, values in scores.items()}, about


def _num_read_by_bcftools(path: Path, field: str) -> int | None:
    """Variants in which bcftools finds a score; None where it is not installed."""
    if shutil.which("bcftools") is None:
        return None
    command = ["bcftools", "query", "-i", f'INFO/{field}!="."', "-f", f"%POS %{field}\n", str(path)]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def _num_wrong_reported(folder: Path, name: str, length: int, variants: list[SyntheticVariant]) -> int:
    """How many variants are marked once REF is another base than the genome's."""
    wrong = [replace(v, reference="ACGT"["TGCA".index(v.reference[0])] + v.reference[1:]) for v in variants]
    write_vcf(folder / "wrong.vcf", name, length, wrong)
    out = folder / "wrong.vcf.gz"
    files = [folder / "wrong.vcf", yeast_file(GENOME), out]
    run("dna", "score", folder / "run", *files, "--on-mismatch", "filter")
    with pysam.VariantFile(str(out)) as file:
        return sum("REF_MISMATCH" in record.filter for record in file)


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


def measure(name: str, steps: int, seed: int) -> dict[str, Any]:
    """Trains, scores and compares."""
    with tempfile.TemporaryDirectory(prefix="reformer-variants-") as folder:
        training = trained(name, Path(folder), steps, seed)
        scores, scoring = score(Path(folder), MODELS[name][1], seed)
    return {
        "machine": describe_machine(),
        "training": training,
        "scoring": scoring,
        "median_score": {kind: round(float(np.median(values)), 3) for kind, values in scores.items()},
        "comparisons": {
            title: compare(_together(scores, lower), _together(scores, higher), seed)
            for title, (lower, higher) in COMPARISONS.items()
        },
    }


def main() -> None:
    """Measure, print and write `variants.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--steps", type=int, default=300, help="of the language model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "variants.json"
    for name in options.models:
        found = measure(name, options.steps, options.seed)
        for title, compared in found["comparisons"].items():
            low, high = compared["interval_95"]
            print(f"{name}: AUROC {compared['auroc']:.3f} ({low:.3f} to {high:.3f})  {title}", flush=True)
        print(f"{name}: {found['scoring']}", flush=True)
        kept = json.loads(file.read_text()) if file.exists() else {}
        results = {model: kept[model] for model in MODELS if model in kept} | {name: found}
        write_text_atomically(file, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
