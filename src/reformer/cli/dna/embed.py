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
    genome: Annotated[Path, typer.Argument(metavar="GENOME", help="FASTA or GenBank, plain or gzip.")],
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

    MODEL is a language model, or one of `dna annotate train` or `dna classify train`.

    What is longer than 1,048,576 bases is read in windows of so many, which overlap by 32,768 bases: each
    gives the vectors of the half of these that is further from its end. The last vector has then read one
    window.

    A row has name, sequence, start, end (from 0, end not included), strand and embedding, in the order of the
    file; with `--pooling per-base` every base has one. Regions on "-" are read as their strand has them. The
    metadata of OUT, under the name "reformer", say which model and options made it.
    """
    from reformer.genomics.embedding import WINDOWS, Embedder, check_output, stretches, write_embeddings
    from reformer.genomics.genome import Genome
    from reformer.genomics.model_inputs import load_reader
    from reformer.genomics.provenance import provenance
    from reformer.training.progress import progress_bar

    check_output(out)
    with Genome(genome) as opened:
        lengths = [len(item.interval) for item in stretches(opened, regions, window, step)]
        num_bases, num_long = sum(lengths), sum(length > WINDOWS.length for length in lengths)
        loaded, lower_case, inputs = load_reader(model, device)
        embedder = Embedder(loaded, opened, lower_case, pooling.value, both_strands, inputs)
        made = provenance(
            "dna embed",
            model,
            device,
            genome=genome,
            regions=regions,
            window=window,
            step=step,
            pooling=pooling.value,
            both_strands=both_strands,
        )
        with progress_bar("embedding", num_bases) as advance:
            write_embeddings(out, embedder.rows(stretches(opened, regions, window, step), advance), made)
    long = f", {num_long:,} of the sequences in windows of {WINDOWS.length:,}" if num_long else ""
    print(f"{out}: {num_bases:,} bases read{long}")
