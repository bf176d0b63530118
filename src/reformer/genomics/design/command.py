"""The work of `reformer dna design`: sequences in, designed ones and the steps to them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.design.evolution import BASES, Design, evolve, most_substitutions
from reformer.genomics.design.goals import Goal
from reformer.genomics.design.report import write_design_report
from reformer.genomics.genome import Genome
from reformer.genomics.provenance import PROVENANCE_FILE, Provenance, write_provenance
from reformer.genomics.regions import regions_of
from reformer.genomics.sampling import Sequence, write_fasta
from reformer.genomics.strands import StrandedSequence
from reformer.training.atomic import atomic_folder

DESIGNED_FILE, STEPS_FILE, REPORT_FILE = "designed.fa", "steps.tsv", "report.html"


@dataclass(frozen=True)
class Start:
    """A sequence to begin with.

    Attributes:
        name: of its record.
        letters: as they stand in the file.
        allowed: bool ``[bases]``, which may be substituted.
    """

    name: str
    letters: str
    allowed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Search:
    """How to look, see `evolve`."""

    steps: int = 10
    beam: int = 1
    minimize: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.beam < 1:
            raise UserError(f"--steps is {self.steps}, --beam is {self.beam}: expected at least 1")

    def num_substitutions(self, starts: list[Start]) -> int:
        """The most that are scored."""
        return sum(most_substitutions(int(one.allowed.sum()), self.steps, self.beam) for one in starts)


def read_starts(path: Path, keep: Path | None) -> list[Start]:
    """Reads the sequences to begin with.

    Args:
        path: FASTA or GenBank.
        keep: BED of what must not change; None for nothing.

    Raises:
        UserError: a file is wrong, they do not fit each other, or no base of a sequence may change.
    """
    with Genome(path) as genome:
        kept = [] if keep is None else regions_of(keep, genome)
        starts = []
        for name, length in genome.lengths.items():
            letters = genome.letters(Interval(name, 0, length))
            StrandedSequence(genome, name, "+", "fold").ids(0, length)  # refuses what is no nucleotide
            allowed = np.array([letter in BASES for letter in letters.upper()], dtype=np.bool_)
            for region in kept:
                if region.sequence == name:
                    allowed[region.start : region.end] = False
            if not allowed.any():
                where = "" if keep is None else f" outside of {keep}"
                raise UserError(f"{path}: in {name!r} nothing may change: expected A, C, G or T{where}")
            starts.append(Start(name, letters, allowed))
    return starts


def check_lengths(path: Path, starts: list[Start], goal: Goal) -> None:
    """Raises UserError where a sequence is longer than what the model reads."""
    for one in starts:
        if goal.longest is not None and len(one.letters) > goal.longest:
            raise UserError(
                f"{path}: {one.name!r} has {len(one.letters):,} bases: expected {goal.longest:,} at most, "
                "the positions of the model (max_position_embeddings)"
            )


def write_designs(
    out: Path,
    starts: list[Start],
    goal: Goal,
    search: Search,
    made: Provenance,
    on_scored: Callable[[int], None] = lambda number: None,
) -> list[Design]:
    """Designs a sequence from each start and writes a folder, whole or not at all.

    It has `designed.fa`, `steps.tsv` with a line for each substitution, `report.html` and `provenance.json`.

    Args:
        out: the folder, which must not be there.
        starts: see `read_starts`.
        goal: what is made as large as can be, or as small.
        search: how.
        made: what makes the folder.
        on_scored: called with the number of substitutions scored since the last call, of
            `Search.num_substitutions`; what was left out by ending early counts.

    Returns:
        The best sequence of each start.
    """
    designs = []
    for one in starts:
        left = search.num_substitutions([one])

        def advance(number: int) -> None:
            nonlocal left
            left -= number
            on_scored(number)

        best, *_ = evolve(
            goal.values,
            one.letters,
            steps=search.steps,
            beam=search.beam,
            minimize=search.minimize,
            allowed=one.allowed,
            on_scored=advance,
        )
        on_scored(left)
        designs.append(best)
    with atomic_folder(out) as partial:
        records = (_record(start, best, goal) for start, best in zip(starts, designs, strict=True))
        write_fasta(partial / DESIGNED_FILE, records)
        _write_steps(partial / STEPS_FILE, starts, designs)
        names = [start.name for start in starts]
        write_design_report(partial / REPORT_FILE, names, designs, goal)
        write_provenance(partial / PROVENANCE_FILE, made)
    return designs


def _record(start: Start, best: Design, goal: Goal) -> Sequence:
    facts = f"before={number(best.before)} after={number(best.value)} substitutions={len(best.steps)}"
    return Sequence(start.name, f"{facts} goal={goal.name}", best.letters)


def _write_steps(path: Path, starts: list[Start], designs: list[Design]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("#sequence\tstep\tposition\tfrom\tto\tgoal_before\tgoal_after\n")
        for start, best in zip(starts, designs, strict=True):
            before = best.before
            for count, step in enumerate(best.steps, start=1):
                cells = [start.name, count, step.position + 1, step.old, step.new]
                file.write("\t".join(map(str, [*cells, number(before), number(step.value)])) + "\n")
                before = step.value


def number(value: float) -> str:
    """A value of a goal as the files have it."""
    return f"{value:.10g}"
