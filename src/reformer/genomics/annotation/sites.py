"""Where an annotation has start and stop codons and splice sites, and all places that look like one."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import get_args

import numpy as np

from reformer.genomics.annotation.coding_model import Codes
from reformer.genomics.annotation.gene_places import base_codes, occurrences
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.signals import Places, Site
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Segment, Transcript


def sites(
    codes: Codes,
    transcripts: Iterable[Transcript],
    is_reverse: bool,
    grammar: Grammar,
    *,
    between_coding: bool = False,
) -> dict[Site, tuple[Places, Places]]:
    """Finds the sites of transcripts of one strand.

    Args:
        codes: base codes of the strand, from its 5' end, ``[bases]``.
        transcripts: which code, on this strand.
        is_reverse: whether it is "-".
        grammar: the letters of sites; those of transcripts that have others are left out.
        between_coding: whether only splice sites between two coding exons count.

    Returns:
        For each kind of site int64 positions on the strand, of the first base of a start codon, behind a stop
        codon, of an intron, of the exon after it: those of transcripts, and all that have the letters. Both
        are empty for splice sites where genes have no introns.
    """

    def spans(pieces: Iterable[Interval | Segment]) -> list[tuple[int, int]]:
        ends = [(piece.start, piece.end) for piece in pieces]
        return [(len(codes) - b, len(codes) - a) for a, b in ends] if is_reverse else ends

    found: dict[Site, set[int]] = {site: set() for site in get_args(Site)}
    for transcript in transcripts:
        coding = spans(transcript.cds)
        found["start"].add(coding[0][0])
        found["stop"].add(coding[-1][1])
        exons = coding if between_coding else spans(transcript.exons)
        for (_, end), (start, _) in pairwise(exons):
            found["donor"].add(end)
            found["acceptor"].add(start)
    words: dict[Site, set[str]] = {
        "start": set(grammar.starts),
        "stop": set(grammar.stops),
        "donor": {donor for donor, _ in grammar.splices},
        "acceptor": {acceptor for _, acceptor in grammar.splices},
    }
    result: dict[Site, tuple[Places, Places]] = {}
    for site, texts in words.items():
        offset = {"stop": 3, "acceptor": len(grammar.acceptor)}.get(site, 0)
        places = [occurrences(codes, base_codes(text.encode())) + offset for text in texts]
        everywhere = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *places]))
        mine = np.array(sorted(found[site]), dtype=np.int64)
        result[site] = np.intersect1d(mine, everywhere), everywhere
    return result
