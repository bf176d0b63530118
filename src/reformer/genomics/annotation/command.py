"""What `reformer dna annotate predict` does: files in, a folder with files, scores and a report out."""

from __future__ import annotations

import json
import re
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
    annotate_genome,
    called_genes,
)
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.annotation.classes import ClassScheme, Labels, label_bases
from reformer.genomics.annotation.data import LabelledSequences
from reformer.genomics.annotation.metrics import ClassCounts, gene_scores
from reformer.genomics.annotation.report import Found, Region, Scores, write_annotation_report
from reformer.genomics.base_encoding import known_bases
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene
from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
from reformer.genomics.windows import Windows
from reformer.training.atomic import atomic_folder, write_text_atomically

if TYPE_CHECKING:
    from reformer.data.tokens import Record, TokenArray

REPORT_FILE, SCORES_FILE = "report.html", "scores.json"
_SHOWN_BASES = 30_000


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        windows: how long records are cut.
        both_strands: average over both strands.
        tracks: write bigWig.
        region: what the plot shows, "NAME:FIRST-LAST"; None for the middle of the longest record.
        genes: the true annotation, or None.
    """

    windows: Windows
    both_strands: bool = True
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
    keeper = _Keeper(num_labels, len(scheme.names), _region(array, options.region))
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
                tracks=options.tracks,
                take=keeper.take,
                on_progress=advance,
            )
        seconds = time.perf_counter() - started
        genes = called_genes(found)
        scores = None if truth is None else _scores(scheme, truth, genes, keeper.labels, annotator)
        if scores is not None:
            write_text_atomically(partial / SCORES_FILE, json.dumps(_results(scores), indent=1) + "\n")
        facts = [
            ("Genome", str(genome), f"{len(array):,} bases in {len(array.records):,} record(s)"),
            ("Model", str(model), f"{sum(p.numel() for p in annotator.model.parameters()):,} parameters"),
            ("Time", f"{seconds:,.1f} s", f"{len(array) / seconds:,.0f} bases a second"),
            ("Peak memory", f"{peak_memory_bytes() / 2**20:,.0f} MiB", "of the whole process"),
            ("Genes called", f"{len(genes):,}", f"{_num_spliced(genes):,} with introns"),
        ]
        if scores is not None:
            facts.append(("Macro F1 per base", f"{scores.decoded.macro_f1():.4f}", _coding_f1(scores)))
        true_genes = None if truth is None else truth.genes
        title = f"Annotation of {genome.name}"
        page = Found(title, facts, scheme, genes, true_genes, keeper.region, scores)
        write_annotation_report(partial / REPORT_FILE, page)
    return _summary(out, facts, scores, options)


def final_labels(scheme: ClassScheme, array: TokenArray, genes: list[Gene], likeliest: Labels) -> Labels:
    """Labels ``[tokens]`` after decoding: called genes, and elsewhere the likeliest class without a grammar.

    Args:
        scheme: the classes.
        array: the genome.
        genes: the called genes.
        likeliest: the likeliest class of each base.
    """
    lengths = {record.name: record.length for record in array.records}
    by_name = label_bases(scheme, genes, lengths)
    decoded = np.concatenate([by_name[record.name] for record in array.records])
    has_grammar = np.array([name.startswith(("CDS", "intron")) for name in scheme.names])
    free = (decoded == 0) & ~has_grammar[likeliest]
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
    return Scores(
        raw, ClassCounts.of(scheme, truth.labels[known], decoded[known]), gene_scores(truth.genes, genes)
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


def _num_spliced(genes: list[Gene]) -> int:
    return sum(len(transcript.cds) > 1 for gene in genes for transcript in gene.transcripts)


def _region(array: TokenArray, text: str | None) -> Interval:
    """The region asked for, or the middle of the longest record."""
    records = {record.name: record for record in array.records}
    if text is None:
        longest = max(array.records, key=lambda record: record.length)
        start = max((longest.length - _SHOWN_BASES) // 2, 0)
        return Interval(longest.name, start, min(start + _SHOWN_BASES, longest.length))
    match = re.fullmatch(r"(.+):([\d,]+)-([\d,]+)", text)
    if match is None:
        raise UserError(f"--region {text!r}: expected NAME:FIRST-LAST")
    name, first, last = match[1], *(int(number.replace(",", "")) for number in match.groups()[1:])
    if name not in records:
        raise UserError(f"--region {text!r}: no sequence {name!r} in the genome")
    if not 1 <= first <= last <= records[name].length:
        raise UserError(f"--region {text!r}: expected bases of 1 to {records[name].length:,}")
    return Interval.from_closed(name, first, last)


def _summary(
    out: Path, facts: list[tuple[str, str, str]], scores: Scores | None, options: Options
) -> list[str]:
    lines = [f"{what.lower():18}{value}  ({remark})" for what, value, remark in facts]
    if scores is not None:
        lines += [f"gene, {name + ':':22}F1 {score.f1:.4f}" for name, score in scores.genes.items()]
    lines.append(f"{'genes':18}{out / GENES_FILE}")
    if options.tracks:
        lines.append(f"{'tracks':18}{out / TRACKS}")
    return [*lines, f"{'report':18}{out / REPORT_FILE}"]
