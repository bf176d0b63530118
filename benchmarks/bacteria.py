"""Genes of a bacterium, Leptospira kirschneri: `dna annotate` beside pyrodigal, on held-out contigs.

    python -m benchmarks.bacteria [--genbank test.gbk.gz] [--steps 1000] [--seeds 0 1 2] [--out FOLDER]
                                  [CONTENDER ...]

The annotation is that of the Debian package any2fasta-examples, downloaded to a temporary folder where no
file is given. Every fifth contig by length is held out. `reformer` is trained on the others and their genes;
`pyrodigal` is trained on the letters of the same contigs, and `pyrodigal-meta` uses the profiles that come
with it. What counts are whole genes: those of the truth that have a start codon, a stop codon and one piece,
and calls that neither end of a contig cuts off. Calls whose middle lies in a pseudogene, or in a gene that
is not whole, count neither way. Rows of other contenders and seeds that FOLDER/bacteria.json has stay in it;
"summary" is over the seeds of all rows.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.seeds import over_seeds
from reformer.bench.machine import describe_machine
from reformer.training.atomic import write_text_atomically

PACKAGE, MEMBER = "any2fasta-examples", "usr/share/doc/any2fasta/examples/test.gbk.gz"
STARTS, STOPS = ("ATG", "GTG", "TTG"), ("TAA", "TAG", "TGA")  # of genetic code 11
HELD_OUT_EVERY = 5
WINDOW, BATCH = 1024, 4


@dataclass(frozen=True)
class Contig:
    """A record: its name, letters and genes, and its text in the GenBank file."""

    name: str
    letters: str
    genes: tuple[Any, ...]
    text: str


@dataclass(frozen=True)
class Data:
    """Contigs to train on and to test on."""

    train: list[Contig]
    test: list[Contig]

    def facts(self) -> dict[str, Any]:
        """Sizes."""
        return {
            name: {
                "contigs": len(records),
                "bases": sum(len(record.letters) for record in records),
                "genes": sum(len(record.genes) for record in records),
                "whole_genes": len(_split(records)[0]),
            }
            for name, records in (("train", self.train), ("test", self.test))
        }


def download(folder: Path) -> Path:
    """The GenBank file out of the package."""
    subprocess.run(["apt-get", "download", "-qq", PACKAGE], check=True, cwd=folder)
    (package,) = folder.glob(f"{PACKAGE}*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder / MEMBER


def open_data(path: Path) -> Data:
    """Reads the contigs and holds some out."""
    from reformer.genomics.coordinates import Interval
    from reformer.genomics.formats.genbank import read_genbank
    from reformer.genomics.genome import Genome

    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        texts = re.findall(r"^LOCUS.*?^//\n", file.read(), re.MULTILINE | re.DOTALL)
    with Genome(path) as genome:
        records = [
            Contig(
                record.name,
                genome.letters(Interval(record.name, 0, genome.lengths[record.name])),
                record.genes,
                text,
            )
            for record, text in zip(read_genbank(path), texts, strict=True)
        ]
    records.sort(key=lambda record: -len(record.letters))
    is_test = [number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2 for number in range(len(records))]
    train = [record for record, test in zip(records, is_test, strict=True) if not test]
    return Data(train, [record for record, test in zip(records, is_test, strict=True) if test])


def write_genbank(records: Iterable[Contig], path: Path) -> Path:
    """Their text as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(record.text for record in records))
    return path


def _split(records: Iterable[Contig]) -> tuple[list[Any], list[Any]]:
    """Whole coding genes, and intervals of all others that code or once did."""
    from reformer.genomics.genes import spliced

    whole, others = [], []
    for record in records:
        for gene in record.genes:
            coding = [t for t in gene.transcripts if t.cds]
            if not coding:
                continue
            letters = spliced(record.letters.upper(), coding[0].cds, coding[0].strand)
            is_whole = gene.type == "gene" and len(coding[0].cds) == 1 and len(letters) % 3 == 0
            if is_whole and letters[:3] in STARTS and letters[-3:] in STOPS:
                whole.append(gene)
            else:
                others.append(gene.interval)
    return whole, others


def score(data: Data, called: Sequence[Any]) -> dict[str, Any]:
    """Scores of whole genes."""
    from reformer.genomics.annotation.metrics import gene_scores

    whole, others = _split(data.test)

    def counts(gene: Any) -> bool:
        middle, name = (gene.interval.start + gene.interval.end) // 2, gene.interval.sequence
        return not any(other.sequence == name and other.start <= middle < other.end for other in others)

    kept = [gene for gene in called if counts(gene)]
    scores = gene_scores(whole, kept)
    chosen = ("exact stop", "exact start and stop")
    return {"genes_called": len(called), "genes": {name: scores[name].to_json() for name in chosen}}


