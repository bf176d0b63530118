"""Variants of a VCF file, through pysam, and VCF.gz with scores and a tabix index."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

from reformer.data.sources import SourceFile
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.extras import require
from reformer.genomics.htslib import silent_htslib
from reformer.genomics.lines import numbered_lines
from reformer.genomics.variant_lines import check_variant_lines
from reformer.training.atomic import atomic_file

_ESCAPED_IN_INFO = {ord(letter): f"%{ord(letter):02X}" for letter in "%;=, \t\r\n"}

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
    *header, names = _header(source, fields)
    index = Path(f"{path}.tbi")
    with atomic_file(index) as partial_index, atomic_file(path) as partial:
        # Lines are copied as text: pysam's own records gain an INFO/END that no header declares.
        with pysam.BGZFile(str(partial), "wb") as out:
            for line in [*header, *map(_declaration, fields), names]:
                out.write(f"{line}\n".encode())
            for variant, columns in _sorted(_read(source)):
                columns[7] = _info(columns[7], fields, score(variant))
                out.write(("\t".join(columns) + "\n").encode())
        pysam.tabix_index(str(partial), preset="vcf", force=True, index=str(partial_index))


def _header(source: str | os.PathLike[str], fields: list[InfoField]) -> list[str]:
    """The lines of the header without our fields, which may be there from an earlier run."""
    with _open(source) as opened:
        declared, lines = opened.header.info, str(opened.header).splitlines()
        if opened.format == "VCF":
            lines = [line for _, line in takewhile(lambda pair: pair[1][:1] == "#", numbered_lines(source))]
        for field in fields:
            known = declared.get(field.name)
            if known is not None and (str(known.number), known.type) != (field.number, field.type):
                raise UserError(
                    f"{source}: INFO field {field.name!r} is declared as Number={known.number}, "
                    f"Type={known.type}: expected Number={field.number}, Type={field.type}"
                )
    ours = tuple(f"##INFO=<ID={field.name}," for field in fields)
    return [line for line in lines if not line.startswith(ours)]


def _declaration(field: InfoField) -> str:
    description = field.description.replace("\\", "/").replace('"', "'")
    return f'##INFO=<ID={field.name},Number={field.number},Type={field.type},Description="{description}">'


def _info(info: str, fields: list[InfoField], scores: Scores) -> str:
    """The INFO column with our fields at its end, in the place of those of an earlier run."""
    if unknown := scores.keys() - {field.name for field in fields}:
        raise ValueError(f"scores {sorted(unknown)} are not among the declared fields")
    ours = {field.name for field in fields}
    kept = [item for item in info.split(";") if item not in ("", ".") and item.partition("=")[0] not in ours]
    added = [f"{field.name}={_value(scores[field.name])}" for field in fields if field.name in scores]
    return ";".join([*kept, *added]) or "."


def _value(value: float | int | str | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_value, value)) or "."
    if isinstance(value, str):
        return value.translate(_ESCAPED_IN_INFO) or "."
    return "." if value != value else f"{value:.6g}" if isinstance(value, float) else str(value)


def _sorted(pairs: Iterator[tuple[Variant, list[str]]]) -> Iterator[tuple[Variant, list[str]]]:
    seen: set[str] = set()
    sequence, start = None, 0
    for variant, columns in pairs:
        interval = variant.interval
        if interval.sequence != sequence:
            if interval.sequence in seen:
                raise UserError(f"{variant.where}: {interval.sequence!r} comes again: expected a sorted file")
            seen.add(interval.sequence)
        elif interval.start < start:
            raise UserError(f"{variant.where}: comes after position {start + 1}: expected a sorted file")
        sequence, start = interval.sequence, interval.start
        yield variant, columns


def _open(path: str | os.PathLike[str]) -> Any:
    pysam = require("pysam", "to read VCF")
    source = SourceFile.at(path)
    try:
        with silent_htslib():
            opened = pysam.VariantFile(str(source.path))
    except (OSError, ValueError) as error:
        raise UserError(f'{source.path}: not VCF: expected "##fileformat=VCF" in line 1') from error
    return opened


def _read(path: str | os.PathLike[str]) -> Iterator[tuple[Variant, list[str]]]:
    """Yields variants with the columns of their lines."""
    with _open(path) as opened:
        lines = check_variant_lines(path) if opened.format == "VCF" else None
        records = iter(opened)
        for number in count(1):
            # The line is looked at first: our message says more than htslib's.
            place, columns = next(lines, (None, [])) if lines is not None else (None, [])
            where = str(place or f"{path}, variant {number}")
            try:
                with silent_htslib():
                    record = next(records, None)
            except (OSError, ValueError) as error:
                raise UserError(f"{where}: not a line of VCF: {' '.join(str(error).split())}") from error
            if record is None and place is None:
                return
            if record is None or (lines is not None and place is None):
                raise UserError(f"{where}: htslib does not see the lines that are there")
            interval = Interval(record.chrom, record.start, record.start + len(record.ref))
            variant = Variant(interval, record.id, record.ref, tuple(record.alts or ()), where)
            yield variant, columns or str(record).rstrip("\n").split("\t")
