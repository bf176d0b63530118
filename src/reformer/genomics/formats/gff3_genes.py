"""Genes from the features of a GFF3 file, joined by ID and Parent."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from reformer.genomics.formats.features import Feature
from reformer.genomics.formats.transcripts import TranscriptParts
from reformer.genomics.genes import Gene

_PARTS = {"exon", "CDS"}
_logger = logging.getLogger(__name__)


def genes_of_gff3(features: Iterable[Feature]) -> list[Gene]:
    """Joins features to genes, in the order in which the genes begin in the file.

    A gene is a feature without a parent whose type ends with "gene", or that has an exon or CDS below it. A
    CDS or exon directly under a gene makes a transcript named like the gene; a coding sequence with no
    parent at all makes a gene too. Parents may come after their children. What is transcribed
    from several places (exception=trans-splicing) has no single strand: it is left out, and the log says
    how many there were.

    Raises:
        UserError: an ID that two different features have, a parent that is not in the file or that leads
            back to itself, parts of a transcript on different strands or sequences.
    """
    tree = _Tree()
    for feature in features:
        tree.add(feature)
    return tree.genes()


class _Tree:
    def __init__(self) -> None:
        self._nodes: dict[str, Feature] = {}
        self._parts: list[Feature] = []
        self._num_trans_spliced = 0

    def add(self, feature: Feature) -> None:
        if feature.type in _PARTS:
            if feature.first("exception") == "trans-splicing":
                self._num_trans_spliced += 1
            else:
                self._parts.append(feature)
        elif (name := feature.first("ID")) is not None:
            known = self._nodes.setdefault(name, feature)
            if known.type != feature.type or known.interval.sequence != feature.interval.sequence:
                assert feature.place is not None
                assert known.place is not None
                raise feature.place.error(
                    f"ID {name!r} of a {feature.type} is that of a {known.type} in line {known.place.line}: "
                    "expected every ID once"
                )

    def genes(self) -> list[Gene]:
        transcripts: dict[str, dict[str, TranscriptParts]] = {
            name: {}
            for name, node in self._nodes.items()
            if node.type.endswith("gene") and not node.attributes.get("Parent")
        }
        for name, node in self._nodes.items():
            for parent in node.attributes.get("Parent", ()):
                root = self._root(parent, node)
                if root in transcripts and not self._has_transcript_above(parent):
                    transcripts[root].setdefault(name, TranscriptParts(name, node))
        for part in self._parts:
            for parent in part.attributes.get("Parent", ()):
                self._add_to_parent(transcripts, part, parent)
            if part.type == "CDS" and "Parent" not in part.attributes:
                self._add_orphan(transcripts, part)
        if self._num_trans_spliced:
            _logger.warning("left out %d trans-spliced exons and CDS", self._num_trans_spliced)
        return [self._gene(name, parts) for name, parts in transcripts.items()]

    def _add_to_parent(
        self, transcripts: dict[str, dict[str, TranscriptParts]], part: Feature, parent: str
    ) -> None:
        root = self._root(parent, part)
        is_gene = parent == root and self._nodes[root].type.endswith("gene")
        node = None if is_gene else self._nodes[parent]
        transcripts.setdefault(root, {}).setdefault(parent, TranscriptParts(parent, node)).add(part)

    def _add_orphan(self, transcripts: dict[str, dict[str, TranscriptParts]], part: Feature) -> None:
        assert part.place is not None
        name = part.first("ID") or f"CDS-line-{part.place.line}"
        transcripts.setdefault(name, {}).setdefault(name, TranscriptParts(name)).add(part)

    def _has_transcript_above(self, name: str) -> bool:
        """Whether `name` is itself below something, as a miRNA is below its primary transcript."""
        return bool(self._nodes[name].attributes.get("Parent"))

    def _root(self, name: str, child: Feature) -> str:
        """Follows parents to the top, of several the first."""
        visited = {name}
        while True:
            node = self._nodes.get(name)
            if node is None:
                assert child.place is not None
                raise child.place.error(f"parent {name!r} of this {child.type} is no ID in the file")
            parents = node.attributes.get("Parent")
            if not parents:
                return name
            child, name = node, parents[0]
            if name in visited:
                assert child.place is not None
                raise child.place.error(
                    f"feature {name!r} is its own ancestor: expected parents without a circle"
                )
            visited.add(name)

    def _gene(self, name: str, parts: dict[str, TranscriptParts]) -> Gene:
        node = self._nodes.get(name)
        made = tuple(transcript.transcript("transcript") for transcript in parts.values())
        if node is None:
            return Gene(name, "gene", made[0].interval, made)
        symbol, partial = (
            node.first("gene") or node.first("Name"),
            ("start_range" in node.attributes, "end_range" in node.attributes),
        )
        return Gene(name, node.type, node.interval, made, symbol, partial)