def reformer(data: Data, seed: int, steps: int, folder: Path) -> tuple[list[Any], dict[str, Any]]:
    """Trains as `dna annotate train` does and calls genes as `dna annotate predict` does."""
    from reformer.genomics.annotation.annotate import annotate_sequence, called_genes
    from reformer.genomics.annotation.annotator import Annotator
    from reformer.genomics.annotation.recipe import load_annotation_recipe
    from reformer.genomics.annotation.training import AnnotationTask
    from reformer.genomics.windows import Windows
    from reformer.training.corpus import open_corpus
    from reformer.training.run import train

    genome = write_genbank(data.train, folder / "train.gbk")
    recipe = load_annotation_recipe(
        None,
        [
            f"data.train=[{json.dumps(str(genome))}]",
            f"data.cache_dir={json.dumps(str(folder / 'cache'))}",
            f"annotation.train=[{json.dumps(str(genome))}]",
            "annotation.kinds=[CDS, RNA]",
            f"annotation.starts=[{', '.join(STARTS)}]",
            f"annotation.stops=[{', '.join(STOPS)}]",
            f"training.lengths=[{{length: {WINDOW}, steps: {steps}, batch_size: {BATCH}}}]",
            f"training.seed={seed}",
            "training.save_every=1000000",
            "training.device=cpu",
            f"output_dir={json.dumps(str(folder / 'run'))}",
        ],
    )
    start = time.process_time()
    result = train(recipe, task=AnnotationTask(recipe))
    trained = time.process_time()
    annotator = Annotator.load(result.folder, "cpu")
    test = write_genbank(data.test, folder / "test.gbk")
    array = open_corpus([test], cache_dir=folder / "cache")
    found = [
        annotate_sequence(annotator, record.name, array.window(record.start, record.length), Windows())
        for record in array.records
    ]
    facts = {
        "parameters": sum(p.numel() for p in annotator.model.parameters()),
        "steps": steps,
        "train_cpu_seconds": trained - start,
        "predict_cpu_seconds": time.process_time() - trained,
        "grammar": annotator.settings.grammar.to_json() if annotator.settings.grammar else None,
    }
    return called_genes(found), facts


def pyrodigal(data: Data, *, meta: bool) -> tuple[list[Any], dict[str, Any]]:
    """Calls genes by pyrodigal, without those that an end of a contig cuts off."""
    import pyrodigal

    start = time.process_time()
    finder = pyrodigal.GeneFinder(meta=meta)
    if not meta:
        first, *others = (record.letters.upper().encode() for record in data.train)
        finder.train(first, *others, translation_table=11)
    trained = time.process_time()
    genes: list[Any] = []
    for record in data.test:
        for call in finder.find_genes(record.letters.upper().encode()):
            if not (call.partial_begin or call.partial_end):
                strand = "+" if call.strand > 0 else "-"
                genes.append(_gene(record.name, call.begin - 1, call.end, strand, len(genes)))
    facts = {
        "version": pyrodigal.__version__,
        "train_cpu_seconds": trained - start,
        "predict_cpu_seconds": time.process_time() - trained,
    }
    return genes, facts


def _gene(sequence: str, start: int, end: int, strand: Any, number: int) -> Any:
    from reformer.genomics.annotation.gene_calls import CalledGene

    return CalledGene(strand, ((start, end),), 0.0).gene(sequence, f"p{number}")


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """F1 of each contender over its seeds."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for what, scores in row["genes"].items():
            found.setdefault(row["contender"], {}).setdefault(what, []).append(scores["f1"])
    return {name: {what: over_seeds(f1) for what, f1 in by.items()} for name, by in found.items()}


CONTENDERS = ("pyrodigal", "pyrodigal-meta", "reformer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--genbank", type=Path, help="test.gbk.gz; downloaded by default")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    file = arguments.out / "bacteria.json"
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    with tempfile.TemporaryDirectory() as temporary:
        data = open_data(arguments.genbank or download(Path(temporary)))
        for name in arguments.contenders or CONTENDERS:
            for seed in arguments.seeds if name == "reformer" else [0]:
                if name == "reformer":
                    called, facts = reformer(data, seed, arguments.steps, Path(temporary) / str(seed))
                else:
                    called, facts = pyrodigal(data, meta=name == "pyrodigal-meta")
                row = {"contender": name, "seed": seed, **facts, **score(data, called)}
                row["machine"] = describe_machine()
                rows = [one for one in rows if (one["contender"], one["seed"]) != (name, seed)] + [row]
                genes = row["genes"]
                print(
                    f"{name:16}" + "  ".join(f"{what} F1 {genes[what]['f1']:.4f}" for what in genes),
                    flush=True,
                )
                results = {"data": data.facts(), "summary": summary(rows), "rows": rows}
                write_text_atomically(file, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
