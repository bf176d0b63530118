"""In silico mutagenesis: every substitution of the bases of some regions, scored as variants are.

What comes out are files for other programs, VCF and bigWig, and a report with a heat map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.bed import read_bed
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.genome import Genome
from reformer.genomics.variants.scorers import Scorer
from reformer.genomics.variants.scoring import write_scores
from reformer.genomics.variants.vcf import read_scores
from reformer.training import report_page as page
from reformer.training.atomic import atomic_folder, write_text_atomically
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SCORES_FILE, TRACKS, REPORT_FILE = "substitutions.vcf.gz", "tracks", "report.html"
BASES = "ACGT"
_BASES_PER_PLOT, _MAX_PLOTS = 120, 25

Scores = npt.NDArray[np.float32]
"""``[bases, 4]``: what a substitution by A, C, G or T changes, NaN for the base that is there."""


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


def mutate(
    out: Path,
    regions: Sequence[Interval],
    genome: Genome,
    scorer: Scorer,
    on_bases: Callable[[int], None] = lambda number: None,
) -> None:
    """Scores all substitutions of the regions and writes a folder, whole or not at all.

    It has `substitutions.vcf.gz` with a tabix index, a line for each base that is A, C, G or T, with its
    three ALTs and their scores; of the scorer's first field `tracks/A.bw` to `T.bw`, the score of a
    substitution by that base, and `tracks/mean.bw`, the mean of the three; and `report.html` with heat maps.

    Args:
        out: the folder, which must not be there.
        regions: see `regions_of`.
        genome: where they are.
        scorer: the model.
        on_bases: called with the number of bases that are done since the last call.

    Raises:
        UserError: no base of the regions is A, C, G or T.
    """
    with atomic_folder(out) as partial:
        unscored = partial / "substitutions.vcf"
        if not _write_substitutions(unscored, regions, genome):
            raise UserError(f"{genome.path}: no A, C, G or T in the regions")
        write_scores(partial / SCORES_FILE, unscored, genome, scorer, on_bases)
        unscored.unlink()
        field = scorer.fields[0]
        scores = _read(partial / SCORES_FILE, field.name, regions)
        (partial / TRACKS).mkdir()
        for name, column in [*zip(BASES, range(4), strict=True), ("mean", None)]:
            values = [_mean(one) if column is None else one[:, column] for one in scores]
            blocks = ((r.sequence, r.start, track) for r, track in zip(regions, values, strict=True))
            write_bigwig(partial / TRACKS / f"{name}.bw", genome.lengths, blocks)
        _write_report(partial / REPORT_FILE, genome, regions, scores, f"{field.name}: {field.description}")


def _write_substitutions(path: Path, regions: Sequence[Interval], genome: Genome) -> int:
    """Writes a VCF file with every substitution; returns its number of lines."""
    num_lines = 0
    with open(path, "w", encoding="utf-8") as file:
        file.write("##fileformat=VCFv4.2\n")
        file.writelines(f"##contig=<ID={name},length={length}>\n" for name, length in genome.lengths.items())
        file.write("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
        for region in regions:
            for position, letter in enumerate(genome.letters(region).upper(), start=region.start + 1):
                if letter in BASES:
                    others = ",".join(base for base in BASES if base != letter)
                    file.write(f"{region.sequence}\t{position}\t.\t{letter}\t{others}\t.\t.\t.\n")
                    num_lines += 1
    return num_lines


def _read(path: Path, field: str, regions: Sequence[Interval]) -> list[Scores]:
    """The scores of each region."""
    found = [np.full((len(region), len(BASES)), np.nan, dtype=np.float32) for region in regions]
    number = 0
    for variant, values in read_scores(path, field):
        while not regions[number].contains(variant.interval):
            number += 1
        row = found[number][variant.interval.start - regions[number].start]
        for base, value in zip(variant.alternatives, values, strict=True):
            row[BASES.index(base)] = value
    return found


def _mean(scores: Scores) -> npt.NDArray[np.float32]:
    """The mean of the substitutions of each base, NaN where there is none."""
    known = ~np.isnan(scores)
    sums, counts = np.where(known, scores, 0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, counts, out=np.full(len(scores), np.nan, dtype=np.float32), where=counts > 0)


def _write_report(
    path: Path, genome: Genome, regions: Sequence[Interval], scores: list[Scores], what: str
) -> None:
    """Heat maps of the first bases of the regions, and what the largest losses and gains are."""
    pieces = [
        (Interval(region.sequence, start, end), one[start - region.start : end - region.start])
        for region, one in zip(regions, scores, strict=True)
        for start in range(region.start, region.end, _BASES_PER_PLOT)
        for end in [min(start + _BASES_PER_PLOT, region.end)]
    ]
    largest = float(np.nanmax(np.abs(np.concatenate(scores)))) or 1.0
    caption = page.paragraph(
        f"{what}. A column is a base of the genome, with its letter below and a dot in its row; a row is "
        f"what it becomes; the fullest colour is {largest:.4g}.",
        "caption",
    )
    parts = [page.section("Scores", caption + _table(genome, regions, scores))]
    if _has_matplotlib():
        for interval, piece in pieces[:_MAX_PLOTS]:
            first, last = interval.closed
            plot = heat_map(interval, genome.letters(interval).upper(), piece, largest)
            parts.append(
                page.section(f"{interval.sequence}, bases {first:,} to {last:,}", page.figure(*plot, ""))
            )
    if len(pieces) > _MAX_PLOTS:
        parts.append(page.paragraph(f"{len(pieces) - _MAX_PLOTS:,} more are in the files.", "note"))
    write_text_atomically(path, page.page(f"Mutagenesis of {genome.path.name}", "".join(parts)))


def _table(genome: Genome, regions: Sequence[Interval], scores: list[Scores]) -> str:
    """The substitutions with the lowest and the highest scores."""
    flat = np.concatenate(scores).reshape(-1)
    places = [
        (region.sequence, position) for region in regions for position in range(region.start, region.end)
    ]
    ranked = [index for index in np.argsort(flat, kind="stable").tolist() if not np.isnan(flat[index])]
    rows = []
    for index in [*ranked[:5], *ranked[5:][-5:]]:
        name, position = places[index // len(BASES)]
        letter = genome.letters(Interval(name, position, position + 1)).upper()
        rows.append(
            (name, f"{position + 1:,}", f"{letter}>{BASES[index % len(BASES)]}", f"{flat[index]:.4g}")
        )
    return page.table(("sequence", "base", "substitution", "score"), rows)


def heat_map(interval: Interval, letters: str, scores: Scores, largest: float) -> Plot:
    """Draws what each substitution changes, as strong a colour as it changes, and the mean of each base.

    Args:
        interval: the bases.
        letters: theirs.
        scores: theirs.
        largest: the number that gets the fullest colour.
    """
    legend = [LegendEntry("below 0", "series-2"), LegendEntry("above 0", "series-1")]

    def draw(axes: Axes) -> None:
        for column, row in zip(*np.nonzero(~np.isnan(scores)), strict=True):
            score = float(scores[column, row])
            colour = STAND_IN["series-2" if score < 0 else "series-1"]
            x, y = [column, column + 1, column + 1, column], [3 - row] * 2 + [4 - row] * 2
            axes.fill(x, y, color=colour, alpha=min(abs(score) / largest, 1.0), linewidth=0)
        known = [(column, BASES.index(letter)) for column, letter in enumerate(letters) if letter in BASES]
        x, y = [column + 0.5 for column, _ in known], [3.5 - row for _, row in known]
        axes.plot(x, y, ".", color=STAND_IN["muted"], markersize=2)
        axes.set_xlim(0, len(letters))
        axes.set_ylim(0, len(BASES))
        axes.set_yticks([3.5 - row for row in range(len(BASES))], list(BASES))
        axes.set_xticks([column + 0.5 for column in range(len(letters))], list(letters), size=6)
        axes.tick_params(length=0)
        axes.grid(visible=False)

    size = (10.0 * max(len(letters), 40) / _BASES_PER_PLOT, 1.3)
    first, last = interval.closed
    name = f"map-{interval.sequence}-{first}"
    return svg(
        name, f"Scores of substitutions of {interval.sequence}, bases {first} to {last}", draw, size
    ), legend


def _has_matplotlib() -> bool:
    return find_spec("matplotlib") is not None
