"""What genes are for: `dna classify` on a bacterium, next to k-mers, a CNN and the most frequent class.

    apt-get download any2fasta-examples && dpkg-deb -x any2fasta-examples_*.deb any2fasta
    python -m benchmarks.function [--genbank any2fasta/.../test.gbk.gz] [--seeds 0 1 2] [--out FOLDER]

The genes are those of Debian's any2fasta-examples, *Leptospira kirschneri*; their classes follow from words
of their products (`CLASSES`), and genes of no class or of two are left out, pseudogenes too. A seed deals the
contigs: those with a fifth of the genes are for testing, with a tenth for choosing (the best step, the
temperature, the length of k-mers), and the rest for training. Paralogs are not kept apart: a transposase of a
test contig may have near copies in training, as it would have in a new genome.

The Reformer is trained by `reformer dna classify train` itself, with the recipe of the library but for
`SETTINGS`. The CNN (about 264K parameters: four convolutions over 15 bases, and the mean) reads the same
batches, from the first one again when they are over, for the CPU time that the Reformer of the seed took,
evaluations included. "k-mers" is multinomial naive Bayes of the counts of k-mers, k of 2 to 6. All on one
thread. Rows of other seeds that FOLDER/function.json has stay in it.
"""

import argparse
import json
import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.bacteria import download
from reformer.bench.machine import describe_machine

CLASSES = {
    "hydrolase": r"hydrolase|protease|peptidase|phosphatase|lipase|esterase|nuclease|amidase",
    "oxidoreductase": r"dehydrogenase|reductase|oxidase|oxygenase",
    "regulator": r"regulator|repressor|sigma factor|sensor|histidine kinase",
    "ribosome and tRNA": r"ribosomal protein|ribosomal subunit|tRNA",
    "synthase or ligase": r"synthase|synthetase|ligase",
    "transferase": r"transferase",
    "transporter": r"transporter|permease|efflux|porin|TonB|symporter|antiporter|secretion",
    "transposase": r"transposase|integrase",
}
SETTINGS = (
    "classification.folds=0",
    "model.attn_layers=[local, lsh]",
    "training.lengths=[{length: 256, steps: 400, batch_size: 8}]",
    "training.warmup_steps=30",
    "training.eval_every=200",
    "training.device=cpu",
)
CONTENDERS = ("majority", "k-mers", "reformer", "cnn")
SHARES = {"test": 0.2, "validation": 0.1}
CNN_WIDTH, CNN_LEARNING_RATE, CNN_DROPOUT, CNN_EVALUATIONS = 64, 1e-3, 0.2, 2


@dataclass(frozen=True)
class Gene:
    """A coding sequence with its class."""

    name: str
    contig: str
    letters: str
    label: str


def read_genes(path: Path) -> list[Gene]:
    """The genes of a GenBank file whose products are of one class."""
    from reformer.genomics.formats.genbank import read_genbank
    from reformer.genomics.genome import Genome

    genes: list[Gene] = []
    with Genome(path) as genome:
        for record in read_genbank(path):
            for feature in record.features:
                product = " ".join(feature.qualifiers.get("product", ()))
                found = [name for name, words in CLASSES.items() if re.search(words, product, re.IGNORECASE)]
                if feature.type == "CDS" and "pseudo" not in feature.qualifiers and len(found) == 1:
                    letters = "".join(map(genome.letters, feature.pieces))
                    genes.append(Gene(f"g{len(genes)}", feature.pieces[0].sequence, letters, found[0]))
    return genes


def deal(genes: list[Gene], seed: int) -> dict[str, list[Gene]]:
    """Genes by part; all of a contig are in one part."""
    contigs, counts = sorted({gene.contig for gene in genes}), Counter(gene.contig for gene in genes)
    part_of, num = {}, dict.fromkeys(SHARES, 0)
    for place in np.random.default_rng(seed).permutation(len(contigs)):
        contig = contigs[place]
        full = {part: num[part] + counts[contig] > share * len(genes) for part, share in SHARES.items()}
        part_of[contig] = next((part for part in SHARES if not full[part]), "train")
        if part_of[contig] in num:
            num[part_of[contig]] += counts[contig]
    return {part: [gene for gene in genes if part_of[gene.contig] == part] for part in ("train", *SHARES)}


def write(parts: Mapping[str, list[Gene]], folder: Path) -> None:
    """FASTA and labels of each part."""
    for part, genes in parts.items():
        (folder / f"{part}.fa").write_text("".join(f">{gene.name}\n{gene.letters}\n" for gene in genes))
        (folder / f"{part}.tsv").write_text("".join(f"{gene.name}\t{gene.label}\n" for gene in genes))


