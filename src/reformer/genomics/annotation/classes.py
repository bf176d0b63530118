"""What each base of a genome is, by its annotation: intergenic, coding by strand and frame, intron and so on.

The rules, in one place:

- Of a gene with several transcripts only one counts: the one with the most coding bases, then the most bases
  in exons, then the first in the file. Pseudogenes count as nothing.
- A base that several transcripts claim takes the kind that comes first in `kinds`. Where they claim it as the
  same kind, the transcript with more bases of its own (coding, then exonic) wins, then the first in the file.
- The frame of a coding base is its place in its codon, 0 to 2, counted from the 5' end of the gene. A strand
  that is unknown counts as "+".
- A class of features holds the bases of all features of its types, whatever genes they belong to; of two that
  overlap on different strands the first in the file counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from reformer.genomics.coordinates import Interval, Strand
from reformer.genomics.formats.features import Feature
from reformer.genomics.genes import Gene, Transcript

Kind = Literal["CDS", "RNA", "exon", "UTR", "intron"]
Labels = npt.NDArray[np.uint8]

INTERGENIC = "intergenic"
_MOST_CLASSES = 256  # labels are bytes
RNA_TYPES = (
    *("tRNA", "rRNA", "ncRNA", "snRNA", "snoRNA", "lnc_RNA", "lncRNA", "miRNA", "antisense_RNA"),
    *("primary_transcript", "pre_miRNA", "scRNA", "SRP_RNA", "RNase_P_RNA", "RNase_MRP_RNA"),
    *("telomerase_RNA", "piRNA", "scaRNA", "tmRNA"),
)
"""Types of transcripts (Sequence Ontology) that are RNA genes, unless a scheme says otherwise."""


@dataclass(frozen=True)
class ClassScheme:
    """The classes: "intergenic" first, then for each kind one on "+" and one on "-", for CDS one per frame.

    A class of features is a kind too, with one class for both strands unless it is in `by_strand`.

    Attributes:
        kinds: what is told apart, the kind that wins on an overlap first. "CDS" is coding, "RNA" the exons of
            RNA genes, "exon" those of any transcript, "UTR" what of the exons of a coding transcript does not
            code, "intron" what lies between two exons of any transcript. Classes of features that are not
            named here come last.
        by_frame: whether coding bases have a class for each frame.
        rna_types: types of transcripts that are RNA genes.
        features: types of the features that make a class, by its name.
        by_strand: which of these classes are told apart by strand.

    Raises:
        ValueError: a kind is unknown or comes twice, or there is none; a class of features has a name that
            is none or taken, or no types; there are more than 256 classes.
    """

    kinds: tuple[str, ...] = ("CDS", "RNA", "UTR", "intron")
    by_frame: bool = True
    rna_types: tuple[str, ...] = RNA_TYPES
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    by_strand: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        features = {name: tuple(types) for name, types in self.features.items()}
        kinds = *self.kinds, *(name for name in features if name not in self.kinds)
        own, values = get_args(Kind), {"kinds": kinds, "features": features}
        for name in ("rna_types", "by_strand"):
            values[name] = tuple(getattr(self, name))
        for name, value in values.items():
            object.__setattr__(self, name, value)
        for name, types in features.items():
            if not re.fullmatch("[A-Za-z][A-Za-z_]*", name) or name in (INTERGENIC, *own):
                raise ValueError(
                    f"features: class {name!r}: expected a name of letters and _ that is not among "
                    f"{', '.join((INTERGENIC, *own))}"
                )
            if not types:
                raise ValueError(f"features: class {name!r} has no types: expected one at least")
        if unknown := set(self.by_strand) - set(features):
            raise ValueError(f"by_strand: {min(unknown)!r}: expected names of classes in features")
        known = *own, *features
        if not kinds or len(set(kinds)) < len(kinds) or set(kinds) - set(known):
            raise ValueError(f"kinds {list(kinds)}: expected some of {', '.join(known)}, each once")
        if len(self.names) > _MOST_CLASSES:
            raise ValueError(f"features: {len(self.names)} classes: expected at most {_MOST_CLASSES}")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their numbers: "intergenic", "CDS+0", "RNA-" and so on."""
        per_kind = (
            f"{kind}{strand}{frame}"
            for kind in self.kinds
            for strand in (("",) if self._has_one_class(kind) else "+-")
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

    @cached_property
    def kind_of(self) -> tuple[str, ...]:
        """The kind of each class, "intergenic" among them."""
        return tuple(name.rstrip("+-012") for name in self.names)

    @cached_property
    def in_genes(self) -> tuple[int, ...]:
        """The classes that the grammar of genes decodes: coding bases and introns."""
        return tuple(number for number, kind in enumerate(self.kind_of) if kind in ("CDS", "intron"))

    @cached_property
    def feature_types(self) -> frozenset[str]:
        """The types of all features that make a class."""
        return frozenset(kind for types in self.features.values() for kind in types)

    def number(self, kind: str, strand: Strand, frame: int = 0) -> int:
        """The number of a class; a strand or frame that the scheme does not tell apart is dropped."""
        if self._has_one_class(kind):
            return self.names.index(kind)
        side = "-" if strand == "-" else "+"
        return self.names.index(f"{kind}{side}{frame if kind == 'CDS' and self.by_frame else ''}")

    def reverse_complement(self, labels: Labels) -> Labels:
        """The labels ``[..., bases]`` of the other strand, read from its 5' end."""
        return self.other_strand[labels[..., ::-1]]

    def to_json(self) -> dict[str, Any]:
        """The scheme as JSON values, from which ``ClassScheme(**values)`` makes it again."""
        values = {"kinds": list(self.kinds), "by_frame": self.by_frame, "rna_types": list(self.rna_types)}
        if self.features:
            features = {name: list(types) for name, types in self.features.items()}
            values |= {"features": features, "by_strand": list(self.by_strand)}
        return values

    def _has_one_class(self, kind: str) -> bool:
        return kind in self.features and kind not in self.by_strand


def labelled_transcripts(genes: Iterable[Gene]) -> list[Transcript]:
    """The transcript of each gene that counts, in the order of the genes."""
    return [
        max(gene.transcripts, key=_size)  # of equals the first
        for gene in genes
        if gene.transcripts and gene.type != "pseudogene"
    ]


def label_bases(
    scheme: ClassScheme,
    genes: Iterable[Gene],
    lengths: Mapping[str, int],
    features: Sequence[Feature] = (),
) -> dict[str, Labels]:
    """Labels every base of every sequence.

    Args:
        scheme: the classes.
        genes: of an annotation; all on sequences of `lengths`.
        lengths: name -> bases.
        features: of the same, of which those count that have a class.

    Returns:
        name -> uint8 ``[bases]``, numbers of classes.

    Raises:
        ValueError: a transcript or feature goes beyond its sequence.
    """
    labels = {name: np.zeros(length, dtype=np.uint8) for name, length in lengths.items()}
    paint_labels(scheme, genes, labels, features)
    return labels


def paint_labels(
    scheme: ClassScheme, genes: Iterable[Gene], labels: Mapping[str, Labels], features: Sequence[Feature] = ()
) -> None:
    """Does what `label_bases` does in the labels of its sequences, all of them 0."""
    transcripts = sorted(labelled_transcripts(genes), key=_size, reverse=True)
    for kind in reversed(scheme.kinds):  # what wins is painted last
        if kind in scheme.features:
            for feature in reversed(features):
                if feature.type in scheme.features[kind]:
                    _check_end(feature.type, feature.interval, labels)
                    start, end = feature.interval.start, feature.interval.end
                    number = scheme.number(kind, feature.interval.strand)
                    labels[feature.interval.sequence][start:end] = number
            continue
        for transcript in reversed(transcripts):
            _check_end(f"transcript {transcript.name!r}", transcript.interval, labels)
            for start, numbers in _pieces(scheme, kind, transcript):
                labels[transcript.interval.sequence][start : start + len(numbers)] = numbers


def _check_end(what: str, interval: Interval, labels: Mapping[str, Labels]) -> None:
    if interval.end > (length := len(labels[interval.sequence])):
        raise ValueError(f"{what} ends at base {interval.end:,}, but {interval.sequence!r} has {length:,}")


def _size(transcript: Transcript) -> tuple[int, int]:
    """Coding bases and bases in exons."""
    return sum(s.end - s.start for s in transcript.cds), sum(map(len, transcript.exons))


def _pieces(scheme: ClassScheme, kind: str, transcript: Transcript) -> Iterator[tuple[int, Labels]]:
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
