"""What `reformer dna annotate predict` does: files in, a folder with files, scores and a report out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.annotation.annotate import (
    GENES_FILE,
    TRACKS,
    AnnotatedRecord,
    annotate_genome,
    called_genes,
    called_rna_genes,
)
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.annotation.classes import ClassScheme, Labels, paint_labels
from reformer.genomics.annotation.data import LabelledSequences, record_views
from reformer.genomics.annotation.metrics import ClassCounts, gene_scores, rna_gene_scores
from reformer.genomics.annotation.report import Found, Region, Scores, write_annotation_report
from reformer.genomics.base_encoding import known_bases
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene
from reformer.genomics.plotted import shown_region
from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
from reformer.genomics.windows import Windows
from reformer.training.atomic import atomic_folder, write_text_atomically

if TYPE_CHECKING:
    from reformer.data.tokens import Record, TokenArray

REPORT_FILE, SCORES_FILE = "report.html", "scores.json"


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        windows: how long records are cut.
        both_strands: average over both strands.
        open_ends: call genes that the ends of records cut off.
        tracks: write bigWig.
        region: what the plot shows, "NAME:FIRST-LAST"; None for the middle of the longest record.
        genes: the true annotation, or None.
    """

    windows: Windows
    both_strands: bool = True
    open_ends: bool = True
    tracks: bool = True
    region: str | None = None
    genes: Path | None = None


class _Keeper:
    """Keeps of the probabilities what scores and plot need: a label for each base, and those of a region.

    Without a truth there are no scores and no labels, so that memory does not grow with the genome.
    """

    def __init__(self, num_bases: int, num_classes: int, region: Interval) -> None:
        self.labels: Labels = np.zeros(num_bases, dtype=np.uint8)
        self.region = Region(region, np.zeros((len(region), num_classes), dtype=np.float32))

    def take(self, record: Record, start: int, probabilities: npt.NDArray[np.float32]) -> None:
        end, region = start + len(probabilities), self.region.interval
        if len(self.labels):
            self.labels[record.start + start : record.start + end] = probabilities.argmax(axis=1)
        low, high = max(start, region.start), min(end, region.end)
        if record.name == region.sequence and low < high:
            self.region.probabilities[low - region.start : high - region.start] = probabilities[
                low - start : high - start
            ]


def annotate(model: Path, genome: Path, out: Path, options: Options, device: str = "auto") -> list[str]:
    """Annotates a genome and reports.

    Returns:
        Lines that say what was found and where it is.

    Raises:
        UserError: for whatever is wrong with a file or the region.
    """
    from reformer.training.corpus import open_corpus
    from reformer.training.metrics import peak_memory_bytes
    from reformer.training.progress import progress_bar

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty: expected a folder to make")
    annotator = Annotator.load(model, device)
    scheme = annotator.settings.scheme
    array = open_corpus([genome])
    truth = None if options.genes is None else LabelledSequences.of(array, [options.genes], scheme)
    num_labels = 0 if truth is None else len(array)
    keeper = _Keeper(num_labels, len(scheme.names), shown_region(array, options.region))
    made = provenance("dna annotate predict", model, device, genome=genome, **asdict(options))
    with atomic_folder(out) as partial:
        write_provenance(partial / PROVENANCE_FILE, made)
        started = time.perf_counter()
        with progress_bar("annotating", len(array)) as advance:
            found = annotate_genome(
                annotator,
                array,
                partial,
                windows=options.windows,
                both_strands=options.both_strands,
                open_ends=options.open_ends,
                tracks=options.tracks,
                take=keeper.take,
                on_progress=advance,
            )
        seconds = time.perf_counter() - started
        genes = called_genes(found)
        rna_genes = called_rna_genes(found, scheme)
        scores = None
        if truth is not None:
            scores = _scores(scheme, truth, genes, keeper.labels, annotator)
            if "RNA" in scheme.kinds:
                scores.genes.update(rna_gene_scores(truth.genes, rna_genes, scheme.rna_types))
        if scores is not None:
            write_text_atomically(partial / SCORES_FILE, json.dumps(_results(scores), indent=1) + "\n")
        facts = [
            ("Genome", str(genome), f"{len(array):,} bases in {len(array.records):,} record(s)"),
            ("Model", str(model), f"{sum(p.numel() for p in annotator.model.parameters()):,} parameters"),
            ("Time", f"{seconds:,.1f} s", f"{len(array) / seconds:,.0f} bases a second"),
            ("Peak memory", f"{peak_memory_bytes() / 2**20:,.0f} MiB", "of the whole process"),
            ("Genes called", f"{len(genes):,}", _kinds_of(genes)),
            *_other_calls(scheme, found),
        ]
        if scores is not None:
            facts.append(("Macro F1 per base", f"{scores.decoded.macro_f1():.4f}", _coding_f1(scores)))
        true_genes = None if truth is None else truth.genes
        title = f"Annotation of {genome.name}"
        page = Found(title, facts, scheme, [*genes, *rna_genes], true_genes, keeper.region, scores)
        note = write_annotation_report(partial / REPORT_FILE, page)
    return [*_summary(out, facts, scores), *([f"{'note':18}{note}"] if note else [])]


