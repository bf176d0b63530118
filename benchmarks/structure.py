"""Secondary structure from single sequences: a Reformer, the same with local attention alone, a window-CNN.

    apt-get download python3-prody-tests && dpkg-deb -x python3-prody-tests_*.deb prody
    pip download --no-deps --no-binary biopython biopython==1.88 && tar -xf biopython-1.88.tar.gz
    python -m benchmarks.structure prody biopython-1.88/Tests/PDB [--folds 5] [--seeds 0 1 2] [--out FOLDER]

Cross-validation over all protein chains of the folders, but for those at least 90 % identical to a longer
one: chains of one cluster (25 % identity, single linkage) are in one fold. Labels are DSSP's, of the
coordinates: Q3 is the mean over chains of the share of residues that a model of 3 classes has right, Q8 that
of a model of 8, trained by itself. The set is small, about a hundred chains, two thirds of them of one
ribosome: differences of one or two hundredths mean nothing. All contenders read the same batches for the same
steps of `structure.yaml`, on one thread, and the weights of the last step are tested: nothing is chosen by
test chains. In the batches some residues are read as others (`structure.substitution`); "CNN, unaltered" is
the window-CNN trained on the residues as they are. The recipe was chosen on chains held out of the training
chains of the folds of seed 0, but each of these is a test chain of another fold: no figure is wholly blind to
the choice. "majority" says the most frequent class of the training chains. What FOLDER/structure.json has
already is not measured again.
"""

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from reformer.bench.machine import describe_machine

Build = Callable[[int, str], Any]
"""Makes a model of so many tokens whose classes have these letters."""


def reformer(attn_layers: Sequence[str] | None = None) -> Build:
    """The model of the recipe that comes with the library, or with other attention layers."""

    def build(vocab_size: int, letters: str) -> Any:
        import yaml

        from reformer import ReformerConfig, ReformerForTokenClassification

        recipe = files("reformer.genomics.structure") / "structure.yaml"
        fields = yaml.safe_load(recipe.read_text())["model"]
        fields |= {"attn_layers": list(attn_layers)} if attn_layers else {}
        config = ReformerConfig(
            **fields, vocab_size=vocab_size, pad_token_id=0, id2label=dict(enumerate(letters))
        )
        return ReformerForTokenClassification(config)

    return build


def cnn(vocab_size: int, letters: str) -> Any:
    """Three convolutions, which see 31 residues."""
    import torch
    from torch import nn

    class WindowCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocab_size, 64, padding_idx=0)
            self.body = nn.Sequential(
                *(
                    layer
                    for _ in range(3)
                    for layer in (nn.Conv1d(64, 64, 11, padding=5), nn.GELU(), nn.Dropout(0.2))
                )
            )
            self.classifier = nn.Linear(64, len(letters))
            self.config = SimpleNamespace(id2label=dict(enumerate(letters)), num_labels=len(letters))
            self.device = torch.device("cpu")

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            x = self.body(self.embedding(input_ids).mT).mT
            return SimpleNamespace(logits=self.classifier(x))

    return WindowCNN()


TRAINED: dict[str, Build] = {
    "reformer": reformer(),
    "local only": reformer(["local"] * 4),
    "window-CNN": cnn,
    "CNN, unaltered": cnn,
}


def folds_of(cluster_of: Sequence[int], num_folds: int, seed: int) -> list[set[int]]:
    """Chains by fold: clusters in a drawn order, each to the fold that has the fewest chains."""
    folds: list[set[int]] = [set() for _ in range(num_folds)]
    clusters = np.unique(cluster_of)
    for cluster in np.random.default_rng(seed).permutation(clusters):
        members = [number for number, one in enumerate(cluster_of) if one == cluster]
        min(folds, key=len).update(members)
    return folds


def split(data: Any, num_folds: int, seed: int, identity: float) -> Iterator[Any]:
    """The data of each fold, its chains held out under the name "test"."""
    from reformer.data.tokenizers import tokenizer_for
    from reformer.genomics.structure.protein_clusters import clusters

    tokenizer, records = tokenizer_for(data.train), list(data.train.records)
    proteins = [str(tokenizer.decode(data.train.window(r.start, r.length))) for r in records]
    for fold in folds_of(clusters(proteins, identity), num_folds, seed):
        test = data.train.select([r for number, r in enumerate(records) if number in fold])
        train = data.train.select([r for number, r in enumerate(records) if number not in fold])
        yield replace(data, train=train, held_out={"test": test})


def train(build: Build, data: Any, recipe: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    """Trains as the recipe says; returns the model and what it took."""
    import torch
    from torch.nn import functional as F

    from reformer.genomics.structure.training import StructureBatches

    torch.manual_seed(seed)
    training = recipe.training
    model = build(len(data.train.vocabulary), recipe.structure.letters).train()
    substitution = recipe.structure.substitution
    batches = StructureBatches(data, training.lengths, seed, 1, substitution=substitution)
    optimizer = torch.optim.AdamW(
        model.parameters(), training.learning_rate, weight_decay=training.weight_decay
    )
    start = time.process_time()
    for step in range(training.num_steps):
        for group in optimizer.param_groups:
            falling = 0.5 + 0.5 * math.cos(math.pi * step / training.num_steps)
            group["lr"] = training.learning_rate * min(1.0, (step + 1) / training.warmup_steps) * falling
        batch = batches[step]
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_grad_norm)
        optimizer.step()
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "train_loss_nats": loss.item(),
        "train_cpu_seconds": time.process_time() - start,
    }
    return model.eval(), facts


