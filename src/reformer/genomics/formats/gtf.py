"""GTF (GFF 2.2), read line by line.

The parser is ours for the reasons that `.gff3` gives; gtfparse reads a whole file into a data frame.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from reformer.genomics.formats.features import Attributes, Feature, feature_of, split_columns
from reformer.genomics.formats.lines import Place, numbered_lines

# A value may hold ";" within its quotes, and a quote behind a backslash.
_ATTRIBUTE = re.compile(r'\s*([^\s";]+)\s+(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))\s*(?:;|$)')


def read_gtf(path: str | os.PathLike[str]) -> Iterator[Feature]:
    """Yields the features of a GTF file, plain or gzip, in the order of the file.

    Raises:
        UserError: a line is not what it should be, or its feature has no gene_id; the message names file
            and line.
    """
    for place, line in numbered_lines(path):
        if line.strip() and not line.startswith("#"):
            columns = split_columns(line, place)
            attributes = _attributes(columns[8], place)
            if "gene_id" not in attributes:
                raise place.error('no gene_id: expected gene_id "NAME"; among the attributes')
            yield feature_of(columns, attributes, place)


def _attributes(text: str, place: Place) -> Attributes:
    attributes: dict[str, list[str]] = {}
    text, position = text.rstrip(), 0
    while position < len(text):
        match = _ATTRIBUTE.match(text, position)
        if match is None:
            raise place.error(f'attribute {text[position : position + 30].strip()!r}: expected tag "value";')
        tag, quoted, bare = match.groups()
        value = quoted.replace('\\"', '"') if quoted is not None else bare
        attributes.setdefault(tag, []).append(value)
        position = match.end()
    return {tag: tuple(values) for tag, values in attributes.items()}
