"""`reformer dna score`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class OnMismatch(StrEnum):
    """What to do about a REF that is not the genome's."""

    ERROR = "error"
    FILTER = "filter"


def score(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    variants: Annotated[Path, typer.Argument(metavar="VARIANTS", help="VCF, VCF.gz or BCF, sorted.")],
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, named *.vcf.gz.")],
    window: Annotated[int, typer.Option(help="Bases around a variant, up to 1048576.")] = 8192,
    reach: Annotated[
        int,
        typer.Option(help="Causal models: bases from the variant on whose probability counts."),
    ] = 256,
    on_mismatch: Annotated[
        OnMismatch, typer.Option(help="What to do where REF is not what the genome has.")
    ] = OnMismatch.ERROR,
    background: Annotated[
        int, typer.Option(help="Random changes of each kind to compare the scores with; 0 for none.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="The same seed draws the same random changes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Score variants: what each changes in what the model says of the genome.

    Writes OUT, a copy of VARIANTS with the score of each ALT in INFO, and its tabix index (a .csi where a
    sequence is longer than 2^29 bases); its header says which model and options made it. The sequences
    compared begin at the same base and are equally long.

    A language model: REFORMER_LLR, how much likelier it finds the genome with the change than without, mean
    of both strands, in nats, negative where the change is unlikely. A causal model has read half a window or
    more before the variant, and --reach bases from it on count. A masked model sees half a window on either
    side, and the changed bases, masked, count.

    A model of `dna annotate train`: REFORMER_GENE_LLR, how much better the window reads as genes with the
    change than without, in nats, negative where the change breaks a gene. A third of the window or more lies
    on either side of the variant.

    A model of `dna tracks train`: REFORMER_TRACK_NAME of each track, how much more it predicts with the
    change than without, over 250 bases on either side, as the mean of asinh(value / mean).

    With --background N also FIELD_QUANTILE beside each score FIELD: the share of N random changes of the same
    kind whose score is no higher, the ALT itself counted: (rank + 1) / (N + 1). 0.001 is lower than all but
    one change in a thousand. N are drawn for each kind that VARIANTS has: substitutions of one base,
    insertions, deletions, and other replacements, as long as those of VARIANTS, on the sequences that have
    variants, where the genome has A, C, G and T.
    """
    from reformer.genomics.genome import Genome
    from reformer.genomics.provenance import provenance
    from reformer.genomics.variants.background import QuantileScorer, check_background, draw_changes
    from reformer.genomics.variants.scorers import load_scorer
    from reformer.genomics.variants.scoring import check_output, check_variants, check_window, write_scores
    from reformer.training.progress import progress_bar

    check_window(window, reach)
    check_background(background, seed)
    check_output(out)
    with Genome(genome) as opened:
        num_variants, num_mismatches = check_variants(variants, opened, on_mismatch.value)
        scorer = load_scorer(model, device, window, reach)
        made = provenance(
            "dna score",
            model,
            device,
            variants=variants,
            genome=genome,
            window=window,
            reach=reach,
            on_mismatch=on_mismatch.value,
            background=background,
            seed=seed,
        )
        drawn = draw_changes(variants, opened, background, seed) if background else {}
        with progress_bar("scoring", num_variants + sum(map(len, drawn.values()))) as advance:
            if background:
                scorer = QuantileScorer(scorer, opened, drawn, advance)
            write_scores(out, variants, opened, scorer, advance, made)
    mismatches = f", {num_mismatches:,} of them with another REF than the genome" if num_mismatches else ""
    print(f"{out}: {num_variants:,} variants{mismatches}")