def evaluate(model: Any, data: Any) -> list[Any]:
    from reformer.genomics.structure.predictor import StructurePredictor
    from reformer.genomics.structure.training import evaluate_chains

    return evaluate_chains(StructurePredictor(model), data, "test")[1]


def majority(data: Any, letters: str) -> list[Any]:
    from reformer.genomics.structure.data import NO_LABEL
    from reformer.genomics.structure.metrics import ChainResult

    def labels(array: Any) -> list[Any]:
        found = [data.labels[r.start : r.start + r.length] for r in array.records]
        return [one[one != NO_LABEL] for one in found]

    most = letters[np.bincount(np.concatenate(labels(data.train))).argmax()]
    names = [record.name for record in data.held_out["test"].records]
    return [
        ChainResult(name, "".join(letters[n] for n in one), most * len(one))
        for name, one in zip(names, labels(data.held_out["test"]), strict=True)
    ]


def measure(name: str, data: Any, recipe: Any, seed: int) -> tuple[float, dict[str, Any]]:
    """Q3 or Q8 of a contender on the chains of one fold, as the recipe has classes, and what it took."""
    from reformer.genomics.structure.metrics import accuracy_by_chain

    section, facts = recipe.structure, dict[str, Any]()
    if name == "majority":
        results = majority(data, section.letters)
    else:
        if name == "CNN, unaltered":
            unaltered = section.model_copy(update={"substitution": 0.0})
            recipe = recipe.model_copy(update={"structure": unaltered})
        model, facts = train(TRAINED[name], data, recipe, seed)
        results = evaluate(model, data)
    return accuracy_by_chain(results, section.classes), {"chains": len(results), **facts}


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """For each figure and contender, its mean over the chains of the folds on which all have been tested.

    Behind it are the means of the seeds one by one: how much of a difference is chance.
    """
    names = list(dict.fromkeys(row["contender"] for row in rows))
    lines = []
    for figure in ("q3_by_chain", "q8_by_chain"):
        own = {name: [row for row in rows if row["contender"] == name and figure in row] for name in names}
        own = {name: found for name, found in own.items() if found}
        done = [{(row["seed"], row["fold"]) for row in found} for found in own.values()]
        common = set.intersection(*done) if done else set()
        lines.append(f"{figure[:2].upper()} of {len(common)} folds")
        for name, found in own.items() if common else ():
            chosen = [row for row in found if (row["seed"], row["fold"]) in common]
            seeds = sorted({row["seed"] for row in chosen})
            figures = (_mean([row for row in chosen if row["seed"] == seed], figure) for seed in seeds)
            by_seed = ", ".join(f"{mean:.4f}" for mean in figures)
            lines.append(f"{name:14} {_mean(chosen, figure):.4f}, by seed {by_seed}")
    return lines


def _mean(rows: list[dict[str, Any]], figure: str) -> float:
    return float(np.average([row[figure] for row in rows], weights=[row["chains"] for row in rows]))


def open_data(structures: Sequence[str], classes: int, cache: str) -> tuple[Any, Any]:
    """The recipe of the library for so many classes, and all chains of the folders."""
    from reformer.genomics.structure.data import StructureData
    from reformer.genomics.structure.recipe import load_structure_recipe

    values = {
        "data.train": structures,
        "data.cache_dir": cache,
        "structure.classes": classes,
        "structure.validation": 0,
        "structure.test": 0,
    }
    recipe = load_structure_recipe(None, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    return recipe, StructureData.of(recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    contenders = ["majority", *TRAINED]
    parser.add_argument("structures", nargs="+", help="folders of PDB and mmCIF files")
    parser.add_argument("--contenders", nargs="+", choices=contenders, default=contenders)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of folds, weights and batches"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "structure.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    with tempfile.TemporaryDirectory() as cache:
        (recipe, data), (recipe_8, data_8) = (open_data(arguments.structures, n, cache) for n in (3, 8))
        identity = recipe.structure.identity
        facts = {
            "chains": len(data.train.records),
            "residues": len(data.train),
            "identity": identity,
            "folds": arguments.folds,
        }
        for seed in arguments.seeds:
            folds = zip(*(split(one, arguments.folds, seed, identity) for one in (data, data_8)), strict=True)
            for (number, (fold, fold_8)), name in itertools.product(enumerate(folds), arguments.contenders):
                key = {"contender": name, "seed": seed, "fold": number}
                row = next((row for row in rows if row.items() >= key.items()), key)
                if row is key:
                    rows.append(row)
                for figure, one, own in (("q3_by_chain", fold, recipe), ("q8_by_chain", fold_8, recipe_8)):
                    if figure not in row:
                        row[figure], facts_of_it = measure(name, one, own, seed)
                        row |= facts_of_it | row
                        content = {"machine": describe_machine(), "data": facts, "rows": rows}
                        file.write_text(json.dumps(content, indent=1) + "\n")
                        print(f"seed {seed}, fold {number}: {name:14} {figure} {row[figure]:.4f}", flush=True)
    print("\n".join(summary([row for row in rows if row["contender"] in arguments.contenders])))


if __name__ == "__main__":
    main()
