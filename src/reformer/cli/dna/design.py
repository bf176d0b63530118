"""`reformer dna design`."""

from pathlib import Path
from typing import Annotated

import typer


def design(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="A model, checkpoint or run folder: of language, genes, labels or tracks."
        ),
    ],
    start: Annotated[
        Path, typer.Argument(metavar="START", help="FASTA or GenBank: the sequences to begin with.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    goal: Annotated[
        str | None,
        typer.Option(
            help="A label or track of the model; models of language and of genes have one goal.",
            show_default=False,
        ),
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="Make the goal small, not large.")] = False,
    steps: Annotated[int, typer.Option(help="Substitutions at most.")] = 10,
    beam: Annotated[
        int, typer.Option(help="Sequences to go on from after each step; 1 is greedy search.")
    ] = 1,
    keep: Annotated[
        Path | None, typer.Option(help="BED: bases of START that must not change.", show_default=False)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Change sequences, base by base, until a model says of them what one wants: directed evolution.

    In each step every substitution is scored by the model's reading of the whole sequence, and the best is
    kept, until none is better. The goal is the log-probability of a label, the mean of a track, how well the
    sequence reads as genes, or its likelihood.

    Leaves designed.fa, steps.tsv with the goal before and after each substitution, report.html and
    provenance.json.
    """
    from dataclasses import asdict

    from reformer.errors import UserError
    from reformer.genomics.design.command import (
        REPORT_FILE,
        Search,
        check_lengths,
        read_starts,
        write_designs,
    )
    from reformer.genomics.design.goals import load_goal
    from reformer.genomics.provenance import provenance
    from reformer.training.progress import progress_bar

    search = Search(steps, beam, minimize)
    if out.exists():
        raise UserError(f"{out}: exists: expected a folder to make")
    starts = read_starts(start, keep)
    chosen = load_goal(model, goal, device)
    check_lengths(start, starts, chosen)
    made = provenance("dna design", model, device, start=start, goal=chosen.name, keep=keep, **asdict(search))
    with progress_bar("scoring", search.num_substitutions(starts)) as advance:
        designs = write_designs(out, starts, chosen, search, made, advance)
    count = sum(len(one.steps) for one in designs)
    before = sum(one.before for one in designs) / len(designs)
    after = sum(one.value for one in designs) / len(designs)
    print(
        f"{out}: {count:,} substitutions in {len(designs):,} sequence(s), {chosen.name} from {before:.6g} to "
        f"{after:.6g} on average\n{out / REPORT_FILE}"
    )
