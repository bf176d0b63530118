"""Genes from the features of a GTF file, joined by gene_id and transcript_id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.transcripts import TRANSCRIPT_PARTS, TranscriptParts
from reformer.genomics.genes import Gene, span

_ONLY_TRANSCRIPT_LINES = {"transcript", "mRNA"}


@dataclass(slots=True)
class _GeneParts:
    feature: Feature | None = None
    transcripts: dict[str, TranscriptParts] = field(default_factory=dict)


def genes_of_gtf(features: Iterable[Feature]) -> list[Gene]:
    """Joins features to genes, in the order in which the genes begin in the file.

    Lines for genes and transcripts may be missing, as in older files: they then reach as far as their exons.
    Stop codons, which GTF keeps apart, become part of the coding sequence. A gene_id on two
    sequences (the pseudoautosomal regions of X and Y) makes two genes.

    Raises:
        UserError: an exon or CDS without transcript_id, a second gene line of one gene_id, parts of a
            transcript on different strands.
    """
    genes: dict[tuple[str, str], _GeneParts] = {}
    for feature in features:
        key = (feature.interval.sequence, feature.attributes["gene_id"][0])
        parts = genes.setdefault(key, _GeneParts())
        if feature.type == "gene":
            if parts.feature is not None:
                assert feature.place is not None
                assert parts.feature.place is not None
                raise feature.place.error(
                    f"gene_id {key[1]!r} has a gene line already, line {parts.feature.place.line}"
                )
            parts.feature = feature
        elif feature.type in _ONLY_TRANSCRIPT_LINES:
            _transcript(parts, feature).feature = feature
        elif feature.type in TRANSCRIPT_PARTS:
            _transcript(parts, feature).add(feature)
    return [_gene(name, parts) for (_, name), parts in genes.items() if parts.feature or parts.transcripts]


def _transcript(parts: _GeneParts, feature: Feature) -> TranscriptParts:
    name = feature.first("transcript_id")
    if not name:
        assert feature.place is not None
        raise feature.place.error(f'{feature.type} without transcript_id: expected transcript_id "NAME";')
    return parts.transcripts.setdefault(name, TranscriptParts(name))


def _gene(name: str, parts: _GeneParts) -> Gene:
    transcripts = tuple(transcript.transcript("transcript") for transcript in parts.transcripts.values())
    feature = parts.feature
    if feature is None:
        return Gene(name, "gene", span([t.interval for t in transcripts]), transcripts)
    symbol = feature.first("gene_name") or feature.first("gene")
    kind = "pseudogene" if feature.first("pseudo") == "true" else "gene"
    return Gene(name, kind, feature.interval, transcripts, symbol)
