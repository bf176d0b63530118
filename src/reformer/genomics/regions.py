"""Regions of a genome that a BED file names, for work that is done nowhere else."""

from __future__ import annotations

from pathlib import Path

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.bed import read_bed
from reformer.genomics.genome import Genome


def regions_of(bed: Path, genome: Genome) -> list[Interval]:
    """The regions of a BED file in the order of the genome, those that touch as one; strands do not matter.

    Raises:
        UserError: the file is wrong or empty, or has regions that are not in the genome.
    """
    given = [region.interval for region in read_bed(bed)]
    check_names({interval.sequence for interval in given}, bed, genome.lengths, genome.path)
    order = {name: number for number, name in enumerate(genome.lengths)}
    merged: list[Interval] = []
    for interval in sorted(given, key=lambda one: (order[one.sequence], one.start)):
        name, start, end = interval.sequence, interval.start, interval.end
        if end > genome.lengths[name]:
            raise UserError(
                f"{bed}: a region ends at {end:,}, but {name!r} has {genome.lengths[name]:,} bases"
            )
        if merged and merged[-1].sequence == name and start <= merged[-1].end:
            start, end = merged[-1].start, max(end, merged.pop().end)
        if start < end:
            merged.append(Interval(name, start, end))
    if not merged:
        raise UserError(f"{bed}: no regions: expected one at least")
    return merged
