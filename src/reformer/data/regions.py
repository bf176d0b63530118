"""Stretches of a token array that training leaves out, so that it can be evaluated on them."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from reformer.data.names import check_names
from reformer.data.sources import SourceFile, SourceReader
from reformer.data.tokens import Record, TokenArray
from reformer.errors import UserError

_NOT_REGIONS = ("#", "track", "browser")


def read_regions(path: str | os.PathLike[str], array: TokenArray) -> list[Record]:
    """Reads name, start and end of the lines of a BED file, plain or gzip; the other columns do not matter.

    Returns:
        Stretches of records of the array, in the order of the file.

    Raises:
        UserError: a line is not what it should be, or speaks of bases that the array does not have.
    """
    source = SourceFile.at(path)
    text = b"".join(SourceReader(source, lambda _: None).blocks()).decode("utf-8", "replace")
    by_name = {record.name: record for record in array.records}
    genome = ", ".join(one.path for one in array.sources)
    regions = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith(_NOT_REGIONS[0]) or words[0] in _NOT_REGIONS:
            continue
        where = f"{source.path}, line {number}"
        if len(words) < 3 or not (words[1].isdecimal() and words[2].isdecimal()):
            raise UserError(f"{where}: expected a name, a start and an end")
        name, start, end = words[0], int(words[1]), int(words[2])
        check_names([name], where, by_name, genome)
        record = by_name[name]
        if not start < end <= record.length:
            raise UserError(f"{where}: [{start}, {end}): expected bases of the {record.length:,} of {name!r}")
        regions.append(Record(f"{name}:{start}-{end}", record.start + start, end - start))
    if not regions:
        raise UserError(f"{source.path}: no region: expected a name, a start and an end in a line")
    return regions


def named_records(array: TokenArray, names: Iterable[str]) -> list[Record]:
    """The records of these names; UserError if there is none of a name, see `check_names`."""
    by_name = {record.name: record for record in array.records}
    check_names(names, "held_out_records", by_name, ", ".join(source.path for source in array.sources))
    return [by_name[name] for name in names]


def hold_out(array: TokenArray, regions: Sequence[Record]) -> tuple[TokenArray, TokenArray]:
    """Splits an array into what lies outside of some regions and these themselves.

    Args:
        array: the array.
        regions: stretches of it in any order, which may overlap.

    Returns:
        The rest, and the held-out regions, those that overlap or touch in one record as one.

    Raises:
        UserError: nothing remains.
    """
    rest: list[Record] = []
    held_out: list[Record] = []
    ordered = sorted(regions, key=lambda region: region.start)
    region_starts = [region.start for region in ordered]
    for record in array.records:
        first = bisect_left(region_starts, record.start)
        inside = ordered[first : bisect_left(region_starts, record.start + record.length, first)]
        merged = _merged(record, inside)
        held_out += merged
        starts = [record.start, *(region.start + region.length for region in merged)]
        ends = [*(region.start for region in merged), record.start + record.length]
        rest += [_stretch(record, start, end) for start, end in zip(starts, ends, strict=True) if start < end]
    if not rest:
        raise UserError(f"{array.sources[0].path}: all of it is held out: nothing remains to train on")
    return array.select(rest), array.select(held_out)


def _merged(record: Record, regions: list[Record]) -> list[Record]:
    spans: list[tuple[int, int]] = []
    for region in regions:
        start, end = region.start, region.start + region.length
        if spans and start <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((start, end))
    return [_stretch(record, start, end) for start, end in spans]


def _stretch(record: Record, start: int, end: int) -> Record:
    """A part of a record, named by its place in it; the whole keeps the record's name."""
    if (start, end) == (record.start, record.start + record.length):
        return record
    return Record(f"{record.name}:{start - record.start}-{end - record.start}", start, end - start)
