"""What each base of a genome is, by its annotation: intergenic, coding by strand and frame, intron and so on.

The rules, in one place:

- Of a gene with several transcripts only one counts: the one with the most coding bases, then the most bases
  in exons, then the first in the file. Pseudogenes count as nothing.
- A base that several transcripts claim takes the kind that comes first in `kinds`. Where they claim it as the
  same kind, the transcript with more bases of its own (coding, then exonic) wins, then the first in the file.
- The frame of a coding base is its place in its codon, 0 to 2, counted from the 5' end of the gene. A strand
  that is unknown counts as "+".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from reformer.genomics.coordinates import Strand
from reformer.genomics.genes import Gene, Transcript

Kind = Literal["CDS", "RNA", "exon", "UTR", "intron"]
Labels = npt.NDArray[np.uint8]

INTERGENIC = "intergenic"
RNA_TYPES = (
    *("tRNA", "rRNA", "ncRNA", "snRNA", "snoRNA", "lnc_RNA", "lncRNA", "miRNA", "antisense_RNA"),
    *("primary_transcript", "pre_miRNA", "scRNA", "SRP_RNA", "RNase_P_RNA", "RNase_MRP_RNA"),
    *("telomerase_RNA", "piRNA", "scaRNA", "tmRNA"),
)
"""Types of transcripts (Sequence Ontology) that are RNA genes, unless a scheme says otherwise."""


@dataclass(frozen=True)
class ClassScheme:
    """The classes: "intergenic" first, then for each kind one on "+" and one on "-", for CDS one per frame.

    Attributes:
        kinds: what is told apart, the kind that wins on an overlap first. "CDS" is coding, "RNA" the exons of
            RNA genes, "exon" those of any transcript, "UTR" what of the exons of a coding transcript does not
            code, "intron" what lies between two exons of any transcript.
        by_frame: whether coding bases have a class for each frame.
        rna_types: types of transcripts that are RNA genes.

    Raises:
        ValueError: a kind is unknown or comes twice, or there is none.
    """

    kinds: tuple[Kind, ...] = ("CDS", "RNA", "UTR", "intron")
    by_frame: bool = True
    rna_types: tuple[str, ...] = RNA_TYPES

    def __post_init__(self) -> None:
        object.__setattr__(self, "kinds", tuple(self.kinds))
        object.__setattr__(self, "rna_types", tuple(self.rna_types))
        if not self.kinds or len(set(self.kinds)) < len(self.kinds) or set(self.kinds) - set(get_args(Kind)):
            known = ", ".join(get_args(Kind))
            raise ValueError(f"kinds {list(self.kinds)}: expected some of {known}, each once")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers: "intergenic", "CDS+0", "RNA-" and so on."""
        per_kind = (
            f"{kind}{strand}{frame}"
            for kind in self.kinds
            for strand in "+-"
            for frame in (("0", "1", "2") if kind == "CDS" and self.by_frame else ("",))
        )
        return (INTERGENIC, *per_kind)

    @cached_property
    def other_strand(self) -> npt.NDArray[np.uint8]:
        """``[classes]``: which class each one is on the reverse complement."""
        swap = str.maketrans("+-", "-+")
        return np.array([self.names.index(name.translate(swap)) for name in self.names], dtype=np.uint8)

    @cached_property
    def coarse(self) -> Mapping[str, tuple[int, ...]]:
        """Classes without frames, name -> numbers: what figures are given for."""
        groups: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            groups.setdefault(name.rstrip("012"), []).append(number)
        return {name: tuple(numbers) for name, numbers in groups.items()}

    def number(self, kind: Kind, strand: Strand, frame: int = 0) -> int:
        """The number of a class; a frame that the scheme does not tell apart is dropped."""
        side = "-" if strand == "-" else "+"
        return self.names.index(f"{kind}{side}{frame if kind == 'CDS' and self.by_frame else ''}")

    def reverse_complement(self, labels: Labels) -> Labels:
        """The labels ``[..., bases]`` of the other strand, read from its 5' end."""
        return self.other_strand[labels[..., ::-1]]

    def to_json(self) -> dict[str, Any]:
        """The scheme as JSON values, from which ``ClassScheme(**values)`` makes it again."""
        return {"kinds": list(self.kinds), "by_frame": self.by_frame, "rna_types": list(self.rna_types)}


def labelled_transcripts(genes: Iterable[Gene]) -> list[Transcript]:
    """The transcript of each gene that counts, in the order of the genes."""
    return [
        max(gene.transcripts, key=_size)  # of equals the first
        for gene in genes
        if gene.transcripts and gene.type != "pseudogene"
    ]


def label_bases(scheme: ClassScheme, genes: Iterable[Gene], lengths: Mapping[str, int]) -> dict[str, Labels]:
    """Labels every base of every sequence.

    Args:
        scheme: the classes.
        genes: of an annotation; all on sequences of `lengths`.
        lengths: name -> bases.

    Returns:
        name -> uint8 ``[bases]``, numbers of classes.

    Raises:
        ValueError: a transcript goes beyond its sequence.
    """
    labels = {name: np.zeros(length, dtype=np.uint8) for name, length in lengths.items()}
    transcripts = sorted(labelled_transcripts(genes), key=_size, reverse=True)
    for kind in reversed(scheme.kinds):
        for transcript in reversed(transcripts):  # what wins is painted last
            interval = transcript.interval
            if interval.end > lengths[interval.sequence]:
                raise ValueError(
                    f"transcript {transcript.name!r} ends at base {interval.end:,}, but "
                    f"{interval.sequence!r} has {lengths[interval.sequence]:,}"
                )
            for start, numbers in _pieces(scheme, kind, transcript):
                labels[interval.sequence][start : start + len(numbers)] = numbers
    return labels


def _size(transcript: Transcript) -> tuple[int, int]:
    """Coding bases and bases in exons."""
    return sum(s.end - s.start for s in transcript.cds), sum(map(len, transcript.exons))


def _pieces(scheme: ClassScheme, kind: Kind, transcript: Transcript) -> Iterator[tuple[int, Labels]]:
    """Start and labels of each stretch that a transcript claims as a kind."""
    if kind == "CDS":
        yield from _coding_pieces(scheme, transcript)
        return
    spans: Sequence[tuple[int, int]] = [(exon.start, exon.end) for exon in transcript.exons]
    if kind == "intron":
        spans = [(intron.start, intron.end) for intron in transcript.introns]
    elif kind == "UTR":
        spans = without(spans, [(s.start, s.end) for s in transcript.cds]) if transcript.cds else []
    elif kind == "RNA" and transcript.type not in scheme.rna_types:
        spans = []
    number = scheme.number(kind, transcript.strand)
    for start, end in spans:
        yield start, np.full(end - start, number, dtype=np.uint8)


def _coding_pieces(scheme: ClassScheme, transcript: Transcript) -> Iterator[tuple[int, Labels]]:
    by_frame = np.array(
        [scheme.number("CDS", transcript.strand, frame) for frame in range(3)], dtype=np.uint8
    )
    for segment in transcript.cds:
        numbers = by_frame[(np.arange(segment.end - segment.start) - segment.phase) % 3]
        yield segment.start, numbers[::-1] if transcript.strand == "-" else numbers


def without(spans: Sequence[tuple[int, int]], removed: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of the spans lies in none of the removed ones."""
    left = list(spans)
    for start, end in removed:
        left = [
            piece for a, b in left for piece in ((a, min(b, start)), (max(a, end), b)) if piece[0] < piece[1]
        ]
    return left
