"""Annotates genomes: probabilities of classes in one pass, genes by a grammar, standard files out.

Memory: a record that is no longer than the window goes through the model whole. A longer one goes in windows
that overlap, of which each gives the middle, so that memory does not grow with the genome; until they are in
bigWig files, probabilities wait on disk, a byte each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.gene_calls import CalledGene
from reformer.genomics.annotation.relatives import BroughtOver
from reformer.genomics.annotation.runs import Run, RunFinder, beside_exons, with_utrs
from reformer.genomics.base_encoding import LETTER_OF_TOKEN
from reformer.genomics.formats.bed import Region, write_bed
from reformer.genomics.formats.gff3 import write_gff3
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.genes import Gene, gene_features
from reformer.genomics.spool import Spool
from reformer.genomics.windows import Windows
from reformer.training.atomic import write_text_atomically
from reformer.training.memory import return_large_memory

if TYPE_CHECKING:
    from reformer.data.tokens import Record, TokenArray

GENES_FILE, BED_FILE, GAINS_FILE, TRACKS = "genes.gff3", "genes.bed", "genes.tsv", "tracks"
_HIGHEST_BED_SCORE = 1000
_STEPS = 100
"""Probabilities in tracks are multiples of 1 / 100: equal neighbours share an interval of the file."""


@dataclass
class AnnotatedRecord:
    """What was found on a record.

    Attributes:
        name: the record's.
        length: bases.
        genes: coding ones, from left to right; empty where the classes have none.
        runs: RNA genes and features, from left to right.
    """

    name: str
    length: int
    genes: list[CalledGene] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)


Take = Callable[["Record", int, npt.NDArray[np.float32]], None]


def annotate_sequence(
    annotator: Annotator,
    name: str,
    tokens: npt.NDArray[np.uint8],
    windows: Windows,
    *,
    both_strands: bool = True,
    open_ends: bool = False,
    take: Callable[[int, npt.NDArray[np.float32]], None] | None = None,
    brought_over: BroughtOver | None = None,
) -> AnnotatedRecord:
    """Predicts and decodes one sequence.

    Args:
        annotator: the model.
        name: the sequence's.
        tokens: its nucleotide token ids ``[bases]``.
        windows: how a long sequence is cut.
        both_strands: average over both strands.
        open_ends: whether genes may go on beyond the sequence's ends.
        take: called with the first base and the probabilities ``[bases, classes]`` of each stretch, from left
            to right.
        brought_over: what the model's relatives say of the sequence, if they have been asked.
    """
    settings = annotator.settings
    decoder = settings.decoder(open_ends=open_ends, free_start=False)
    finder = RunFinder(settings.scheme, settings.shortest_runs)
    return_large_memory()
    for start, end, inner in windows.of(len(tokens)):
        window = tokens[start:end]
        said = annotator.bring_over(window) if brought_over is None else brought_over[start:end]
        probabilities = annotator.probabilities(window, both_strands=both_strands, brought_over=said)[inner]
        if decoder is not None:
            letters = window[inner].tobytes().translate(LETTER_OF_TOKEN)
            decoder.feed(letters, probabilities, said and said[inner])
        finder.feed(probabilities)
        if take is not None:
            take(start + inner.start, probabilities)
    runs = finder.finish()
    genes = with_utrs([] if decoder is None else decoder.finish(), runs)
    beside = beside_exons(runs, genes, settings.scheme, settings.shortest_runs)
    return AnnotatedRecord(name, len(tokens), genes, list(beside))


def annotate_genome(
    annotator: Annotator,
    array: TokenArray,
    folder: Path,
    *,
    windows: Windows | None = None,
    both_strands: bool = True,
    open_ends: bool = False,
    tracks: bool = True,
    take: Take | None = None,
    on_progress: Callable[[int], None] = lambda bases: None,
) -> list[AnnotatedRecord]:
    """Annotates all records and writes what was found into a folder.

    Where the classes can be called it then has `genes.gff3`, `genes.bed` (12 columns; the score is the gain
    in nats, 1,000 at most, of RNA genes and features 1,000 times their mean probability) and, of coding
    genes, `genes.tsv` (name, place, exons, gain in nats, and whether they go on to the left and right); and
    `tracks/CLASS.bw`.

    Args:
        annotator: the model.
        array: the genome.
        folder: one that exists.
        windows: how long records are cut.
        both_strands: average over both strands.
        open_ends: whether genes may go on beyond the ends of records.
        tracks: whether to write bigWig.
        take: called with the record, the first base and the probabilities ``[bases, classes]`` of each
            stretch, from left to right.
        on_progress: called with the number of bases that are done since the last call.

    Raises:
        UserError: pybigtools is missing, or the sequences are not nucleotides.
    """
    if array.tokenizer_name != "nucleotide":
        raise UserError(f"{array.sources[0].path}: not FASTA of nucleotides: expected a genome")
    windows = windows or Windows()
    settings = annotator.settings
    spool = Spool(folder / ".probabilities", len(array), np.uint8)

    def take_all(record: Record, start: int, probabilities: npt.NDArray[np.float32]) -> None:
        if take is not None:
            take(record, start, probabilities)
        if tracks:
            spool.write(record.start + start, np.rint(probabilities * _STEPS))
        on_progress(len(probabilities))

    found = [
        annotate_sequence(
            *(annotator, record.name, array.window(record.start, record.length), windows),
            both_strands=both_strands,
            open_ends=open_ends,
            take=partial(take_all, record),
            brought_over=brought_over,
        )
        for record, brought_over in _brought_over(annotator, array, windows)
    ]
    if tracks:
        (folder / TRACKS).mkdir()
        lengths = {record.name: record.length for record in array.records}
        for row, name in enumerate(settings.scheme.names):
            blocks = (_probabilities(*block) for block in spool.blocks(row, array))
            write_bigwig(folder / TRACKS / f"{name}.bw", lengths, blocks)
    spool.remove()
    if settings.grammar is not None or settings.shortest_runs:
        _write_genes(folder, found, settings.scheme)
    return found


def _probabilities(
    name: str, start: int, steps: npt.NDArray[np.uint8]
) -> tuple[str, int, npt.NDArray[np.float32]]:
    return name, start, steps.astype(np.float32) / np.float32(_STEPS)


def _brought_over(
    annotator: Annotator, array: TokenArray, windows: Windows
) -> Iterator[tuple[Record, BroughtOver | None]]:
    """Records, with what the model's relatives say of those that are read whole: of many, all at once."""
    relatives = annotator.settings.relatives
    if relatives is None:
        yield from ((record, None) for record in array.records)
        return
    is_whole = [record.length <= windows.length for record in array.records]
    whole = (array.window(r.start, r.length) for r, one in zip(array.records, is_whole, strict=True) if one)
    found = relatives.bring_over(whole)
    for record, one in zip(array.records, is_whole, strict=True):
        yield record, next(found) if one else None


