"""Peak memory of `dna annotate predict` and `dna embed` by the length of the genome.

    python -m benchmarks.genome_memory [--cases annotate embed packaged] [--megabases 2 20] [--out FOLDER]

The genome is random bases, the models are untrained. "annotate" and "embed" have one record and a tiny model
and read one strand: what is measured is what files, windows, tokens, genes and tracks take, not the model.
"packaged" is `dna annotate predict` with the model, classes and tokens of the recipe that comes with it, on
both strands, of 1,000 contigs. Each command runs as from the shell, in a process of its own, with a window of
1,048,576 bases. Peak memory is given with and without the pages of mapped files, the genome's tokens among
them, which the system takes back when it needs them. Rows of other cases and lengths that the file has stay
in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reformer.bench.machine import describe_machine
from reformer.training.atomic import write_text_atomically

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


@dataclass(frozen=True)
class Case:
    """What is measured: a command, with how many records and strands."""

    command: str
    contigs: int
    strands: int


CASES = {
    "annotate": Case("annotate", 1, 1),
    "embed": Case("embed", 1, 1),
    "packaged": Case("annotate", 1000, 2),
}
_CHILD = """
import sys
from reformer.cli import main
from reformer.training.metrics import peak_memory_bytes
code = main(sys.argv[1:])
print("peak", peak_memory_bytes())
sys.exit(code)
"""


def write_genome(path: Path, num_bases: int, num_contigs: int) -> None:
    """Random bases, cut into contigs at random places: most are short, a few are long."""
    generator = np.random.default_rng(0)
    cuts = np.sort(generator.choice(np.arange(1, num_bases), num_contigs - 1, replace=False))
    with path.open("wb") as file:
        for number, contig in enumerate(np.diff([0, *cuts.tolist(), num_bases]).tolist()):
            file.write(b">contig%d\n" % number)
            for start in range(0, contig, _LETTERS_PER_LINE):
                codes = generator.integers(4, size=min(_LETTERS_PER_LINE, contig - start))
                file.write(np.frombuffer(b"ACGT", np.uint8)[codes].tobytes() + b"\n")


def write_model(name: str, folder: Path) -> None:
    """The model of a case: one that labels bases or one that fills in tokens."""
    import torch

    from reformer import ReformerConfig, ReformerForMaskedLM
    from reformer.data.tokenizers import NucleotideTokenizer
    from reformer.genomics.annotation.classes import ClassScheme
    from reformer.genomics.annotation.grammar import Grammar
    from reformer.genomics.annotation.recipe import load_annotation_recipe
    from reformer.genomics.base_encoding import BaseEncoding

    torch.manual_seed(0)
    if name == "annotate":
        _write_annotator(folder, ClassScheme(("CDS",)), BaseEncoding(), Grammar(donor=None), _MODEL)
    elif name == "packaged":
        recipe = load_annotation_recipe(None)
        sizes = recipe.model | {"is_decoder": recipe.is_decoder}
        _write_annotator(folder, recipe.scheme, recipe.encoding, Grammar(), sizes)
    else:
        tokenizer = NucleotideTokenizer()
        ReformerForMaskedLM(ReformerConfig(**_MODEL, vocab_size=len(tokenizer))).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _write_annotator(folder: Path, scheme: Any, encoding: Any, grammar: Any, sizes: dict[str, Any]) -> None:
    import torch

    from reformer import ReformerConfig, ReformerForTokenClassification
    from reformer.genomics.annotation.annotator import AnnotationSettings
    from reformer.genomics.annotation.coding_model import CodingModel

    config = ReformerConfig(**sizes, vocab_size=encoding.vocab_size, id2label=dict(enumerate(scheme.names)))
    model = ReformerForTokenClassification(config)
    noise = np.random.default_rng(0).normal(0.0, 0.2, size=(3, 4**5, 4)).astype(np.float32)
    with torch.no_grad():  # so that probabilities change as seldom as a trained model's, and tracks have runs
        model.classifier.weight *= 0.05
    model.save_pretrained(folder)
    AnnotationSettings(scheme, encoding, grammar, CodingModel(noise)).write(folder)


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


def measure(name: str, megabases: float) -> dict[str, Any]:
    """Runs the command of a case on a genome and says what it took."""
    case = CASES[name]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model, genome, out = folder / "model", folder / "genome.fa", folder / "out"
        write_model(name, model)
        write_genome(genome, round(megabases * 1e6), case.contigs)
        arguments: dict[str, list[str | int | Path]] = {
            "annotate": ["dna", "annotate", "predict", model, genome, "--out", out, "--window", WINDOW],
            "embed": ["dna", "embed", model, genome, folder / "out.parquet", "--window", WINDOW],
        }
        one_strand = ["--one-strand"] if case.command == "annotate" and case.strands == 1 else []
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        start = time.perf_counter()
        command = [sys.executable, "-c", _CHILD, *map(str, arguments[case.command]), *one_strand]
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
            "case": name,
            **asdict(case),
            "megabases": megabases,
            "peak_memory_bytes": int(printed.split()[-1]),
            "peak_anonymous_bytes": anonymous,
            "seconds": time.perf_counter() - start,
            "genes": len(genes.read_text().splitlines()) - 1 if genes.exists() else None,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--megabases", type=float, nargs="+", default=[2, 20])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for name in arguments.cases:
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
    """Writes rows, and those of other cases and lengths that the file has."""
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    keys = [(row["case"], row["megabases"]) for row in rows]
    kept = [row for row in kept if (row["case"], row["megabases"]) not in keys]
    write_text_atomically(file, json.dumps({"rows": kept + rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
