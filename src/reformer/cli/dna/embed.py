"""`reformer dna embed`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Pooling(StrEnum):
    """Which vectors to write."""

    MEAN = "mean"
    LAST = "last"
    PER_BASE = "per-base"


def embed(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA, plain, BGZF or gzip.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write: *.parquet, *.h5 or *.hdf5.")],
    regions: Annotated[
        Path | None, typer.Option(help="BED: embed these, not whole sequences.", show_default=False)
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Embed windows of so many bases.", show_default=False)
    ] = None,
    step: Annotated[
        int | None, typer.Option(help="Bases between starts of windows; --window's.", show_default=False)
    ] = None,
    pooling: Annotated[Pooling, typer.Option(help="One vector, or one for every base.")] = Pooling.MEAN,
    both_strands: Annotated[
        bool, typer.Option("--both-strands", help="The mean with the reverse complement's.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Write what a model makes of sequences, regions or windows of a genome as vectors.

    A row has name, sequence, start, end (from 0, end not included), strand and embedding, in the order of the
    file; with `--pooling per-base` every base has one. Regions on "-" are read as their strand has them.
    """
    from reformer.genomics.embedding import Embedder, check_output, stretches, write_embeddings
    from reformer.genomics.genome import Genome
    from reformer.genomics.strands import model_lower_case
    from reformer.training.model_folder import load_language_model
    from reformer.training.progress import progress_bar

    check_output(out)
    with Genome(genome) as opened:
        num_bases = sum(len(item.interval) for item in stretches(opened, regions, window, step))
        loaded, tokenizer = load_language_model(model, device)
        lower_case = model_lower_case(tokenizer, model)
        embedder = Embedder(loaded, opened, lower_case, pooling.value, both_strands)
        with progress_bar("embedding", num_bases) as advance:
            write_embeddings(out, embedder.rows(stretches(opened, regions, window, step), advance))
    print(f"{out}: {num_bases:,} bases read")
