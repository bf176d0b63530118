"""Sequences with labels out of an annotation: its features, and what it says of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.annotation.classes import RNA_TYPES
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.annotation import annotation_format
from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.genbank import read_genbank
from reformer.genomics.formats.gff3 import read_gff3
from reformer.genomics.formats.gtf import read_gtf
from reformer.genomics.formats.label_files import write_labels
from reformer.genomics.genes import in_transcription_order
from reformer.genomics.genome import Genome
from reformer.training.atomic import atomic_folder

SEQUENCES_FILE, LABELS_FILE = "sequences.fa", "labels.tsv"

_GO_TERM = re.compile(r"\bGO:\d{7}\b")
_NAMES = ("ID", "transcript_id", "locus_tag", "protein_id", "gene", "Name")
_BASES_PER_LINE = 80


@dataclass(frozen=True)
class Choice:
    """Which features become sequences, and what their labels are.

    Attributes:
        label: "type", "GO" (terms, wherever they stand) or the name of an attribute or qualifier.
        types: of the features.
        at_least: labels of fewer sequences are left out.
        several: take all labels of a feature; else, of several, the one that most features have.
    """

    label: str
    types: frozenset[str]
    at_least: int
    several: bool

    @classmethod
    def of(cls, label: str, types: Iterable[str] | None, at_least: int, several: bool | None = None) -> Self:
        """The choice, with coding sequences (and genes of RNA, where types are told apart) by default.

        By default a feature has all of its GO terms, and one of any other label.
        """
        default = ["CDS", *RNA_TYPES] if label == "type" else ["CDS"]
        return cls(
            label, frozenset(types or default), at_least, label == "GO" if several is None else several
        )


@dataclass(frozen=True)
class _Part:
    """A feature of one or several pieces, in the order of transcription."""

    type: str
    pieces: tuple[Interval, ...]
    attributes: Mapping[str, tuple[str, ...]]
    letters: Callable[[Interval], str]


def extract_labelled(annotation: Path, genome: Path | None, out: Path, choice: Choice) -> list[str]:
    """Writes the sequences of features, spliced and as their strand has them, and their labels.

    Args:
        annotation: GenBank, GFF3 or GTF.
        genome: FASTA; None for GenBank.
        out: the folder to make, with `sequences.fa` and `labels.tsv`.
        choice: what to take.

    Returns:
        Lines that say what was found.

    Raises:
        UserError: for whatever is wrong with a file, and where fewer than two labels are found.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty: expected a folder to make")
    with ExitStack() as stack:
        parts = [part for part in _parts(annotation, genome, stack) if part.type in choice.types]
        if not parts:
            raise UserError(f"{annotation}: no feature of type {' or '.join(sorted(choice.types))}")
        values = [_values(part, choice.label) for part in parts]
        counts = Counter(value for found in values for value in found)
        if not choice.several:
            values = [sorted(found, key=lambda value: (counts[value], value))[-1:] for found in values]
            counts = Counter(value for found in values for value in found)
        classes = {label for label, count in counts.items() if count >= choice.at_least}
        if len(classes) < 2:
            known = ", ".join(sorted({tag for part in parts for tag in part.attributes}))
            raise UserError(
                f"{annotation}: {len(classes)} label(s) by {choice.label!r} of {choice.at_least} or more "
                f"sequences: expected two or more; the attributes are {known}"
            )
        labels: dict[str, list[str]] = {}
        with atomic_folder(out) as partial:
            with open(partial / SEQUENCES_FILE, "w", encoding="utf-8") as file:
                for part, found in zip(parts, values, strict=True):
                    if own := [label for label in found if label in classes]:
                        name = _name(part, labels)
                        labels[name] = own
                        _write_fasta(file.write, name, "".join(map(part.letters, part.pieces)))
            write_labels(partial / LABELS_FILE, labels)
    return [
        f"{'extracted':18}{len(labels):,} of {len(parts):,} features, in {len(classes):,} classes",
        f"{'left out':18}{values.count([]):,} without {choice.label}, "
        f"{len(parts) - values.count([]) - len(labels):,} of classes of fewer than {choice.at_least}",
        f"{'sequences':18}{out / SEQUENCES_FILE}",
        f"{'labels':18}{out / LABELS_FILE}",
    ]


def _parts(annotation: Path, genome: Path | None, stack: ExitStack) -> Iterator[_Part]:
    kind = annotation_format(annotation)
    if kind == "GenBank":
        if genome is not None:
            raise UserError(f"--genome {genome}: {annotation} has its sequences itself: expected no genome")
        letters = stack.enter_context(Genome(annotation)).letters
        for record in read_genbank(annotation):
            for feature in record.features:
                yield _Part(feature.type, feature.pieces, feature.qualifiers, letters)
        return
    if genome is None:
        raise UserError(f"{annotation}: has no sequences: expected --genome")
    opened = stack.enter_context(Genome(genome))
    features = list(read_gff3(annotation) if kind == "GFF3" else read_gtf(annotation))
    check_names({one.interval.sequence for one in features}, annotation, opened.lengths, genome)
    for together in _joined(features).values():
        intervals = [feature.interval for feature in together]
        if len({(interval.sequence, interval.strand) for interval in intervals}) == 1:
            pieces = in_transcription_order(intervals)
            yield _Part(together[0].type, pieces, together[0].attributes, opened.letters)


def _joined(features: Iterable[Feature]) -> dict[tuple[str, str], list[Feature]]:
    """The lines of each feature: those of one type and one ID (GFF3) or transcript (GTF)."""
    joined: dict[tuple[str, str], list[Feature]] = {}
    for number, feature in enumerate(features):
        name = feature.first("ID") or feature.first("transcript_id") or f" {number}"
        joined.setdefault((feature.type, name), []).append(feature)
    return joined


def _values(part: _Part, label: str) -> list[str]:
    """The different labels of a feature, in the order in which they stand."""
    if label == "type":
        return [part.type]
    if label == "GO":
        texts = [text for values in part.attributes.values() for text in values]
        return list(dict.fromkeys(term for text in texts for term in _GO_TERM.findall(text)))
    texts = [" ".join(value.split()) for value in part.attributes.get(label, ())]
    return list(dict.fromkeys(text for text in texts if text))


def _name(part: _Part, taken: Mapping[str, list[str]]) -> str:
    """A name of one word that is not taken: the feature's, its place besides where another has that."""
    first, last = part.pieces[0], part.pieces[-1]
    place = f"{first.sequence}:{min(first.start, last.start) + 1}-{max(first.end, last.end)}"
    own = next((part.attributes[tag][0] for tag in _NAMES if part.attributes.get(tag)), place)
    name = "_".join(own.split())
    if name in taken:
        name = f"{name}:{place}:{part.type}"
    return name if name not in taken else f"{name}:{len(taken)}"


def _write_fasta(write: Callable[[str], object], name: str, letters: str) -> None:
    write(f">{name}\n")
    for start in range(0, len(letters), _BASES_PER_LINE):
        write(letters[start : start + _BASES_PER_LINE] + "\n")
