"""`reformer dna motifs`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from reformer.cli.dna.options import GenomeFile

app = typer.Typer(no_args_is_help=True, help="Motifs: short patterns of bases, such as binding sites.")


@app.command()
def scan(
    genome: GenomeFile,
    motifs: Annotated[Path, typer.Argument(metavar="MOTIFS", help="JASPAR or MEME, plain or gzip.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The BED file to write.")],
    regions: Annotated[
        Path | None, typer.Option(help="BED: look in these, not everywhere.", show_default=False)
    ] = None,
    threshold: Annotated[float, typer.Option(help="Largest p-value of a match.")] = 1e-4,
) -> None:
    """Find the matches of motifs on both strands of a genome.

    OUT is BED with name of the motif, score (bits of log-odds) and strand, and in its seventh column the
    p-value: the probability of that score or a higher one at one place, on one strand, of random sequence
    with the genome's composition. It is sorted, sequences as the genome has them. N never matches. OUT.json
    says what made it.
    """
    from reformer.genomics.coordinates import Interval
    from reformer.genomics.formats.motifs import read_motifs
    from reformer.genomics.genome import Genome
    from reformer.genomics.motifs.scan import scan, write_matches
    from reformer.genomics.provenance import provenance, provenance_beside
    from reformer.genomics.regions import regions_of
    from reformer.training.atomic import check_writable
    from reformer.training.progress import progress_bar

    check_writable(out)
    read = read_motifs(motifs)
    with Genome(genome) as opened:
        chosen = regions_of(regions, opened) if regions else None
        if chosen is None:
            chosen = [Interval(name, 0, length) for name, length in opened.lengths.items()]
        num_bases, warnings = sum(map(len, chosen)), list[str]()
        made = provenance(
            "dna motifs scan", genome=genome, motifs=motifs, regions=regions, threshold=threshold
        )
        with (
            progress_bar("scanning", sum(opened.lengths.values()) + num_bases) as advance,
            provenance_beside(out, made),
        ):
            count = write_matches(out, scan(opened, chosen, read, threshold, advance, warnings.append))
    for warning in warnings:
        print(f"reformer: warning: {motifs}: {warning}", file=sys.stderr)
    print(f"{out}: {count:,} matches of {len(read):,} motif(s) in {num_bases:,} bases")


@app.command()
def find(
    map_folder: Annotated[
        Path, typer.Argument(metavar="MAP", help="The folder that `dna mutagenesis` made.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    min_sites: Annotated[int, typer.Option(min=2, help="Sites that a motif has at least.")] = 5,
) -> None:
    """Find what recurs where a model's score depends on single bases.

    Leaves motifs.meme, which `dna motifs scan` reads, sites.bed, whose score is what a site's bases add to
    the model's score on average (below 0 for what lowers it), and provenance.json.
    """
    from reformer.errors import UserError
    from reformer.genomics.motifs.contributions import read_contributions
    from reformer.genomics.motifs.discovery import find_motifs, write_found
    from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
    from reformer.training.atomic import atomic_folder

    if out.exists():
        raise UserError(f"{out}: exists: expected a folder to make")
    read = read_contributions(map_folder)
    found, num_seqlets = find_motifs(read, min_sites)
    if not found:
        raise UserError(
            f"{map_folder}: no motif: expected {min_sites} places alike, of {num_seqlets:,} that stand out"
        )
    with atomic_folder(out) as partial:
        write_found(partial, found, read)
        made = provenance("dna motifs find", map=map_folder, min_sites=min_sites)
        write_provenance(partial / PROVENANCE_FILE, made)
    num_sites = sum(len(one.sites) for one in found)
    print(f"{out}: {len(found):,} motif(s) with {num_sites:,} sites, of {num_seqlets:,} that stand out")
