"""An annotation, whatever its format: told by the name of the file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from reformer.data.genbank import GENBANK_SUFFIXES
from reformer.errors import UserError
from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.genbank import read_genbank
from reformer.genomics.formats.gff3 import read_gff3
from reformer.genomics.formats.gff3_genes import genes_of_gff3
from reformer.genomics.formats.gtf import read_gtf
from reformer.genomics.formats.gtf_genes import genes_of_gtf
from reformer.genomics.genes import Gene

_GFF3, _GTF = (".gff", ".gff3"), (".gtf",)


def read_genes(path: str | os.PathLike[str]) -> list[Gene]:
    """Reads the genes of a GFF3, GTF or GenBank file, plain or gzip.

    Raises:
        UserError: the name ends with none of the known endings, or the file is not what its name says.
    """
    kind = annotation_format(path)
    if kind == "GFF3":
        return genes_of_gff3(read_gff3(path))
    if kind == "GTF":
        return genes_of_gtf(read_gtf(path))
    return [gene for record in read_genbank(path) for gene in record.genes]


def read_features(path: str | os.PathLike[str]) -> Iterator[Feature]:
    """Yields the features of a GFF3, GTF or GenBank file, plain or gzip, of GenBank piece by piece.

    A gene that the file marks as a pseudogene has the type "pseudogene" in all formats.

    Raises:
        UserError: as `read_genes` does.
    """
    for feature in _features(path):
        marks = {"pseudo", "pseudogene"} & feature.attributes.keys()
        is_pseudogene = feature.type == "gene" and any(feature.first(mark) != "false" for mark in marks)
        yield replace(feature, type="pseudogene") if is_pseudogene else feature


def _features(path: str | os.PathLike[str]) -> Iterator[Feature]:
    kind = annotation_format(path)
    if kind != "GenBank":
        yield from (read_gff3 if kind == "GFF3" else read_gtf)(path)
        return
    for record in read_genbank(path):
        for feature in record.features:
            for piece in feature.pieces:
                yield Feature(piece, feature.type, attributes=feature.qualifiers)


def annotation_format(path: str | os.PathLike[str]) -> Literal["GFF3", "GTF", "GenBank"]:
    """Tells the format by the name of the file; UserError where that ends with none of the known endings."""
    suffix = _suffix(path)
    if suffix in _GFF3:
        return "GFF3"
    if suffix in _GTF:
        return "GTF"
    if suffix in GENBANK_SUFFIXES:
        return "GenBank"
    endings = ", ".join([*_GFF3, *_GTF, *GENBANK_SUFFIXES])
    raise UserError(
        f"{path}: not known as an annotation: expected a name that ends with {endings} or .gz after it"
    )


def is_genbank(path: str | os.PathLike[str]) -> bool:
    """Whether a file has the name of a GenBank file, which holds sequences and their genes."""
    return _suffix(path) in GENBANK_SUFFIXES


def _suffix(path: str | os.PathLike[str]) -> str:
    return Path(Path(path).name.removesuffix(".gz")).suffix.lower()