def recipe_of(folder: Path, seed: int) -> Any:
    """The recipe of the library for the files of a folder."""
    from reformer.genomics.classification.recipe import load_classification_recipe

    def files(ending: str) -> dict[str, Any]:
        named = {part: [str(folder / f"{part}.{ending}")] for part in SHARES}
        return {"train": [str(folder / f"train.{ending}")], "eval": named}

    values = {
        **{f"data.{key}": value for key, value in files("fa").items()},
        **{f"classification.{key}": value for key, value in files("tsv").items()},
        "data.cache_dir": str(folder / "cache"),
        "training.seed": seed,
        "output_dir": str(folder / "run"),
    }
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_classification_recipe(None, [*given, *SETTINGS])


def reformer(recipe: Any) -> tuple[Any, dict[str, Any]]:
    """The figures of the run's test part, as its `scores.json` has them, and what training took."""
    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.classification.command import train_classifier

    start = time.process_time()
    result = train_classifier(recipe)
    seconds = time.process_time() - start
    scores = json.loads((result.folder / "scores.json").read_text())["test"]
    model = Classifier.load(result.folder, "cpu").model
    return scores, {"parameters": sum(p.numel() for p in model.parameters()), "train_cpu_seconds": seconds}


def cnn(recipe: Any, seconds: float) -> tuple[Any, dict[str, Any]]:
    """The same of the CNN, trained for so many seconds of CPU time and kept where validation was best."""
    import torch
    from torch.nn import functional as F

    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.classification.metrics import fit_temperature
    from reformer.genomics.classification.training import ClassificationTask

    start = time.process_time()
    task = ClassificationTask(recipe)
    data = task.open_data(recipe)
    batches = task.batches(recipe, data, 1)
    torch.manual_seed(recipe.training.seed)
    model = _cnn(recipe.encoding.vocab_size, len(data.settings.classes))
    optimizer = torch.optim.AdamW(model.parameters(), CNN_LEARNING_RATE, weight_decay=0.01)
    settings, step = data.settings, 0
    best: tuple[float, dict[str, Any], float] = math.inf, {}, 1.0
    for evaluation in range(1, CNN_EVALUATIONS + 1):
        model.train()
        while (done := (time.process_time() - start) / seconds) < evaluation / CNN_EVALUATIONS:
            for group in optimizer.param_groups:
                group["lr"] = (
                    CNN_LEARNING_RATE * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * done))
                )
            batch = batches[step % len(batches)]
            labels = batch.pop("labels")
            loss = F.cross_entropy(model(**batch).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
        classifier = Classifier(model.eval(), settings)
        logits = classifier.logits(data.held_out["validation"])
        _, found = settings.scored(logits, data.targets["eval.validation"])
        if found.nats() < best[0]:
            weights = {name: value.clone() for name, value in model.state_dict().items()}
            best = found.nats(), weights, fit_temperature(logits, data.targets["eval.validation"])
    model.load_state_dict(best[1])
    logits = Classifier(model, settings).logits(data.held_out["test"])
    scored, _ = replace(settings, temperature=best[2]).scored(logits, data.targets["eval.test"])
    took = {"parameters": sum(p.numel() for p in model.parameters()), "steps": step}
    return scored.to_json(), {**took, "train_cpu_seconds": time.process_time() - start}


def _cnn(vocab_size: int, num_classes: int) -> Any:
    from torch import nn

    class CNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, CNN_WIDTH)
            layers = [(nn.Conv1d(CNN_WIDTH, CNN_WIDTH, 15, padding=7), nn.GELU()) for _ in range(4)]
            self.body = nn.Sequential(*(layer for pair in layers for layer in pair))
            self.head = nn.Sequential(nn.Dropout(CNN_DROPOUT), nn.Linear(CNN_WIDTH, num_classes))

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            x = self.body(self.embedding(input_ids).mT)
            if attention_mask is None:
                return SimpleNamespace(logits=self.head(x.mean(2)))
            real = attention_mask[:, None].to(x.dtype)
            return SimpleNamespace(logits=self.head((x * real).sum(2) / real.sum(2)))

    return CNN()


