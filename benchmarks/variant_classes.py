"""Synthetic variants of an annotated genome, of classes whose effect on genes is known by construction."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from reformer.genomics.coordinates import reverse_complement
from reformer.genomics.genes import Gene, Transcript

# The standard code, codons in the order TTT, TTC, TTA, TTG, TCT, ... GGG.
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
_CODONS = [a + b + c for a in "TCAG" for b in "TCAG" for c in "TCAG"]
AMINO_ACID = dict(zip(_CODONS, _AMINO_ACIDS, strict=True))
_REPEAT = 5  # bases of a kind that make a repeat


@dataclass(frozen=True, order=True)
class SyntheticVariant:
    """REF and ALT at a position counted from 0, and the class that it was made for."""

    position: int
    reference: str
    alternative: str
    kind: str


class VariantMaker:
    """Draws variants of one sequence.

    Args:
        letters: the sequence, upper case.
        genes: those on it.
        seed: determines the draws.
    """

    def __init__(self, letters: str, genes: list[Gene], seed: int) -> None:
        self._letters = letters
        self._random = random.Random(seed)
        coding = [transcript for gene in genes for transcript in gene.transcripts if transcript.cds]
        occupied = [False] * len(letters)
        for gene in genes:
            for position in range(gene.interval.start, gene.interval.end):
                occupied[position] = True
        self._codons = [codon for transcript in coding for codon in self._codons_of(transcript)]
        self._intergenic = [i for i in range(1, len(letters) - 1) if not any(occupied[i - 1 : i + 2])]
        self._repeats = [
            i
            for i in self._intergenic
            if letters[i + 1 : i + 1 + _REPEAT] == letters[i + 1] * _REPEAT != letters[i] * _REPEAT
        ]

    def draw(self, numbers: dict[str, int]) -> list[SyntheticVariant]:
        """Some variants of each class, no two at one position, sorted."""
        makers: dict[str, Callable[[], SyntheticVariant | None]] = {
            "synonymous": lambda: self._substitution("synonymous"),
            "missense": lambda: self._substitution("missense"),
            "nonsense": lambda: self._substitution("nonsense"),
            "frameshift": self._frameshift,
            "intergenic": self._intergenic_substitution,
            "repeat indel": self._repeat_indel,
        }
        found: dict[int, SyntheticVariant] = {}
        for kind, number in numbers.items():
            wanted = len(found) + number
            for _ in range(1000 * number):
                if len(found) == wanted:
                    break
                if (variant := makers[kind]()) is not None:
                    found.setdefault(variant.position, variant)
            if len(found) < wanted:
                raise ValueError(f"the sequence has too few places for {number} variants: {kind}")
        return sorted(found.values())

    def _codons_of(self, transcript: Transcript) -> Iterator[tuple[tuple[int, ...], bool]]:
        """Positions of the three bases of each codon but the first and the last; whether it is on "-"."""
        is_reverse = transcript.strand == "-"
        positions: list[int] = []
        for segment in transcript.cds:
            piece = range(segment.start, segment.end)
            positions += reversed(piece) if is_reverse else piece
        if len(positions) % 3 == 0 and transcript.cds[0].phase == 0:
            for i in range(3, len(positions) - 3, 3):
                yield tuple(positions[i : i + 3]), is_reverse

    def _substitution(self, kind: str) -> SyntheticVariant | None:
        positions, is_reverse = self._random.choice(self._codons)
        codon = "".join(self._read(position, is_reverse) for position in positions)
        place, base = self._random.randrange(3), self._random.choice("ACGT")
        changed = codon[:place] + base + codon[place + 1 :]
        if changed == codon or not set(codon) <= set("ACGT") or AMINO_ACID[codon] == "*":
            return None
        before, after = AMINO_ACID[codon], AMINO_ACID[changed]
        if kind != ("synonymous" if before == after else "nonsense" if after == "*" else "missense"):
            return None
        position = positions[place]
        alternative = reverse_complement(base) if is_reverse else base
        return SyntheticVariant(position, self._letters[position], alternative, kind)

    def _read(self, position: int, is_reverse: bool) -> str:
        base = self._letters[position]
        return reverse_complement(base) if is_reverse else base

    def _frameshift(self) -> SyntheticVariant | None:
        positions, _ = self._random.choice(self._codons)
        if max(positions) - min(positions) != 2:  # an intron lies in between
            return None
        return self._indel(min(positions), "frameshift")

    def _intergenic_substitution(self) -> SyntheticVariant | None:
        position = self._random.choice(self._intergenic)
        base, other = self._letters[position], self._random.choice("ACGT")
        return SyntheticVariant(position, base, other, "intergenic") if base != other else None

    def _repeat_indel(self) -> SyntheticVariant | None:
        position = self._random.choice(self._repeats)
        return self._indel(position, "repeat indel", self._letters[position + 1])

    def _indel(self, position: int, kind: str, inserted: str | None = None) -> SyntheticVariant:
        """One base lost or gained behind a position."""
        base = self._letters[position]
        if self._random.random() < 0.5:
            return SyntheticVariant(position, base + self._letters[position + 1], base, kind)
        return SyntheticVariant(position, base, base + (inserted or self._random.choice("ACGT")), kind)


def write_vcf(path: Path, sequence: str, length: int, variants: list[SyntheticVariant]) -> None:
    """Writes variants with their class in INFO."""
    lines = [
        "##fileformat=VCFv4.2",
        f"##contig=<ID={sequence},length={length}>",
        '##INFO=<ID=KIND,Number=1,Type=String,Description="What it was made to be">',
        "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO",
    ]
    for v in variants:
        kind = v.kind.replace(" ", "_")
        lines.append(f"{sequence}\t{v.position + 1}\t.\t{v.reference}\t{v.alternative}\t.\t.\tKIND={kind}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
