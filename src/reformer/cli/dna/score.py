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
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA, plain, BGZF or gzip.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, named *.vcf.gz.")],
    window: Annotated[int, typer.Option(help="Bases around a variant, up to 1048576.")] = 8192,
    reach: Annotated[
        int,
        typer.Option(help="Causal models: bases from the variant on whose probability counts."),
    ] = 256,
    on_mismatch: Annotated[
        OnMismatch, typer.Option(help="What to do where REF is not what the genome has.")
    ] = OnMismatch.ERROR,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Score variants: how much likelier the model finds the genome with each than without.

    Writes OUT, a copy of VARIANTS with the log-likelihood ratio of each ALT in INFO (REFORMER_LLR: nats, mean
    of both strands, negative where the change is unlikely), and its tabix index. The sequences compared
    begin at the same base and are equally long.

    A causal model has read half a window or more before the variant, and --reach bases from it on count. A
    masked model sees half a window on either side, and the changed bases, masked, count.
    """
    from reformer.genomics.genome import Genome
    from reformer.genomics.strands import model_lower_case
    from reformer.genomics.variants.likelihood import likelihood_of
    from reformer.genomics.variants.scoring import (
        check_output,
        check_variants,
        check_window,
        write_likelihood_ratios,
    )
    from reformer.training.model_folder import load_language_model
    from reformer.training.progress import progress_bar

    check_window(window, reach)
    check_output(out)
    with Genome(genome) as opened:
        num_variants, num_mismatches = check_variants(variants, opened, on_mismatch.value)
        loaded, tokenizer = load_language_model(model, device)
        lower_case = model_lower_case(tokenizer, model)
        likelihood = likelihood_of(loaded, tokenizer, window, reach)
        with progress_bar("scoring", num_variants) as advance:
            write_likelihood_ratios(out, variants, opened, likelihood, lower_case, advance)
    mismatches = f", {num_mismatches:,} of them with another REF than the genome" if num_mismatches else ""
    print(f"{out}: {num_variants:,} variants{mismatches}")
