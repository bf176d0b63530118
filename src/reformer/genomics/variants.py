"""Variants of a VCF file, through pysam, and VCF.gz with scores and a tabix index."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reformer.data.sources import SourceFile
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.extras import require
from reformer.training.atomic import atomic_file

Scores = Mapping[str, float | int | str | tuple[float, ...]]


@dataclass(frozen=True)
class InfoField:
    """A field that scores are written to: `number` is "1", "A" (one for each ALT), "R" or "."."""

    name: str
    number: str
    type: Literal["Float", "Integer", "String"]
    description: str


@dataclass(frozen=True)
class Variant:
    """A line of a VCF file: the interval of its REF, counted from 0, and its alleles, ALT possibly empty."""

    interval: Interval
    name: str | None
    reference: str
    alternatives: tuple[str, ...]
    where: str


def read_variants(path: str | os.PathLike[str]) -> Iterator[Variant]:
    """Yields the variants of a VCF, VCF.gz or BCF file, in the order of the file.

    Raises:
        UserError: pysam is missing, the file is not VCF, or a line of it is not what it should be.
    """
    for variant, _ in _read(path):
        yield variant


def variant_sequences(path: str | os.PathLike[str]) -> set[str]:
    """The names of the sequences that have variants, for `check_names`; reads the whole file."""
    return {variant.interval.sequence for variant in read_variants(path)}


def write_scored_variants(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    fields: list[InfoField],
    score: Callable[[Variant], Scores],
) -> None:
    """Copies a VCF file, its header and columns included, to VCF.gz (BGZF) with scores added to INFO.

    The tabix index ``path.tbi`` comes with it. Both are either whole or not there.
    One variant is in memory at a time.

    Args:
        path: the file to write, ending with ``.vcf.gz``.
        source: the file to read, sorted by position within each sequence.
        fields: declared in the header; a field that the source has already must be declared alike.
        score: the values of the fields for a variant; a field may be missing.

    Raises:
        UserError: the source is wrong (see `read_variants`), not sorted, or has a field of that name declared
            otherwise.
    """
    pysam = require("pysam", "to write VCF")
    path = Path(path)
    if not path.name.endswith(".vcf.gz"):
        raise UserError(f"{path}: expected a name that ends with .vcf.gz")
    with _open(source) as opened:
        header = opened.header.copy()
    _declare(header, fields, source)
    index = Path(f"{path}.tbi")
    with atomic_file(index) as partial_index, atomic_file(path) as partial:
        with pysam.VariantFile(str(partial), "wz", header=header) as out:
            for variant, record in _sorted(_read(source)):
                record.translate(out.header)
                for name, value in score(variant).items():
                    record.info[name] = value
                out.write(record)
        pysam.tabix_index(str(partial), preset="vcf", force=True, index=str(partial_index))


def _declare(header: Any, fields: list[InfoField], source: str | os.PathLike[str]) -> None:
    for field in fields:
        if (known := header.info.get(field.name)) is not None:
            if (str(known.number), known.type) != (field.number, field.type):
                raise UserError(
                    f"{source}: INFO field {field.name!r} is declared as Number={known.number}, "
                    f"Type={known.type}: expected Number={field.number}, Type={field.type}"
                )
            continue
        description = field.description.replace('"', "'")
        header.add_line(
            f'##INFO=<ID={field.name},Number={field.number},Type={field.type},Description="{description}">'
        )


def _sorted(pairs: Iterator[tuple[Variant, Any]]) -> Iterator[tuple[Variant, Any]]:
    seen: set[str] = set()
    sequence, start = None, 0
    for variant, record in pairs:
        interval = variant.interval
        if interval.sequence != sequence:
            if interval.sequence in seen:
                raise UserError(f"{variant.where}: {interval.sequence!r} comes again: expected a sorted file")
            seen.add(interval.sequence)
        elif interval.start < start:
            raise UserError(f"{variant.where}: comes after position {start + 1}: expected a sorted file")
        sequence, start = interval.sequence, interval.start
        yield variant, record


def _open(path: str | os.PathLike[str]) -> Any:
    pysam = require("pysam", "to read VCF")
    source = SourceFile.at(path)
    verbosity = pysam.set_verbosity(0)  # htslib would print its own message before ours
    try:
        opened = pysam.VariantFile(str(source.path))
    except (OSError, ValueError) as error:
        raise UserError(f'{source.path}: not VCF: expected "##fileformat=VCF" in line 1') from error
    finally:
        pysam.set_verbosity(verbosity)
    return opened


def _read(path: str | os.PathLike[str]) -> Iterator[tuple[Variant, Any]]:
    from reformer.genomics.variant_lines import check_variant_lines

    pysam = require("pysam", "to read VCF")
    with _open(path) as opened:
        lines = check_variant_lines(path) if opened.format == "VCF" else None
        number = 0
        verbosity = pysam.set_verbosity(0)
        try:
            for number, record in enumerate(opened, 1):
                where = str(next(lines)) if lines is not None else f"{path}, variant {number}"
                interval = Interval(record.chrom, record.start, record.start + len(record.ref))
                yield Variant(interval, record.id, record.ref, tuple(record.alts or ()), where), record
            if lines is not None and (rest := next(lines, None)) is not None:
                raise rest.error("cannot be read as a variant")
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            place = next(lines, None) if lines is not None else None
            where = str(place) if place is not None else f"{path}, variant {number + 1}"
            raise UserError(f"{where}: not a line of VCF: {' '.join(str(error).split())}") from error
        finally:
            pysam.set_verbosity(verbosity)
