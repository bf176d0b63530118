"""BED with 3 to 12 columns, read and written line by line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from reformer.genomics.coordinates import STRANDS, Interval
from reformer.genomics.formats.lines import Place, numbered_lines
from reformer.training.atomic import atomic_file

_NOT_REGIONS = ("#", "track", "browser")
_MIN_COLUMNS, _MAX_COLUMNS = 3, 12


@dataclass(frozen=True, slots=True)
class Region:
    """A line of a BED file.

    Attributes:
        interval: where it is; BED counts as we do.
        name: column 4, None in a file of three columns.
        score: column 5, None where missing or ".".
        thick: columns 7 and 8, the bases drawn thick (the coding ones of a gene).
        color: column 9, red, green and blue from 0 to 255.
        blocks: columns 10 to 12, the exons of a gene, as intervals of the sequence; empty where missing.
    """

    interval: Interval
    name: str | None = None
    score: float | None = None
    thick: tuple[int, int] | None = None
    color: tuple[int, int, int] | None = None
    blocks: tuple[Interval, ...] = ()


def read_bed(path: str | os.PathLike[str]) -> Iterator[Region]:
    """Yields the regions of a BED file, plain or gzip; comments, "track" and "browser" lines are skipped.

    Columns are separated by tabs, or by spaces in lines without a tab. Columns after the twelfth are ignored.

    Raises:
        UserError: a line is not what it should be; the message names file and line.
    """
    for place, line in numbered_lines(path):
        words = line.split()
        if words and not line.startswith("#") and words[0] not in _NOT_REGIONS:
            yield _region(line.split("\t") if "\t" in line else words, place)


def _region(columns: list[str], place: Place) -> Region:
    if len(columns) < _MIN_COLUMNS:
        raise place.error(f"{len(columns)} columns: expected {_MIN_COLUMNS} to {_MAX_COLUMNS}")
    given = len(columns)
    columns = columns[:_MAX_COLUMNS] + [""] * (_MAX_COLUMNS - given)
    strand = columns[5] or "."
    if strand not in STRANDS:
        raise place.error(f'strand is {strand!r}: expected "+", "-" or "."')
    start, end = place.number(columns[1], "start"), place.number(columns[2], "end")
    try:
        interval = Interval(columns[0], start, end, STRANDS[strand])
    except ValueError as error:
        raise place.error(str(error)) from error
    if not interval.sequence:
        raise place.error("the sequence name is empty: expected a name")
    return Region(
        interval,
        columns[3] or None,
        _score(columns[4], place),
        _thick(columns[6:8], interval, place) if given >= 8 else None,
        _color(columns[8], place),
        _blocks(columns[9:12], interval, place) if given >= 12 else (),
    )


def _score(text: str, place: Place) -> float | None:
    if text in ("", "."):
        return None
    try:
        return float(text)
    except ValueError as error:
        raise place.error(f'score is {text!r}: expected a number or "."') from error


def _thick(columns: list[str], interval: Interval, place: Place) -> tuple[int, int]:
    start, end = place.number(columns[0], "thickStart"), place.number(columns[1], "thickEnd")
    if not interval.start <= start <= end <= interval.end and (start, end) != (0, 0):
        raise place.error(
            f"thick part [{start}, {end}): expected it inside [{interval.start}, {interval.end})"
        )
    return start, end


def _color(text: str, place: Place) -> tuple[int, int, int] | None:
    if text in ("", "0", "."):
        return None
    parts = text.split(",")
    numbers = [place.number(part, "itemRgb") for part in parts]
    if len(numbers) != 3 or max(numbers) > 255:
        raise place.error(f"itemRgb is {text!r}: expected red,green,blue from 0 to 255")
    return numbers[0], numbers[1], numbers[2]


def _blocks(columns: list[str], interval: Interval, place: Place) -> tuple[Interval, ...]:
    count = place.number(columns[0], "blockCount")
    sizes, starts = (
        [place.number(part, what) for part in text.rstrip(",").split(",") if text.strip(",")]
        for text, what in zip(columns[1:], ("blockSizes", "blockStarts"), strict=True)
    )
    if not count == len(sizes) == len(starts):
        raise place.error(
            f"blockCount is {count}, sizes are {len(sizes)}, starts {len(starts)}: expected as many of each"
        )
    blocks = tuple(
        Interval(interval.sequence, interval.start + start, interval.start + start + size, interval.strand)
        for start, size in zip(starts, sizes, strict=True)
    )
    for before, after in pairwise(blocks):
        if after.start < before.end:
            raise place.error("blocks overlap or are not in order: expected rising blockStarts")
    if blocks and (blocks[0].start, blocks[-1].end) != (interval.start, interval.end):
        raise place.error("the blocks do not begin and end with the region: expected them to")
    return blocks


def write_bed(path: str | os.PathLike[str], regions: Iterable[Region], num_columns: int = 6) -> None:
    """Writes regions as they come; the file is either whole or not there.

    Args:
        path: the file, replaced if there is one.
        regions: what to write.
        num_columns: 3, 4, 5, 6, 8, 9 or 12; what a region lacks is written as the format has it.

    Raises:
        ValueError: another number of columns.
    """
    if num_columns not in (3, 4, 5, 6, 8, 9, 12):
        raise ValueError(f"num_columns is {num_columns}: expected 3, 4, 5, 6, 8, 9 or 12")
    with atomic_file(Path(path)) as partial, open(partial, "w", encoding="utf-8") as file:
        for region in regions:
            file.write("\t".join(_columns(region)[:num_columns]) + "\n")


def _columns(region: Region) -> list[str]:
    interval = region.interval
    thick = region.thick or (interval.start, interval.start)  # the format's way to say: none
    blocks = region.blocks or (interval,)
    return [
        interval.sequence,
        str(interval.start),
        str(interval.end),
        region.name or ".",
        "0" if region.score is None else f"{region.score:.10g}",
        interval.strand,
        *map(str, thick),
        "0" if region.color is None else ",".join(map(str, region.color)),
        str(len(blocks)),
        ",".join(str(len(block)) for block in blocks),
        ",".join(str(block.start - interval.start) for block in blocks),
    ]
