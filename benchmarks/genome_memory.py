"""Peak memory of `dna annotate predict` and `dna embed` by the length of the genome.

    python -m benchmarks.genome_memory [--commands annotate embed] [--megabases 2 20 100] [--out FOLDER]

The genome is one record of random bases, the models are tiny and untrained: what is measured is what files,
windows, tokens, genes and tracks take, not the model. Each command runs as from the shell, in a process of
its own, with a window of 1,048,576 bases and on one strand. Peak memory is given with and without the pages
of mapped files, the genome's tokens among them, which the system takes back when it needs them. Rows of other
commands and lengths that the file has stay in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from reformer.bench.machine import describe_machine

WINDOW = 1 << 20
_LETTERS_PER_LINE = 100_000
_SECONDS_BETWEEN_LOOKS = 0.05
_MODEL: dict[str, Any] = {
    "hidden_size": 8,
    "attention_head_size": 8,
    "num_attention_heads": 1,
    "feed_forward_size": 8,
    "attn_layers": ["local"],
    "position_embedding_type": "rotary",
    "is_decoder": False,
}
_CHILD = """
import sys
from reformer.cli import main
from reformer.training.metrics import peak_memory_bytes
code = main(sys.argv[1:])
print("peak", peak_memory_bytes())
sys.exit(code)
"""


def write_genome(path: Path, num_bases: int) -> None:
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(b">chr\n")
        for start in range(0, num_bases, _LETTERS_PER_LINE):
            length = min(_LETTERS_PER_LINE, num_bases - start)
            file.write(np.frombuffer(b"ACGT", np.uint8)[generator.integers(4, size=length)].tobytes() + b"\n")


def write_models(folder: Path) -> dict[str, Path]:
    """A model that labels bases and one that fills in tokens."""
    import torch

    from reformer import ReformerConfig, ReformerForMaskedLM, ReformerForTokenClassification
    from reformer.data.tokenizers import NucleotideTokenizer
    from reformer.genomics.annotation.annotator import AnnotationSettings
    from reformer.genomics.annotation.classes import ClassScheme
    from reformer.genomics.annotation.coding_model import CodingModel
    from reformer.genomics.annotation.grammar import Grammar
    from reformer.genomics.base_encoding import BaseEncoding

    torch.manual_seed(0)
    scheme, encoding = ClassScheme(("CDS",)), BaseEncoding()
    names = dict(enumerate(scheme.names))
    labels = ReformerForTokenClassification(
        ReformerConfig(**_MODEL, vocab_size=encoding.vocab_size, id2label=names)
    )
    noise = np.random.default_rng(0).normal(0.0, 0.2, size=(3, 4**5, 4)).astype(np.float32)
    with torch.no_grad():  # so that probabilities change as seldom as a trained model's, and tracks have runs
        labels.classifier.weight *= 0.05
    labels.save_pretrained(folder / "annotate")
    grammar = Grammar(donor=None)
    AnnotationSettings(scheme, encoding, grammar, CodingModel(noise)).write(folder / "annotate")
    tokenizer = NucleotideTokenizer()
    masked = ReformerForMaskedLM(ReformerConfig(**_MODEL, vocab_size=len(tokenizer)))
    masked.save_pretrained(folder / "embed")
    tokenizer.save_pretrained(folder / "embed")
    return {"annotate": folder / "annotate", "embed": folder / "embed"}


def anonymous_bytes(pid: int) -> int:
    """Memory of a process without files that it maps, of which the system keeps what it has room for.

    0 where the system does not say.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def measure(name: str, megabases: int) -> dict[str, Any]:
    """Runs a command on a genome and says what it took."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, genome = write_models(folder)[name], folder / "genome.fa"
        write_genome(genome, round(megabases * 1e6))
        out = folder / "out"
        commands = {
            "annotate": [
                *("dna", "annotate", "predict", model, genome, "--out", out),
                *("--one-strand", "--window", WINDOW),
            ],
            "embed": ["dna", "embed", model, genome, folder / "out.parquet", "--window", WINDOW],
        }
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        start = time.perf_counter()
        command = [sys.executable, "-c", _CHILD, *map(str, commands[name])]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            anonymous = 0
            while process.poll() is None:
                anonymous = max(anonymous, anonymous_bytes(process.pid))
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            assert process.stdout is not None
            printed = process.stdout.read()
        if process.returncode:
            raise SystemExit(f"{name} did not end well")
        genes = out / "genes.tsv"
        return {
            "command": name,
            "megabases": megabases,
            "peak_memory_bytes": int(printed.split()[-1]),
            "peak_anonymous_bytes": anonymous,
            "seconds": time.perf_counter() - start,
            "genes": len(genes.read_text().splitlines()) - 1 if genes.exists() else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabases", type=float, nargs="+", default=[2, 20, 100])
    parser.add_argument("--commands", nargs="+", default=["annotate", "embed"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in arguments.commands:
        for megabases in arguments.megabases:
            row = measure(name, megabases)
            mib, anonymous = (row[f"peak_{kind}_bytes"] / 2**20 for kind in ("memory", "anonymous"))
            print(
                f"{name:9} {megabases:6g} Mbp  peak {mib:6.0f} MiB, {anonymous:6.0f} of them anonymous  "
                f"{row['seconds']:6.0f} s",
                flush=True,
            )
            rows.append(row | {"machine": describe_machine()})
            write(arguments.out / "genome_memory.json", rows)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows, and those of other commands and lengths that the file has."""
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    keys = [(row["command"], row["megabases"]) for row in rows]
    kept = [row for row in kept if (row["command"], row["megabases"]) not in keys]
    file.write_text(json.dumps({"rows": kept + rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