def called_genes(found: list[AnnotatedRecord]) -> list[Gene]:
    """The called coding genes of all records, named by number."""
    calls = [(record.name, call) for record in found for call in record.genes]
    width = len(str(len(calls)))
    return [call.gene(name, f"g{number:0{width}}") for number, (name, call) in enumerate(calls, start=1)]


def called_rna_genes(found: list[AnnotatedRecord], scheme: ClassScheme) -> list[Gene]:
    """The called RNA genes of all records, named by number."""
    return [run.rna_gene(sequence, name, scheme) for sequence, name, run in _runs(found, "RNA")]


def _runs(found: list[AnnotatedRecord], kind: str) -> Iterator[tuple[str, str, Run]]:
    """Yields the sequence, name and place of what was called of a kind."""
    calls = [(record.name, run) for record in found for run in record.runs if run.kind == kind]
    width = len(str(len(calls)))
    for number, (sequence, run) in enumerate(calls, start=1):
        yield sequence, f"{kind.lower() if kind == 'RNA' else kind}{number:0{width}}", run


def _write_genes(folder: Path, found: list[AnnotatedRecord], scheme: ClassScheme) -> None:
    genes, calls = called_genes(found), [call for record in found for call in record.genes]
    # Of each call its features, its line in BED, and where it stands.
    written = [
        (gene.interval, list(gene_features(gene)), _region(gene, call))
        for gene, call in zip(genes, calls, strict=True)
    ]
    for kind in ("RNA", *scheme.features):
        for sequence, name, run in _runs(found, kind):
            if kind == "RNA":
                features = list(gene_features(run.rna_gene(sequence, name, scheme)))
                features[0] = replace(features[0], score=round(run.probability, 4))
            else:
                features = [run.feature(sequence, name, scheme)]
            interval = features[0].interval
            score = round(_HIGHEST_BED_SCORE * run.probability)
            written.append((interval, features, Region(interval, name, score)))
    order = {record.name: number for number, record in enumerate(found)}
    written.sort(key=lambda one: (order[one[0].sequence], one[0].start))
    lengths = {record.name: record.length for record in found}
    write_gff3(folder / GENES_FILE, (one for _, features, _ in written for one in features), lengths)
    write_bed(folder / BED_FILE, (region for *_, region in written), num_columns=12)
    rows = ["gene\tsequence\tstart\tend\tstrand\texons\tgain_nats\tpartial"]
    for gene, call in zip(genes, calls, strict=True):
        first, last = gene.interval.closed
        place = f"{gene.interval.sequence}\t{first}\t{last}\t{call.strand}"
        partial = "".join(str(int(side)) for side in call.partial)
        rows.append(f"{gene.name}\t{place}\t{len(call.exons)}\t{call.score:.2f}\t{partial}")
    write_text_atomically(folder / GAINS_FILE, "\n".join(rows) + "\n")


def _region(gene: Gene, call: CalledGene) -> Region:
    """A gene as a line of a BED file, for genome browsers."""
    transcript = gene.transcripts[0]
    return Region(
        gene.interval,
        gene.name,
        min(max(round(call.score), 0), _HIGHEST_BED_SCORE),
        thick=(min(s.start for s in transcript.cds), max(s.end for s in transcript.cds)),
        blocks=tuple(sorted(transcript.exons, key=lambda exon: exon.start)),
    )
