"""Making a transcript of the exons and coding features that a file gives it."""

from __future__ import annotations

from dataclasses import dataclass, field

from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.formats.features import Feature
from reformer.genomics.genes import Segment, Transcript, in_transcription_order, span

TRANSCRIPT_PARTS = {"exon", "CDS", "stop_codon"}
_LONGEST_SLIP = 2  # bases that programmed frameshifting reads twice


@dataclass(slots=True)
class TranscriptParts:
    """What has been read of a transcript so far."""

    name: str
    feature: Feature | None = None  # the transcript's own line
    exons: list[Interval] = field(default_factory=list)
    cds: list[Feature] = field(default_factory=list)
    stop_codons: list[Feature] = field(default_factory=list)

    def add(self, part: Feature) -> None:
        """Takes an exon, a CDS or a stop codon.

        Raises:
            UserError: it is on another sequence or strand than the transcript's first part.
        """
        first = self.feature or next(iter(self.cds or self.stop_codons), None)
        known = first.interval if first is not None else self.exons[0] if self.exons else part.interval
        if (known.sequence, known.strand) != (part.interval.sequence, part.interval.strand):
            assert part.place is not None
            raise part.place.error(
                f"{part.type} of {self.name!r} is on {part.interval.sequence} {part.interval.strand}: "
                f"expected {known.sequence} {known.strand}, where the rest of it is"
            )
        if part.type == "exon":
            self.exons.append(part.interval)
        else:
            (self.cds if part.type == "CDS" else self.stop_codons).append(part)

    def transcript(self, kind: str) -> Transcript:
        """Makes the transcript.

        Args:
            kind: its type, if it has no line of its own.

        Raises:
            UserError: two of its coding segments overlap by more than a ribosome slips back, or the genetic
                code is not a number.
        """
        segments = self._segments()
        sequence, strand = self._where()
        coding = [Interval(sequence, s.start, s.end, strand) for s in segments]
        exons = in_transcription_order(self.exons) or tuple(coding)
        interval = self.feature.interval if self.feature is not None else span([*exons, *coding])
        return Transcript(
            self.name,
            self.feature.type if self.feature is not None else kind,
            interval,
            exons or (interval,),
            tuple(segments),
            self.cds[0].first("protein_id") if self.cds else None,
            self._genetic_code(),
        )

    def _where(self) -> tuple[str, Strand]:
        feature = self.feature or next(iter(self.cds or self.stop_codons), None)
        interval = feature.interval if feature is not None else self.exons[0]
        return interval.sequence, interval.strand

    def _segments(self) -> list[Segment]:
        """The coding segments with the stop codon, in the order of transcription."""
        parts = {feature.interval: feature for feature in [*self.stop_codons, *self.cds]}
        segments: list[Segment] = []
        for interval in in_transcription_order(parts):
            feature = parts[interval]
            segment = Segment(interval.start, interval.end, feature.phase or 0)
            before = segments[-1] if segments else None
            if feature.type == "stop_codon" and before is not None:
                if before.start <= segment.start and segment.end <= before.end:
                    continue  # a GTF whose CDS holds the stop codon
                if segment.start == before.end or segment.end == before.start:
                    start, end = min(before.start, segment.start), max(before.end, segment.end)
                    segments[-1] = Segment(start, end, before.phase)
                    continue
            if before is not None:
                shared = min(before.end, segment.end) - max(before.start, segment.start)
                if shared > _LONGEST_SLIP:
                    assert feature.place is not None
                    raise feature.place.error(
                        f"two coding segments of {self.name!r} overlap by {shared} bases: expected at most "
                        f"{_LONGEST_SLIP}, as where a ribosome slips back"
                    )
            segments.append(segment)
        return segments

    def _genetic_code(self) -> int:
        code = self.cds[0].first("transl_table") if self.cds else None
        if code is None:
            return 1
        place = self.cds[0].place
        assert place is not None
        return place.number(code, "transl_table")
