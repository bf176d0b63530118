"""`reformer dna pretrain`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reformer.cli.dna.overrides import LoraRank, StartFrom
from reformer.errors import UserError


class Objective(StrEnum):
    """What the model learns to predict."""

    CAUSAL = "causal"
    MASKED = "masked"


class LowerCase(StrEnum):
    """What soft-masked bases become."""

    FOLD = "fold"
    KEEP = "keep"


def pretrain(
    genomes: Annotated[
        list[Path], typer.Argument(metavar="GENOME...", help="FASTA or GenBank files to train on.")
    ],
    out: Annotated[Path, typer.Option(help="The run folder.")],
    objective: Annotated[
        Objective, typer.Option(help="Predict the next base, or hidden ones from both sides.")
    ] = Objective.CAUSAL,
    held_out_regions: Annotated[
        Path | None,
        typer.Option(help="BED: regions to leave out and evaluate on.", show_default=False),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(metavar="SEQUENCE", help="A sequence to leave out and evaluate on.", show_default=False),
    ] = None,
    species: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=GENOME", help="Another genome to evaluate on.", show_default=False),
    ] = None,
    lower_case: Annotated[
        LowerCase, typer.Option(help="Read lower-case bases as upper-case ones, or as their own tokens.")
    ] = LowerCase.FOLD,
    recipe: Annotated[
        Path | None, typer.Option(help="A recipe for model and training.", show_default=False)
    ] = None,
    start_from: StartFrom = None,
    lora: LoraRank = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A value over the recipe's.", show_default=False),
    ] = None,
) -> None:
    """Train a language model on whole chromosomes, on both strands; `reformer train` with a genome's options.

    N is a token that stands in the context; a masked model never has to fill it in, and bits per base do not
    count it. What is held out is never trained on, but the checkpoint that is kept is the best on it: for
    figures that no choice was made by, `reformer evaluate` it on other sequences. A run that was stopped goes
    on with `reformer train OUT/recipe.yaml --resume`.
    """
    from reformer.genomics.pretraining import PretrainingData, pretraining_recipe
    from reformer.training.run import train

    data = PretrainingData(
        genomes, held_out_regions, held_out or (), _by_name(species or ()), lower_case.value
    )
    result = train(pretraining_recipe(data, objective.value, out, recipe, settings or (), start_from, lora))
    if result.interrupted:
        raise typer.Exit(130)


def _by_name(pairs: list[str] | tuple[()]) -> dict[str, Path]:
    named = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not (name and sign and path):
            raise UserError(f"--species is {pair!r}: expected NAME=GENOME")
        named[name] = Path(path)
    return named