def kmers(parts: Mapping[str, list[Gene]]) -> tuple[Any, dict[str, Any]]:
    """Multinomial naive Bayes of k-mers; k, what is added to each count, and a temperature by validation."""
    from reformer.genomics.classification.metrics import fit_temperature

    start = time.process_time()
    classes = tuple(sorted({gene.label for gene in parts["train"]}))
    labels = {part: np.array([classes.index(gene.label) for gene in own]) for part, own in parts.items()}

    def logits(part: str, k: int, added: float) -> Any:
        counts = _counts(parts["train"], k)
        of_class = np.stack([counts[labels["train"] == n].sum(axis=0) + added for n in range(len(classes))])
        shares = of_class / of_class.sum(axis=1, keepdims=True)
        return _counts(parts[part], k) @ np.log(shares).T + np.log(np.bincount(labels["train"]))

    choices = [(k, added) for k in range(2, 7) for added in (0.1, 1.0)]
    found = {one: _scored(classes, labels["validation"], logits("validation", *one)) for one in choices}
    best = max(choices, key=lambda one: found[one].macro_f1())
    temperature = fit_temperature(logits("validation", *best), labels["validation"])
    scored = _scored(classes, labels["test"], logits("test", *best) / temperature)
    k, added = best
    return scored.to_json(), {"k": k, "added": added, "train_cpu_seconds": time.process_time() - start}


def majority(parts: Mapping[str, list[Gene]]) -> tuple[Any, dict[str, Any]]:
    """The shares of the classes in training for every gene."""
    classes = tuple(sorted({gene.label for gene in parts["train"]}))
    counts = Counter(gene.label for gene in parts["train"])
    labels = np.array([classes.index(gene.label) for gene in parts["test"]])
    logits = np.log([counts[name] for name in classes])
    return _scored(classes, labels, np.tile(logits, (len(labels), 1))).to_json(), {}


def _scored(classes: tuple[str, ...], labels: Any, logits: Any) -> Any:
    from reformer.genomics.classification.metrics import OneLabel, softmax

    return OneLabel(classes, labels, softmax(logits))


def _counts(genes: list[Gene], k: int) -> Any:
    counts = np.zeros((len(genes), 4**k))
    for row, gene in enumerate(genes):
        bases = np.array(["ACGT".find(letter) for letter in gene.letters.upper()])
        windows = np.lib.stride_tricks.sliding_window_view(bases, k)
        windows = windows[(windows >= 0).all(axis=1)]
        np.add.at(counts[row], windows @ 4 ** np.arange(k), 1)
    return counts


def measure(
    name: str, parts: Mapping[str, list[Gene]], folder: Path, seed: int, rows: list[dict[str, Any]]
) -> tuple[Any, dict[str, Any]]:
    """The figures of a contender on the test part, and what it took."""
    if name in ("majority", "k-mers"):
        return (majority if name == "majority" else kmers)(parts)
    recipe = recipe_of(folder, seed)
    if name == "reformer":
        return reformer(recipe)
    own = next(row for row in rows if (row["contender"], row["seed"]) == ("reformer", seed))
    return cnn(recipe, own["train_cpu_seconds"])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the seeds of what each contender reaches."""
    found = {}
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        figures = ("accuracy", "macro_f1", "nats", "expected_calibration_error")
        found[name] = {"seeds": len(own)} | {
            key: float(np.mean([row[key] for row in own])) for key in figures
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--genbank", type=Path, help="test.gbk.gz; downloaded by default")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of contigs, weights and batches"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "function.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        genes = read_genes(arguments.genbank or download(Path(temporary)))
        facts = {"genes": len(genes), "classes": Counter(gene.label for gene in genes)}
        for seed in arguments.seeds:
            folder = Path(temporary) / str(seed)
            folder.mkdir()
            parts = deal(genes, seed)
            write(parts, folder)
            for name in CONTENDERS:
                scores, took = measure(name, parts, folder, seed, rows)
                key = {"contender": name, "seed": seed}
                rows = [row for row in rows if not row.items() >= key.items()]
                rows.append({**key, **took, "train": len(parts["train"]), **scores})
                figures = f"accuracy {scores['accuracy']:.4f}, macro F1 {scores['macro_f1']:.4f}"
                print(f"seed {seed}: {name:10} {figures}", flush=True)
                content = {
                    "machine": describe_machine(),
                    "data": facts,
                    "summary": summary(rows),
                    "rows": rows,
                }
                file.write_text(json.dumps(content, indent=1) + "\n")
    for name, found in summary(rows).items():
        print(f"{name:10} accuracy {found['accuracy']:.4f}, macro F1 {found['macro_f1']:.4f}")


if __name__ == "__main__":
    main()
