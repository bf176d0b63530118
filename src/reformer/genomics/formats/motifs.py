"""Motifs as matrices of letter counts: JASPAR and MEME in, MEME's minimal format out.

Read here rather than by Bio.motifs, which rounds MEME's probabilities to whole counts, drops a JASPAR motif
that is cut short without a word, and cannot say in which line something is wrong; a test compares what both
read.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.formats.lines import Place, numbered_lines
from reformer.training.atomic import write_text_atomically

BASES = "ACGT"
_DEFAULT_SITES = 20.0  # what MEME's format has for a motif that does not say
_TOLERANCE = 0.02  # of sums of probabilities, which files have with few digits
_LABELLED_ROW = re.compile(r"([A-Za-z])\s*\[(.*)\]")
_FIELD = re.compile(r"(alength|w|nsites)\s*=\s*(\S+)")

Lines = Iterator[tuple[Place, str]]


@dataclass(frozen=True, eq=False)
class Motif:
    """What stands at the sites of a motif.

    Attributes:
        name: identifier and, behind "_", the name that some files have besides.
        counts: float64 ``[bases, 4]``, sites that have A, C, G, T there; need not be whole numbers.
    """

    name: str
    counts: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.counts)


def read_motifs(path: str | os.PathLike[str]) -> list[Motif]:
    """Reads all motifs of a JASPAR or MEME file (minimal, or the text that MEME prints), plain or gzip.

    Raises:
        UserError: the file is neither, is cut short, has no motif, has a name twice, another alphabet than
            DNA, or numbers that are no counts or probabilities; the message names the line.
    """
    lines = ((place, line.strip()) for place, line in numbered_lines(path) if line.strip())
    motifs: list[Motif] = []
    reader: Iterator[tuple[Place, Motif]] | None = None
    for place, line in lines:
        if line.startswith(">"):
            reader = _jaspar(place, line, lines)
        elif line.startswith("MEME version"):
            reader = _meme(lines)
        elif not line.startswith("*"):
            raise place.error('not motifs: expected JASPAR, a line that starts with ">", or "MEME version"')
        if reader is not None:
            break
    for place, motif in reader or ():
        if any(motif.name == other.name for other in motifs):
            raise place.error(f"motif {motif.name!r} is there twice: expected every name once")
        motifs.append(motif)
    if not motifs:
        raise UserError(f"{Path(path)}: no motifs: expected one at least")
    return motifs


def _jaspar(place: Place, header: str, lines: Lines) -> Iterator[tuple[Place, Motif]]:
    while header:
        name, rows, start = "_".join(header[1:].split()[:2]), dict[str, list[float]](), place
        if not name:
            raise place.error("a motif without a name")
        header = ""
        for place, line in lines:
            if line.startswith(">"):
                header = line
                break
            _jaspar_row(place, line, rows)
        if len(rows) < len(BASES):
            raise start.error(f"motif {name!r} has {len(rows)} rows: expected one for each of A, C, G and T")
        counts = np.array([rows[base] for base in BASES]).T
        if empty := [number for number, column in enumerate(counts, 1) if not column.sum()]:
            raise start.error(f"motif {name!r}: all counts of column {empty[0]} are 0")
        yield start, Motif(name, counts)


def _jaspar_row(place: Place, line: str, rows: dict[str, list[float]]) -> None:
    """Takes the row of a base, which "A [1 2]" names, and which "1 2" has by its place among four."""
    if len(rows) == len(BASES):
        raise place.error('a fifth row: expected A, C, G and T, then ">" and the next motif')
    labelled = _LABELLED_ROW.fullmatch(line)
    base = labelled[1].upper() if labelled else BASES[len(rows)]
    if base not in BASES or base in rows:
        raise place.error(f"a row for {base!r}: expected A, C, G and T, each once")
    numbers = [_number(text, place) for text in (labelled[2] if labelled else line).split()]
    length = len(next(iter(rows.values()), numbers))
    if not numbers or len(numbers) != length:
        raise place.error(f"{len(numbers)} counts: expected {length or 'one at least'}")
    rows[base] = numbers


def _meme(lines: Lines) -> Iterator[tuple[Place, Motif]]:
    motif: tuple[Place, str] | None = None
    for place, line in lines:
        if line.startswith("ALPHABET") and line.partition("=")[2].strip() != BASES:
            raise place.error(f"{line!r}: expected the alphabet ACGT")
        if line.startswith("MOTIF "):
            if motif is not None:
                raise motif[0].error(f"motif {motif[1]!r} has no letter-probability matrix")
            words = line.split()[1:3]
            # The text that MEME prints has "width = ..." in the same line.
            motif = place, "_".join(words[:1] if words[1:] in (["width"], ["w"]) else words)
        if line.startswith("letter-probability matrix") and motif is not None:
            yield motif[0], Motif(motif[1], _meme_matrix(place, line, lines))
            motif = None
    if motif is not None:
        raise motif[0].error(f"motif {motif[1]!r} has no letter-probability matrix: is the file cut short?")


def _meme_matrix(place: Place, line: str, lines: Lines) -> npt.NDArray[np.float64]:
    fields = dict(_FIELD.findall(line))
    if fields.get("alength", "4") != "4":
        raise place.error(f"alength is {fields['alength']}: expected 4, the letters of DNA")
    if "w" not in fields:
        raise place.error('expected "w=" and the number of rows that follow')
    width = place.number(fields["w"], "w")
    sites = _number(fields["nsites"], place) if "nsites" in fields else _DEFAULT_SITES
    if not width or not sites:
        raise place.error(f"w is {width}, nsites {sites:g}: expected more than 0")
    rows: list[list[float]] = []
    while len(rows) < width:
        at, text = next(lines, (place, ""))
        if not text:
            raise place.error(f"{len(rows)} rows follow: expected {width}: is the file cut short?")
        words = text.split()
        if len(words) != len(BASES):
            raise at.error(f"{len(words)} numbers: expected the probabilities of A, C, G and T")
        row = [_number(word, at) for word in words]
        if abs(sum(row) - 1) > _TOLERANCE:
            raise at.error(f"probabilities with the sum {sum(row):g}: expected 1")
        rows.append(row)
    return sites * np.array(rows)


def _number(text: str, place: Place) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise place.error(f"{text!r}: expected a number") from error
    if not 0 <= number < math.inf:
        raise place.error(f"{text}: expected a number from 0 on")
    return number


def write_meme(path: Path, motifs: Sequence[Motif], composition: Mapping[str, float]) -> None:
    """Writes motifs in MEME's minimal format, whole or not at all.

    Args:
        path: the file.
        motifs: of whole numbers of sites, as many in each column of a motif.
        composition: probability of each base where the motifs come from.
    """
    background = " ".join(f"{base} {composition[base]:.6f}" for base in BASES)
    header = f"MEME version 4\n\nALPHABET= {BASES}\n\nstrands: + -\n"
    parts = [f"{header}\nBackground letter frequencies\n{background}\n"]
    for motif in motifs:
        sites = motif.counts[0].sum()
        rows = "".join(" ".join(f"{p:.6f}" for p in row) + "\n" for row in motif.counts / sites)
        size = f"alength= 4 w= {len(motif)} nsites= {sites:g} E= 0"
        parts.append(f"MOTIF {motif.name}\nletter-probability matrix: {size}\n{rows}")
    write_text_atomically(path, "\n".join(parts))
