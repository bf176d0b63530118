"""Annotations of GenBank files, through Biopython, record by record."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from io import StringIO
from typing import Any, cast

from reformer.data.genbank import genbank_annotations
from reformer.data.sources import SourceFile, SourceReader
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
    """What a record says of its sequence: its name with version, genes and features in the file's order."""

    name: str
    genes: tuple[Gene, ...]
    features: tuple[GenBankFeature, ...]


def read_genbank(path: str | os.PathLike[str]) -> Iterator[GenBankRecord]:
    """Yields the records of a GenBank file, plain or gzip, one in memory at a time, without their sequences.

    The sequences are read by `reformer.genomics.genome.Genome`, by region.

    Features of one locus_tag (or gene name) make a gene. A CDS belongs to the mRNA whose exons hold it, or
    is a transcript of its own. What joins bases of several strands, or of other records, has no place in the
    gene model and is left out.

    Raises:
        UserError: biopython is missing, the file is not GenBank or ends in the middle.
    """
    seqio = require("Bio.SeqIO", "to read GenBank")
    source = SourceFile.at(path)
    with closing(SourceReader(source, lambda _: None).blocks()) as blocks:
        yield from _records(genbank_annotations(blocks, source.path), source, seqio)


def _records(
    texts: Iterable[tuple[str, int, str]], source: SourceFile, seqio: Any
) -> Iterator[GenBankRecord]:
    for name, line, text in texts:
        where = f"{source.path}, line {line}, record {name!r}"
        try:
            with warnings.catch_warnings(action="ignore"):  # what it does not understand is looked for below
                features = seqio.read(StringIO(text), "genbank").features
        except (ValueError, AssertionError) as error:
            raise UserError(f"{where}: not GenBank: {_one_line(error)}") from error
        for number, feature in enumerate(features, 1):
            if feature.location is None:
                raise UserError(
                    f"{where}, feature {number}: the place of this {feature.type} cannot be read: expected "
                    "bases such as 1..20"
                )
        yield _record(name, features)


def _record(name: str, all_features: list[Any]) -> GenBankRecord:
    one_stranded = [f for f in all_features if len({p.strand for p in f.location.parts}) == 1]
    one_stranded = [f for f in one_stranded if all(p.ref is None for p in f.location.parts)]
    loci: dict[str, list[Any]] = {}
    for feature in one_stranded:
        locus = _first(feature, "locus_tag") or _first(feature, "gene")
        if locus is not None:
            loci.setdefault(locus, []).append(feature)
    genes = (_gene(name, locus, features) for locus, features in loci.items())
    features = (
        GenBankFeature(f.type, _intervals(name, f), {tag: tuple(v) for tag, v in f.qualifiers.items()})
        for f in one_stranded
    )
    return GenBankRecord(name, tuple(gene for gene in genes if gene is not None), tuple(features))


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
