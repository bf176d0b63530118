"""`reformer dna mutagenesis`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Method(StrEnum):
    """How substitutions are scored."""

    EXACT = "exact"
    GRADIENT = "gradient"


def mutagenesis(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    regions: Annotated[Path, typer.Argument(metavar="REGIONS", help="BED.")],
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    window: Annotated[int, typer.Option(help="Bases around a substitution, up to 1048576.")] = 8192,
    reach: Annotated[
        int,
        typer.Option(help="Causal models: bases from the substitution on whose probability counts."),
    ] = 256,
    method: Annotated[
        Method, typer.Option(help="Score each change, or estimate all of a window by one gradient.")
    ] = Method.EXACT,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Score every substitution of every base of some regions: in silico mutagenesis.

    Leaves substitutions.vcf.gz with the scores of `dna score` and its tabix index, whose header says which
    model and options made it, a bigWig for what each
    base becomes and one of their mean, and report.html with a heat map.

    With `--method gradient`, for causal language models, one backward pass for each half window and strand
    estimates the scores of all its substitutions to first order; all bases from a substitution to `--reach`
    bases behind its half window count.
    """
    from reformer.errors import UserError
    from reformer.genomics.genome import Genome
    from reformer.genomics.provenance import provenance
    from reformer.genomics.regions import regions_of
    from reformer.genomics.variants.mutagenesis import REPORT_FILE, mutate
    from reformer.genomics.variants.scorers import load_first_order_scorer, load_scorer
    from reformer.genomics.variants.scoring import check_window
    from reformer.training.progress import progress_bar

    check_window(window, reach)
    if out.exists():
        raise UserError(f"{out}: exists: expected a folder to make")
    with Genome(genome) as opened:
        chosen = regions_of(regions, opened)
        num_bases = sum(map(len, chosen))
        load = load_first_order_scorer if method is Method.GRADIENT else load_scorer
        scorer = load(model, device, window, reach)
        made = provenance(
            "dna mutagenesis",
            model,
            device,
            regions=regions,
            genome=genome,
            window=window,
            reach=reach,
            method=method.value,
        )
        with progress_bar("scoring", num_bases) as advance:
            mutate(out, chosen, opened, scorer, advance, made)
    print(f"{out}: {num_bases:,} bases in {len(chosen):,} region(s)\n{out / REPORT_FILE}")
