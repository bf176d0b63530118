"""In silico mutagenesis: every substitution of the bases of some regions, scored as variants are.

What comes out are files for other programs, VCF and bigWig, and a report with a heat map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.formats.tracks import write_bigwig
from reformer.genomics.genome import Genome
from reformer.genomics.provenance import Provenance
from reformer.genomics.variants.mutagenesis_report import BASES, Scores, write_mutagenesis_report
from reformer.genomics.variants.scorers import Scorer
from reformer.genomics.variants.scoring import write_scores
from reformer.genomics.variants.vcf import read_scores
from reformer.training.atomic import atomic_folder

SCORES_FILE, TRACKS, REPORT_FILE = "substitutions.vcf.gz", "tracks", "report.html"


def mutate(
    out: Path,
    regions: Sequence[Interval],
    genome: Genome,
    scorer: Scorer,
    on_bases: Callable[[int], None] = lambda number: None,
    made: Provenance | None = None,
) -> None:
    """Scores all substitutions of the regions and writes a folder, whole or not at all.

    It has `substitutions.vcf.gz` with a tabix index, a line for each base that is A, C, G or T, with its
    three ALTs and their scores; of the scorer's first field `tracks/A.bw` to `T.bw`, the score of a
    substitution by that base, and `tracks/mean.bw`, the mean of the three; and `report.html` with heat maps.

    Args:
        out: the folder, which must not be there.
        regions: see `reformer.genomics.regions`.
        genome: where they are.
        scorer: the model.
        on_bases: called with the number of bases that are done since the last call.
        made: what makes the folder, for the VCF file's header.

    Raises:
        UserError: no base of the regions is A, C, G or T.
    """
    with atomic_folder(out) as partial:
        unscored = partial / "substitutions.vcf"
        if not _write_substitutions(unscored, regions, genome):
            raise UserError(f"{genome.path}: no A, C, G or T in the regions")
        write_scores(partial / SCORES_FILE, unscored, genome, scorer, on_bases, made)
        unscored.unlink()
        field = scorer.fields[0]
        scores = _read(partial / SCORES_FILE, field.name, regions)
        (partial / TRACKS).mkdir()
        for name, column in [*zip(BASES, range(4), strict=True), ("mean", None)]:
            values = [_mean(one) if column is None else one[:, column] for one in scores]
            if all(np.isnan(track).all() for track in values):  # all bases are that one already
                continue
            blocks = ((r.sequence, r.start, track) for r, track in zip(regions, values, strict=True))
            write_bigwig(partial / TRACKS / f"{name}.bw", genome.lengths, blocks)
        write_mutagenesis_report(
            partial / REPORT_FILE, genome, regions, scores, f"{field.name}: {field.description}"
        )


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