def final_labels(scheme: ClassScheme, array: TokenArray, genes: list[Gene], likeliest: Labels) -> Labels:
    """Labels ``[tokens]`` after decoding: called genes, and elsewhere the likeliest class without a grammar.

    A class of features that comes before that of a called gene is kept where it is the likeliest.

    Args:
        scheme: the classes.
        array: the genome.
        genes: the called genes.
        likeliest: the likeliest class of each base.
    """
    decoded = np.zeros(len(array), dtype=np.uint8)
    paint_labels(scheme, genes, record_views(array, decoded))
    rank = np.array([scheme.kinds.index(kind) if number else 0 for number, kind in enumerate(scheme.kind_of)])
    has_grammar = np.isin(np.arange(len(rank)), scheme.in_genes)
    is_feature = np.isin(scheme.kind_of, list(scheme.features))
    free = (decoded == 0) & ~has_grammar[likeliest]
    free |= is_feature[likeliest] & (rank[likeliest] < rank[decoded])
    decoded[free] = likeliest[free]
    return decoded


def _scores(
    scheme: ClassScheme, truth: LabelledSequences, genes: list[Gene], likeliest: Labels, annotator: Annotator
) -> Scores:
    known = known_bases(truth.array.tokens)
    raw = ClassCounts.of(scheme, truth.labels[known], likeliest[known])
    if annotator.settings.grammar is None:
        return Scores(raw, raw, {})
    decoded = final_labels(scheme, truth.array, genes, likeliest)
    lengths = {record.name: record.length for record in truth.array.records}
    return Scores(
        raw,
        ClassCounts.of(scheme, truth.labels[known], decoded[known]),
        gene_scores(truth.genes, genes, lengths),
    )


def _results(scores: Scores) -> dict[str, Any]:
    results: dict[str, Any] = {
        which: {
            "macro_f1": counts.macro_f1(),
            "accuracy_with_frames": counts.accuracy(),
            "classes": {name: score.to_json() for name, score in counts.by_class().items()},
        }
        for which, counts in (("decoded", scores.decoded), ("likeliest", scores.likeliest))
    }
    results["genes"] = {name: score.to_json() for name, score in scores.genes.items()}
    return results


def _coding_f1(scores: Scores) -> str:
    by_class = scores.decoded.by_class()
    return ", ".join(f"{name} {by_class[name].f1:.4f}" for name in ("CDS+", "CDS-") if name in by_class)


def _kinds_of(genes: list[Gene]) -> str:
    num_spliced = sum(len(transcript.cds) > 1 for gene in genes for transcript in gene.transcripts)
    num_partial = sum(any(gene.partial) for gene in genes)
    return f"{num_spliced:,} with introns, {num_partial:,} cut off by ends of sequences"


def _other_calls(scheme: ClassScheme, found: list[AnnotatedRecord]) -> list[tuple[str, str, str]]:
    """What was called besides coding genes, by kind, as facts."""
    facts = []
    for kind in ("RNA", *scheme.features):
        lengths = [run.end - run.start for record in found for run in record.runs if run.kind == kind]
        if kind in scheme.kinds:
            name = "RNA genes called" if kind == "RNA" else f"{kind} called"
            facts.append((name, f"{len(lengths):,}", f"{sum(lengths):,} bases"))
    return facts


def _summary(out: Path, facts: list[tuple[str, str, str]], scores: Scores | None) -> list[str]:
    lines = [f"{what.lower():18}{value}  ({remark})" for what, value, remark in facts]
    if scores is not None:
        lines += [f"gene, {name + ':':22}F1 {score.f1:.4f}" for name, score in scores.genes.items()]
    for name, file in (("genes", GENES_FILE), ("tracks", TRACKS), ("report", REPORT_FILE)):
        if (out / file).exists():
            lines.append(f"{name:18}{out / file}")
    return lines
