"""Variants of a VCF file, through pysam, and VCF.gz with scores and a tabix index."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal

from reformer.data.sources import SourceFile, SourceReader
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.extras import require
from reformer.genomics.formats.htslib import silent_htslib
from reformer.genomics.formats.lines import numbered_lines
from reformer.genomics.formats.variant_lines import check_variant_lines
from reformer.training.atomic import atomic_file

_ESCAPED_IN_INFO = {ord(letter): f"%{ord(letter):02X}" for letter in "%;=, \t\r\n"}

_LONGEST_IN_TBI = 1 << 29  # bases
_CONTIG_LENGTH = re.compile(r"[<,]length=(\d+)[,>]")
_INFO_END = re.compile(r"(?:^|;)END=(\d+)(?:;|$)")

Value = float | int | str | tuple[float, ...]


@dataclass(frozen=True)
class InfoField:
    """A field that scores are written to: `number` is "1", "A" (one for each ALT), "R" or "."."""

    name: str
    number: str
    type: Literal["Float", "Integer", "String"]
    description: str


@dataclass(frozen=True)
class Filter:
    """A reason why a variant is set aside, for the FILTER column."""

    name: str
    description: str


@dataclass(frozen=True)
class Scored:
    """What is written to the line of a variant: values of INFO fields, not all need be there, and filters."""

    values: Mapping[str, Value]
    filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variant:
    """A line of a VCF file: the interval of its REF, counted from 0, and its alleles, ALT possibly empty."""

    interval: Interval
    name: str | None
    reference: str
    alternatives: tuple[str, ...]
    where: str


def read_variants(path: str | os.PathLike[str], *, is_sorted: bool = False) -> Iterator[Variant]:
    """Yields the variants of a VCF, VCF.gz or BCF file, in the order of the file.

    Args:
        path: the file.
        is_sorted: whether it must be sorted by position within each sequence.

    Raises:
        UserError: pysam is missing, the file is not VCF or not sorted, or a line of it is not what it should
            be.
    """
    pairs = _read(path)
    for variant, _ in _sorted(pairs) if is_sorted else pairs:
        yield variant


def read_scores(path: str | os.PathLike[str], field: str) -> Iterator[tuple[Variant, tuple[float, ...]]]:
    """Yields variants with what `write_scored_variants` wrote to a field of INFO, NaN where there is none.

    Raises:
        UserError: pysam is missing, or the file is not VCF.
    """
    for variant, columns in _read(path):
        values = dict(item.partition("=")[::2] for item in columns[7].split(";")).get(field)
        numbers = (values or ",".join("." * len(variant.alternatives))).split(",")
        yield variant, tuple(float("nan") if number == "." else float(number) for number in numbers)


def write_scored_variants(
    path: str | os.PathLike[str],
    source: str | os.PathLike[str],
    fields: Sequence[InfoField],
    score: Callable[[Iterator[Variant]], Iterator[Scored]],
    filters: Sequence[Filter] = (),
    provenance: str | None = None,
    outdated: Sequence[str] = (),
) -> None:
    """Copies a VCF file, its header and columns included, to VCF.gz (BGZF) with scores added to INFO.

    The tabix index ``path.tbi`` comes with it, or ``path.csi`` where a sequence is longer than the 2^29 bases
    that a .tbi can index. Both files are either whole or not there.
    Only the variants that `score` has taken and not yet answered are in memory.

    Args:
        path: the file to write, ending with ``.vcf.gz``.
        source: the file to read, sorted by position within each sequence.
        fields: declared in the header; a field that the source has already must be declared alike.
        score: takes the variants and gives what is written to each, in their order; it may look ahead.
        filters: declared in the header; a variant keeps its other filters.
        provenance: what made the scores, in a line; kept in the header under the name of the first field.
        outdated: fields of an earlier run that are left out, since they say nothing of these scores.

    Raises:
        UserError: the source is wrong (see `read_variants`), not sorted, or has a field of that name declared
            otherwise.
    """
    pysam = require("pysam", "to write VCF")
    path = Path(path)
    if not path.name.endswith(".vcf.gz"):
        raise UserError(f"{path}: expected a name that ends with .vcf.gz")
    *header, names = _header(source, fields, filters, outdated)
    declarations = [*map(_declaration, fields), *map(_filter_declaration, filters)]
    if provenance is not None:
        declarations.append(f"{_provenance_key(fields)}{provenance}")
    longest = _longest_declared(header)
    taken: deque[list[str]] = deque()

    def variants() -> Iterator[Variant]:
        nonlocal longest
        for variant, columns in _sorted(_read(source)):
            taken.append(columns)
            longest = max(longest, _last_base(variant, columns))
            yield variant

    with atomic_file(path) as partial:
        # Lines are copied as text: pysam's own records gain an INFO/END that no header declares.
        with pysam.BGZFile(str(partial), "wb") as out:
            for line in [*header, *declarations, names]:
                out.write(f"{line}\n".encode())
            for scored in score(variants()):
                columns = taken.popleft()
                columns[6] = _filters(columns[6], filters, scored.filters)
                columns[7] = _info(columns[7], fields, scored.values, outdated)
                out.write(("\t".join(columns) + "\n").encode())
        if taken:
            raise ValueError(f"{len(taken)} variants were not scored: expected as many scores as variants")
        index, other = Path(f"{path}.tbi"), Path(f"{path}.csi")
        if needs_csi := longest > _LONGEST_IN_TBI:
            index, other = other, index
        with atomic_file(index) as partial_index:
            pysam.tabix_index(str(partial), preset="vcf", force=True, index=str(partial_index), csi=needs_csi)
    other.unlink(missing_ok=True)  # of an earlier file of this name


def _header(
    source: str | os.PathLike[str],
    fields: Sequence[InfoField],
    filters: Sequence[Filter],
    outdated: Sequence[str],
) -> list[str]:
    """The lines of the header without our declarations, which may be there from an earlier run."""
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
    infos = [*(field.name for field in fields), *outdated]
    ours = tuple(f"##INFO=<ID={name}," for name in infos)
    ours += tuple(f"##FILTER=<ID={one.name}," for one in filters)
    ours += (_provenance_key(fields),) if fields else ()
    return [line for line in lines if not line.startswith(ours)]


def _provenance_key(fields: Sequence[InfoField]) -> str:
    return f"##{fields[0].name}_provenance="


def _longest_declared(header: Sequence[str]) -> int:
    """Bases of the longest sequence that the header gives the length of; 0 where it gives none."""
    contigs = (line for line in header if line.startswith("##contig=<"))
    return max((int(found[1]) for line in contigs if (found := _CONTIG_LENGTH.search(line))), default=0)


def _last_base(variant: Variant, columns: list[str]) -> int:
    """The last base that an index takes a variant to have."""
    end = _INFO_END.search(columns[7])
    return max(variant.interval.end, int(end[1]) if end else 0)


def _declaration(field: InfoField) -> str:
    text = _quoted(field.description)
    return f"##INFO=<ID={field.name},Number={field.number},Type={field.type},Description={text}>"


def _filter_declaration(one: Filter) -> str:
    return f"##FILTER=<ID={one.name},Description={_quoted(one.description)}>"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "/").replace('"', "'") + '"'


def _filters(column: str, known: Sequence[Filter], found: tuple[str, ...]) -> str:
    """The FILTER column with those of our filters that were found, instead of those of an earlier run."""
    ours = {one.name for one in known}
    if unknown := set(found) - ours:
        raise ValueError(f"filters {sorted(unknown)} are not among the declared filters")
    kept = [name for name in column.split(";") if name not in ours]
    if not found:
        return ";".join(kept) or "."
    return ";".join([name for name in kept if name not in (".", "PASS")] + list(found))


def _info(
    info: str, fields: Sequence[InfoField], scores: Mapping[str, Value], outdated: Sequence[str]
) -> str:
    """The INFO column with our fields at its end, in the place of those of an earlier run."""
    if unknown := scores.keys() - {field.name for field in fields}:
        raise ValueError(f"scores {sorted(unknown)} are not among the declared fields")
    ours = {field.name for field in fields} | set(outdated)
    kept = [item for item in info.split(";") if item not in ("", ".") and item.partition("=")[0] not in ours]
    added = [f"{field.name}={_value(scores[field.name])}" for field in fields if field.name in scores]
    return ";".join([*kept, *added]) or "."


def _value(value: Value) -> str:
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
        raise UserError(f"{source.path}: not VCF: {_fault(source)}") from error
    return opened


def _fault(source: SourceFile) -> str:
    """What is wrong with the header of a file that htslib does not open.

    Raises:
        UserError: the file is damaged gzip.
    """
    beginning = next(SourceReader(source, lambda _: None).blocks(), b"")
    if not beginning.startswith(b"##fileformat=VCF"):
        return 'expected "##fileformat=VCF" in line 1'
    return (
        'expected the line of columns that begins with "#CHROM", and before it only lines of "##NAME=VALUE"'
    )


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
