"""From genes to proteins: coding segments joined, read by the genetic code that each has.

The rules are those of NCBI's annotations. The bases before the first codon, its phase, are dropped. A codon
at the beginning of a coding sequence of phase 0 that the code lists as a start is M, whatever it means
elsewhere. The stop at the end is dropped. A codon that ambiguous bases leave open is X, and so is a stop
before the end (selenocysteine, where the gene is right).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from reformer.data.names import check_names
from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.extras import require
from reformer.genomics.formats.annotation import read_genes
from reformer.genomics.formats.proteins import Protein, write_proteins
from reformer.genomics.genes import Gene, Transcript, phases
from reformer.genomics.genome import Genome
from reformer.training.atomic import check_writable

_STOP, _UNKNOWN = "*", "X"

Warn = Callable[[str], None]


def translate_file(genome: Path, genes: Path, out: Path, code: int | None = None) -> tuple[int, list[str]]:
    """Translates the coding transcripts of an annotation into a protein FASTA, whole or not at all.

    Args:
        genome: FASTA or GenBank.
        genes: GFF3, GTF or GenBank.
        out: the file to write.
        code: number of NCBI's genetic code for all; None for each gene's own, 1 where it has none.

    Returns:
        The number of proteins, and warnings.

    Raises:
        UserError: a file cannot be read, names differ, a gene goes beyond its sequence, there is no such
            code, or no gene codes for a protein.
    """
    check_writable(out)
    found, warnings = read_genes(genes), list[str]()
    with Genome(genome) as opened:
        check_names({gene.interval.sequence for gene in found}, genes, opened.lengths, genome)
        proteins = list(translated(found, opened, code, warnings.append))
    if not proteins:
        raise UserError(f"{genes}: no coding sequence: expected transcripts with CDS features")
    return write_proteins(out, proteins), warnings


def translated(
    genes: Iterable[Gene], genome: Genome, code: int | None = None, warn: Warn = lambda text: None
) -> Iterator[Protein]:
    """Yields the protein of each coding transcript, in the order of the genes.

    A protein is called by its identifier, or its transcript where it has none; where several have one name,
    by gene and transcript.

    Args:
        genes: the genes.
        genome: their sequences.
        code: number of NCBI's genetic code for all; None for each transcript's own.
        warn: takes a line about what is odd with a gene.

    Raises:
        UserError: a gene goes beyond its sequence, or there is no such code.
    """
    names: set[str] = set()
    for gene in genes:
        for transcript in gene.transcripts:
            if not transcript.cds:
                continue
            name = transcript.protein or transcript.name
            name = f"{gene.name}.{transcript.name}" if name in names else name
            names.add(name)
            letters = _translated(transcript, genome, code, _placed(warn, gene, transcript))
            if letters:
                yield Protein(name, letters, _description(gene, transcript))


def _translated(transcript: Transcript, genome: Genome, code: int | None, warn: Warn) -> str:
    code = transcript.genetic_code if code is None else code
    return translate(coding_letters(transcript, genome, warn), code, transcript.cds[0].phase, warn)


def _placed(warn: Warn, gene: Gene, transcript: Transcript) -> Warn:
    """Says where, before what."""
    return lambda text: warn(f"gene {gene.name}, transcript {transcript.name}: {text}")


def coding_letters(transcript: Transcript, genome: Genome, warn: Warn = lambda text: None) -> str:
    """The coding segments of a transcript, joined in the order of transcription."""
    expected = phases([s.end - s.start for s in transcript.cds], transcript.cds[0].phase)
    if wrong := [n for n, (s, p) in enumerate(zip(transcript.cds, expected, strict=True), 1) if s.phase != p]:
        segment = transcript.cds[wrong[0] - 1]
        warn(
            f"segment {wrong[0]} of its coding sequence has phase {segment.phase}: expected "
            f"{expected[wrong[0] - 1]} after the segments before it, by which it is read"
        )
    sequence, strand = transcript.interval.sequence, transcript.strand
    return "".join(genome.letters(Interval(sequence, s.start, s.end, strand)) for s in transcript.cds)


def translate(letters: str, code: int = 1, phase: int = 0, warn: Warn = lambda text: None) -> str:
    """The protein of a coding sequence, by the rules above.

    Args:
        letters: bases, from the first coding segment's 5' end.
        code: number of NCBI's genetic code.
        phase: bases before the first codon.
        warn: takes a line about what is odd.

    Raises:
        UserError: there is no such code.
    """
    table = _table(code)
    codons = letters.upper()[phase:]
    rest = len(codons) % 3
    codons = codons[: len(codons) - rest]
    if not codons:
        warn("no whole codon")
        return ""
    protein = str(require("Bio.Seq", "to translate genes").translate(codons, table=code))
    if phase == 0 and codons[:3].replace("U", "T") in table.start_codons:
        protein = f"M{protein[1:]}"
    if rest:
        warn(f"{rest} base(s) after its last codon")
    if protein.endswith(_STOP):
        protein = protein[:-1]
    else:
        warn("no stop codon at its end")
    if stops := [place for place, letter in enumerate(protein, 1) if letter == _STOP]:
        warn(f"stop codon before the end, residue {', '.join(map(str, stops[:3]))} of {len(protein)}: now X")
    return protein.replace(_STOP, _UNKNOWN)


def _table(code: int) -> Any:
    tables = require("Bio.Data.CodonTable", "to translate genes").unambiguous_dna_by_id
    if code not in tables:
        raise UserError(f"genetic code {code}: expected one of {', '.join(map(str, sorted(tables)))}")
    return tables[code]


def _description(gene: Gene, transcript: Transcript) -> str:
    first, last = transcript.interval.closed
    symbol = f" ({gene.symbol})" if gene.symbol and gene.symbol != gene.name else ""
    return f"gene={gene.name}{symbol} {transcript.interval.sequence}:{first}-{last}({transcript.strand})"
