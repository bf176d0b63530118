"""GFF3, read line by line and written.

The parser is ours: of the libraries, gffutils puts every feature into an SQLite database first and
bcbio-gff reads whole files into Biopython records; neither says the line of a mistake. Format: the Sequence
Ontology's GFF3 specification, version 1.26.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from reformer.genomics.formats.features import Attributes, Feature, feature_of, split_columns
from reformer.genomics.formats.lines import Place, numbered_lines
from reformer.training.atomic import atomic_file

_BAD_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")
_ONE_VALUE = {"ID", "Name", "Target", "Gap", "Derives_from", "Is_circular"}
_ESCAPED_ANYWHERE = {code: f"%{code:02X}" for code in [*range(0x20), 0x7F, ord("%")]}
_ESCAPED_IN_ATTRIBUTES = _ESCAPED_ANYWHERE | {ord(letter): f"%{ord(letter):02X}" for letter in ";=&,"}
_FASTA = "##FASTA"


def read_gff3(path: str | os.PathLike[str]) -> Iterator[Feature]:
    """Yields the features of a GFF3 file, plain or gzip, in the order of the file.

    Comments and directives are skipped; a FASTA section ends the features.

    Raises:
        UserError: a line is not what it should be; the message names file and line.
    """
    for place, line in numbered_lines(path):
        if line == _FASTA or line.startswith(">"):
            return
        if place.line == 1 and line.startswith("##gff-version") and line.split()[1:2] != ["3"]:
            if line.split()[1:2] and line.split()[1].startswith("3."):
                continue
            raise place.error(f'{line!r}: expected "##gff-version 3"')
        if line.strip() and not line.startswith("#"):
            yield _feature(line, place)


def write_gff3(
    path: str | os.PathLike[str], features: Iterable[Feature], lengths: Mapping[str, int] | None = None
) -> None:
    """Writes features as they come; the file is either whole or not there.

    Args:
        path: the file, replaced if there is one.
        features: none of them empty.
        lengths: bases of each sequence, for ``##sequence-region``.
    """
    with atomic_file(Path(path)) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write("##gff-version 3\n")
        for name, length in (lengths or {}).items():
            file.write(f"##sequence-region {_escape(name)} 1 {length}\n")
        for feature in features:
            file.write(f"{format_gff3(feature)}\n")


def format_gff3(feature: Feature) -> str:
    """The line of a feature, without its end."""
    first, last = feature.interval.closed
    attributes = ";".join(
        f"{_escape_attribute(tag)}={','.join(map(_escape_attribute, values))}"
        for tag, values in feature.attributes.items()
    )
    columns = (
        _escape(feature.interval.sequence),
        _escape(feature.source),
        _escape(feature.type),
        str(first),
        str(last),
        "." if feature.score is None else repr(float(feature.score)),
        feature.interval.strand,
        "." if feature.phase is None else str(feature.phase),
        attributes or ".",
    )
    return "\t".join(columns)


def _feature(line: str, place: Place) -> Feature:
    if _BAD_ESCAPE.search(line):
        raise place.error(
            'a "%" that two hexadecimal digits do not follow: expected "%25" for a percent sign'
        )
    columns = split_columns(line, place)
    names = [unquote(column) for column in columns[:3]]
    return feature_of([*names, *columns[3:8]], _attributes(columns[8], place), place)


def _attributes(text: str, place: Place) -> Attributes:
    attributes: dict[str, tuple[str, ...]] = {}
    for pair in text.split(";") if text != "." else []:
        pair = pair.lstrip(" ")  # spaces after ";" are common; those at the end belong to the value
        if not pair:
            continue
        tag, equals, values = pair.partition("=")
        if not equals or not tag:
            raise place.error(f"attribute {pair!r}: expected tag=value")
        tag = unquote(tag)
        if tag in attributes:
            raise place.error(f"attribute {tag!r} occurs twice: expected tag=value,value")
        parts = [values] if tag in _ONE_VALUE else values.split(",")
        attributes[tag] = tuple(map(unquote, parts))
    return attributes


def _escape(text: str) -> str:
    # A ">" at the start of a line would begin a FASTA section, a "#" a comment.
    text = text.translate(_ESCAPED_ANYWHERE)
    return f"%{ord(text[0]):02X}{text[1:]}" if text[:1] in (">", "#") else text


def _escape_attribute(text: str) -> str:
    return text.translate(_ESCAPED_IN_ATTRIBUTES)
