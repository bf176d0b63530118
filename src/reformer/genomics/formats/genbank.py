"""GenBank, through Biopython: sequences and genes, record by record."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

from reformer.data.sources import SourceFile
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.extras import require
from reformer.genomics.formats.features import Phase
from reformer.genomics.genes import Gene, Segment, Transcript, in_transcription_order, phases, span

_STRANDS: dict[int | None, Strand] = {1: "+", -1: "-", 0: ".", None: "."}


@dataclass(frozen=True)
class GenBankFeature:
    """A feature: its type, its pieces in the order of transcription, and its qualifiers."""

    type: str
    pieces: tuple[Interval, ...]
    qualifiers: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class GenBankRecord:
    """A record: its name with version, its letters, its genes and features, in the order of the file."""

    name: str
    letters: str
    genes: tuple[Gene, ...]
    features: tuple[GenBankFeature, ...]


def read_genbank(path: str | os.PathLike[str]) -> Iterator[GenBankRecord]:
    """Yields the records of a GenBank file, plain or gzip, one in memory at a time.

    Features of one locus_tag (or gene name) make a gene. A CDS belongs to the mRNA whose exons hold it, or
    is a transcript of its own. What joins bases of several strands has no
    place in the gene model and is left out.

    Raises:
        UserError: biopython is missing, the file is not GenBank or ends in the middle, a record has
            no sequence.
    """
    seqio = require("Bio.SeqIO", "to read GenBank")
    source = SourceFile.at(path)
    name = None
    with _open_text(source) as file:
        try:
            for record in seqio.parse(file, "genbank"):
                name = record.id
                yield _record(record, source)
        except (ValueError, AssertionError, EOFError, OSError, UnicodeDecodeError) as error:
            if isinstance(error, UserError):
                raise
            where = f"after record {name!r}" if name else "in the first record"
            raise UserError(f"{source.path}, {where}: not GenBank: {_one_line(error)}") from error
    if name is None:
        raise UserError(f'{source.path}: no GenBank record: expected a line that starts with "LOCUS"')


def _open_text(source: SourceFile) -> TextIO:
    with open(source.path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if is_gzip:
        return cast(TextIO, gzip.open(source.path, "rt", encoding="utf-8"))
    return open(source.path, encoding="utf-8")


def _record(record: Any, source: SourceFile) -> GenBankRecord:
    try:
        letters = str(record.seq)
    except Exception as error:  # Biopython's UndefinedSequenceError, known only where it is installed
        raise UserError(f"{source.path}, record {record.id!r}: no sequence after ORIGIN") from error
    one_stranded = [f for f in record.features if len({part.strand for part in f.location.parts}) == 1]
    loci: dict[str, list[Any]] = {}
    for feature in one_stranded:
        locus = _first(feature, "locus_tag") or _first(feature, "gene")
        if locus is not None:
            loci.setdefault(locus, []).append(feature)
    genes = (_gene(record.id, name, features) for name, features in loci.items())
    features = (
        GenBankFeature(f.type, _intervals(record.id, f), {tag: tuple(v) for tag, v in f.qualifiers.items()})
        for f in one_stranded
    )
    return GenBankRecord(
        record.id, letters, tuple(gene for gene in genes if gene is not None), tuple(features)
    )


def _gene(sequence: str, name: str, features: list[Any]) -> Gene | None:
    coding = [feature for feature in features if feature.type == "CDS"]
    transcribed = [f for f in features if f.type.endswith("RNA")]
    genes = [feature for feature in features if feature.type == "gene"]
    transcripts = []
    for number, feature in enumerate(transcribed, 1):
        exons = _intervals(sequence, feature)
        inside = [c for c in coding if all(_is_inside(e, exons) for e in _intervals(sequence, c))]
        cds = inside[0] if inside and feature.type == "mRNA" else None
        if cds is not None:
            coding.remove(cds)
        own_name = _first(feature, "transcript_id") or f"{name}.{number}"
        transcripts.append(_transcript(own_name, feature.type, exons, sequence, cds))
    for number, cds in enumerate(coding, len(transcripts) + 1):
        exons = _intervals(sequence, cds)
        transcripts.append(_transcript(f"{name}.{number}", "transcript", exons, sequence, cds))
    if not genes and not transcripts:
        return None
    around = span(_intervals(sequence, genes[0]) if genes else [t.interval for t in transcripts])
    kind = "pseudogene" if genes and {"pseudo", "pseudogene"} & genes[0].qualifiers.keys() else "gene"
    symbol = _first((genes or features)[0], "gene")
    return Gene(
        name, kind, around, tuple(transcripts), symbol, _partial(genes[0]) if genes else (False, False)
    )


def _partial(feature: Any) -> tuple[bool, bool]:
    """Whether a feature goes on to its left, "<1", and to its right, ">9"."""
    ends = feature.location.start, feature.location.end
    before, after = (type(end).__name__ in ("BeforePosition", "AfterPosition") for end in ends)
    return before, after


def _transcript(
    name: str, kind: str, exons: tuple[Interval, ...], sequence: str, cds: Any | None
) -> Transcript:
    if cds is None:
        return Transcript(name, kind, span(exons), exons)
    pieces = _intervals(sequence, cds)
    first = cast(Phase, int(_first(cds, "codon_start") or 1) - 1)
    segments = zip(pieces, phases([len(piece) for piece in pieces], first), strict=True)
    return Transcript(
        name,
        kind,
        span(exons),
        exons,
        tuple(Segment(piece.start, piece.end, phase) for piece, phase in segments),
        _first(cds, "protein_id"),
        int(_first(cds, "transl_table") or 1),
    )


def _intervals(sequence: str, feature: Any) -> tuple[Interval, ...]:
    return in_transcription_order(
        Interval(sequence, int(part.start), int(part.end), _STRANDS[part.strand])
        for part in feature.location.parts
    )


def _is_inside(interval: Interval, exons: tuple[Interval, ...]) -> bool:
    return any(exon.contains(interval) for exon in exons)


def _first(feature: Any, qualifier: str) -> str | None:
    values = feature.qualifiers.get(qualifier)
    return values[0] if values else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
