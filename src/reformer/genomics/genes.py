"""The gene model that GFF3, GTF and GenBank are read into: gene > transcript > exons and coding segments.

Here a coding sequence includes its stop codon, as in GFF3 and GenBank (GTF leaves it out; its reader adds
it), and segments stand in the order of transcription: from the 5' end, so from right to left on "-".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from reformer.genomics.coordinates import Interval, Strand, reverse_complement
from reformer.genomics.formats.features import Feature, Phase

_Tags: TypeAlias = Mapping[str, str | tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a coding sequence: bases [start, end), of which `phase` come before its first codon."""

    start: int
    end: int
    phase: Phase


@dataclass(frozen=True, slots=True)
class Transcript:
    """A transcript; without exons of its own in the file, its coding segments are its exons.

    Attributes:
        name: unique in its gene.
        type: "mRNA", "tRNA" and so on, as the file says; GTF says "transcript".
        interval: from the first to the last of its bases.
        exons: in the order of transcription.
        cds: coding segments, in the order of transcription; empty if it codes for nothing.
        protein: name of the protein, None where there is none.
        genetic_code: number of NCBI's table that translates it.
    """

    name: str
    type: str
    interval: Interval
    exons: tuple[Interval, ...]
    cds: tuple[Segment, ...] = ()
    protein: str | None = None
    genetic_code: int = 1

    @property
    def strand(self) -> Strand:
        """The strand that it is transcribed from."""
        return self.interval.strand

    @property
    def introns(self) -> tuple[Interval, ...]:
        """What lies between neighbouring exons, in the order of transcription."""
        pairs = zip(self.exons, self.exons[1:], strict=False)
        gaps = [(min(a.end, b.end), max(a.start, b.start)) for a, b in pairs]
        return tuple(
            Interval(self.interval.sequence, start, end, self.strand) for start, end in gaps if start < end
        )


@dataclass(frozen=True, slots=True)
class Gene:
    """A gene: `name` is the file's identifier, `type` "gene", "pseudogene" and so on, `symbol` for people.

    `partial` says whether it goes on to the left of its interval, and to its right.
    """

    name: str
    type: str
    interval: Interval
    transcripts: tuple[Transcript, ...]
    symbol: str | None = None
    partial: tuple[bool, bool] = (False, False)


def in_transcription_order(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sorts intervals of one strand from the 5' to the 3' end."""
    ordered = sorted(intervals, key=lambda interval: (interval.start, interval.end))
    is_reverse = bool(ordered) and ordered[0].strand == "-"
    return tuple(reversed(ordered)) if is_reverse else tuple(ordered)


def phases(lengths: Sequence[int], first: Phase = 0) -> tuple[Phase, ...]:
    """Phases of coding segments of these lengths in the order of transcription, by their definition.

    Args:
        lengths: bases of each segment.
        first: phase of the first one, not 0 where the start of the gene is missing.
    """
    found: list[Phase] = []
    phase: Phase = first
    for length in lengths:
        found.append(phase)
        phase = (phase - length) % 3  # type: ignore[assignment]
    return tuple(found)


def span(intervals: Sequence[Interval]) -> Interval:
    """The smallest interval around intervals of one sequence and strand."""
    first = intervals[0]
    start, end = min(i.start for i in intervals), max(i.end for i in intervals)
    return Interval(first.sequence, start, end, first.strand)


def spliced(letters: str, intervals: Iterable[Interval | Segment], strand: Strand) -> str:
    """Joins pieces of a sequence, in the order of transcription, as the transcript has them.

    Args:
        letters: the whole sequence.
        intervals: exons or coding segments of a transcript.
        strand: the transcript's.
    """
    pieces = (letters[piece.start : piece.end] for piece in intervals)
    return "".join(reverse_complement(piece) if strand == "-" else piece for piece in pieces)


def gene_features(gene: Gene) -> Iterable[Feature]:
    """Yields the features of a gene for `write_gff3`, parents first; reading them makes the same gene.

    UTR of coding transcripts are features of their own; what is partial is marked as NCBI does it.
    """
    cut = _edges(gene)
    yield _feature(gene.interval, gene.type, {"ID": gene.name, "Name": gene.symbol, **cut(gene.interval)})
    for transcript in gene.transcripts:
        name = f"{gene.name}.{transcript.name}" if transcript.name == gene.name else transcript.name
        interval = transcript.interval
        yield _feature(interval, transcript.type, {"ID": name, "Parent": gene.name, **cut(interval)})
        for exon in transcript.exons:
            yield _feature(exon, "exon", {"Parent": name, **cut(exon)})
        for kind, piece in utrs(transcript):
            yield _feature(piece, kind, {"Parent": name})
        for segment in transcript.cds:
            interval = Interval(transcript.interval.sequence, segment.start, segment.end, transcript.strand)
            tags: _Tags = {
                "ID": f"cds-{name}",
                "Parent": name,
                "protein_id": transcript.protein,
                "transl_table": None if transcript.genetic_code == 1 else str(transcript.genetic_code),
            }
            yield _feature(interval, "CDS", {**tags, **cut(interval)}, segment.phase)


def utrs(transcript: Transcript) -> Iterable[tuple[str, Interval]]:
    """Yields type and place of what of the exons of a coding transcript does not code, exon by exon."""
    if not transcript.cds:
        return
    left, right = min(s.start for s in transcript.cds), max(s.end for s in transcript.cds)
    before, after = ("five_prime_UTR", "three_prime_UTR")[:: -1 if transcript.strand == "-" else 1]
    for exon in transcript.exons:
        for kind, start, end in (
            (before, exon.start, min(exon.end, left)),
            (after, max(exon.start, right), exon.end),
        ):
            if start < end:
                yield kind, Interval(exon.sequence, start, end, exon.strand)


def _edges(gene: Gene) -> Callable[[Interval], _Tags]:
    """Makes the attributes that say of a feature of a gene that it goes on beyond the gene's ends."""
    whole = gene.interval
    left, right = gene.partial

    def attributes(interval: Interval) -> _Tags:
        starts, ends = left and interval.start == whole.start, right and interval.end == whole.end
        first, last = interval.closed
        return {
            "partial": "true" if starts or ends else None,
            "start_range": (".", str(first)) if starts else None,
            "end_range": (str(last), ".") if ends else None,
        }

    return attributes


def _feature(interval: Interval, kind: str, tags: _Tags, phase: Phase | None = None) -> Feature:
    attributes = {tag: (value,) if isinstance(value, str) else value for tag, value in tags.items() if value}
    return Feature(interval, kind, "reformer", None, phase, attributes)
