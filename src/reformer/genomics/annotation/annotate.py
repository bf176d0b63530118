"""Annotates genomes: probabilities of classes in one pass, genes by a grammar, standard files out.

Memory: a record that is no longer than the window goes through the model whole. A longer one goes in windows
that overlap, of which each gives the middle, so that memory does not grow with the genome; until they are in
bigWig files, probabilities wait on disk, a byte each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.annotation.annotator import Annotator
from reformer.genomics.annotation.gene_calls import CalledGene
from reformer.genomics.base_encoding import LETTER_OF_TOKEN
from reformer.genomics.formats.bed import Region, write_bed
from reformer.genomics.formats.gff3 import write_gff3
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.genes import Gene, gene_features
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
        genes: from left to right; empty where the classes have no coding ones.
    """

    name: str
    length: int
    genes: list[CalledGene] = field(default_factory=list)


Take = Callable[["Record", int, npt.NDArray[np.float32]], None]


def annotate_record(
    annotator: Annotator,
    array: TokenArray,
    record: Record,
    windows: Windows,
    *,
    both_strands: bool = True,
    take: Take | None = None,
) -> AnnotatedRecord:
    """Predicts and decodes one record.

    Args:
        annotator: the model.
        array: the genome.
        record: one of its records.
        windows: how a long record is cut.
        both_strands: average over both strands.
        take: called with the record, the first base and the probabilities ``[bases, classes]`` of each
            stretch, from left to right.
    """
    decoder = annotator.settings.decoder()
    return_large_memory()
    for start, end, inner in windows.of(record.length):
        tokens = array.window(record.start + start, end - start)
        probabilities = annotator.probabilities(tokens, both_strands=both_strands)[inner]
        if decoder is not None:
            decoder.feed(tokens[inner].tobytes().translate(LETTER_OF_TOKEN), probabilities)
        if take is not None:
            take(record, start + inner.start, probabilities)
    return AnnotatedRecord(record.name, record.length, [] if decoder is None else decoder.finish())


def annotate_genome(
    annotator: Annotator,
    array: TokenArray,
    folder: Path,
    *,
    windows: Windows | None = None,
    both_strands: bool = True,
    tracks: bool = True,
    take: Take | None = None,
    on_progress: Callable[[int], None] = lambda bases: None,
) -> list[AnnotatedRecord]:
    """Annotates all records and writes what was found into a folder.

    It then has `genes.gff3`, `genes.bed` (12 columns; the score is the gain in nats, 1,000 at most),
    `genes.tsv` (name, place, exons, gain in nats) and `tracks/CLASS.bw`.

    Args:
        annotator: the model.
        array: the genome.
        folder: one that exists.
        windows: how long records are cut.
        both_strands: average over both strands.
        tracks: whether to write bigWig.
        take: see `annotate_record`.
        on_progress: called with the number of bases that are done since the last call.

    Raises:
        UserError: pybigtools is missing, or the sequences are not nucleotides.
    """
    if array.tokenizer_name != "nucleotide":
        raise UserError(f"{array.sources[0].path}: not FASTA of nucleotides: expected a genome")
    windows = windows or Windows()
    spool = _Spool(folder / ".probabilities", len(array), annotator.settings.scheme.names)

    def take_all(record: Record, start: int, probabilities: npt.NDArray[np.float32]) -> None:
        if take is not None:
            take(record, start, probabilities)
        if tracks:
            spool.write(record.start + start, probabilities)
        on_progress(len(probabilities))

    found = [
        annotate_record(annotator, array, record, windows, both_strands=both_strands, take=take_all)
        for record in array.records
    ]
    if tracks:
        (folder / TRACKS).mkdir()
        spool.write_tracks(folder / TRACKS, array)
    spool.remove()
    if annotator.settings.grammar is not None:
        _write_genes(folder, found)
    return found


def called_genes(found: list[AnnotatedRecord]) -> list[Gene]:
    """The called genes of all records, named by number."""
    calls = [(record.name, call) for record in found for call in record.genes]
    width = len(str(len(calls)))
    return [call.gene(name, f"g{number:0{width}}") for number, (name, call) in enumerate(calls, start=1)]


def _write_genes(folder: Path, found: list[AnnotatedRecord]) -> None:
    genes = called_genes(found)
    features = (feature for gene in genes for feature in gene_features(gene))
    write_gff3(folder / GENES_FILE, features, {record.name: record.length for record in found})
    rows = ["gene\tsequence\tstart\tend\tstrand\texons\tgain_nats"]
    calls = [call for record in found for call in record.genes]
    write_bed(folder / BED_FILE, map(_region, genes, calls), num_columns=12)
    for gene, call in zip(genes, calls, strict=True):
        first, last = gene.interval.closed
        place = f"{gene.interval.sequence}\t{first}\t{last}\t{call.strand}"
        rows.append(f"{gene.name}\t{place}\t{len(call.exons)}\t{call.score:.2f}")
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


class _Spool:
    """Probabilities on their way from the model, base by base, to tracks, class by class."""

    def __init__(self, path: Path, num_bases: int, names: tuple[str, ...]) -> None:
        self._path, self._names, self._num_bases = path, names, num_bases

    def write(self, start: int, probabilities: npt.NDArray[np.float32]) -> None:
        steps = np.rint(probabilities.T * _STEPS).astype(np.uint8)
        with open(self._path, "r+b" if self._path.exists() else "w+b") as file:
            for number, row in enumerate(steps):
                file.seek(number * self._num_bases + start)
                file.write(row.tobytes())

    def write_tracks(self, folder: Path, array: TokenArray) -> None:
        lengths = {record.name: record.length for record in array.records}
        for number, name in enumerate(self._names):
            write_bigwig(folder / f"{name}.bw", lengths, self._blocks(number, array))

    def _blocks(self, number: int, array: TokenArray) -> Iterator[tuple[str, int, npt.NDArray[np.float32]]]:
        size = 1 << 20
        with open(self._path, "rb") as file:
            for record in array.records:
                for start in range(0, record.length, size):
                    length = min(size, record.length - start)
                    file.seek(number * self._num_bases + record.start + start)
                    steps = np.frombuffer(file.read(length), dtype=np.uint8)
                    yield record.name, start, steps.astype(np.float32) / np.float32(_STEPS)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
