"""What a change does to genes: how much better the changed sequence can be read as genes, in nats.

An annotation model finds the best path through its gene grammar, and by how many nats that is likelier than
no gene at all: codon statistics and the network's probabilities, less what genes and introns cost. A stop
codon or a shift of the frame in a gene leaves no path that collects all that the gene brought in; a silent
change costs no more than a rarer codon does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reformer.errors import UserError
from reformer.genomics.annotation.annotator import SETTINGS_FILE, AnnotationSettings, Annotator
from reformer.genomics.annotation.relatives import BroughtOver
from reformer.genomics.base_encoding import LETTER_OF_TOKEN
from reformer.genomics.genome import Genome
from reformer.genomics.strands import StrandedSequence, TokenIds, changed_ids
from reformer.genomics.variants.changes import Change, windows_around
from reformer.genomics.variants.likelihood import Nats
from reformer.genomics.variants.vcf import InfoField

_DECIMALS = 6  # what is less is the rounding of sums over the window


class GeneScorer:
    """Of an annotation model, which reads both strands at once; see `Scorer`.

    Windows are those of `windows_around`. Genes may go on beyond their ends.

    Args:
        annotator: the model.
        window: bases, at least 2.
        owner: named in the error.

    Raises:
        UserError: the model's classes cannot be decoded into genes.
    """

    fields: tuple[InfoField, ...] = (
        InfoField(
            "REFORMER_GENE_LLR", "A", "Float",
            "Log-likelihood ratio of the best reading as genes to no gene, both strands: that of the changed "
            "sequence minus that of the genome's, in nats",
        ),
    )  # fmt: skip

    def __init__(self, annotator: Annotator, window: int, owner: Path) -> None:
        check_grammar(annotator.settings, owner)
        self._annotator, self._window = annotator, window
        self._brought_over: tuple[str, BroughtOver | None] = ("", None)

    def scores(self, genome: Genome, name: str, changes: Sequence[Change]) -> Nats:
        """See `Scorer`."""
        sequence = StrandedSequence(genome, name, "+", "fold")
        brought_over = self._ask_relatives(sequence, name)
        scores = np.full((1, len(changes)), np.nan)
        for first, inside in windows_around(changes, self._window, len(sequence)):
            unchanged: dict[int, float] = {}
            for i, end in inside:
                here = there = None
                if brought_over is not None:
                    here, there = brought_over[first:end], _changed(brought_over, changes[i], first, end)
                if end not in unchanged:
                    unchanged[end] = best_reading(self._annotator, sequence.ids(first, end), here)
                ids = changed_ids(sequence, changes[i], first, end)
                scores[0, i] = best_reading(self._annotator, ids, there) - unchanged[end]
        return np.round(scores, _DECIMALS) + 0.0  # never -0

    def _ask_relatives(self, sequence: StrandedSequence, name: str) -> BroughtOver | None:
        """What the model's relatives say of a whole sequence, kept until another one comes."""
        relatives = self._annotator.settings.relatives
        if relatives is not None and self._brought_over[0] != name:
            (found,) = relatives.bring_over([sequence.ids(0, len(sequence))])
            self._brought_over = name, found
        return self._brought_over[1]


def check_grammar(settings: AnnotationSettings, owner: Path) -> None:
    """Raises UserError, which names the `owner`, where a model's classes cannot be decoded into genes."""
    if settings.grammar is None:
        raise UserError(f"{owner / SETTINGS_FILE}: no gene grammar: expected CDS among annotation.kinds")


def best_reading(annotator: Annotator, ids: TokenIds, brought_over: BroughtOver | None) -> float:
    """Nats by which the best reading of a sequence as genes is likelier than no gene.

    Args:
        annotator: a model whose classes can be decoded, see `check_grammar`.
        ids: nucleotide token ids ``[bases]``.
        brought_over: what the model's relatives say of them, if it has some.
    """
    decoder = annotator.settings.decoder(open_ends=True)
    assert decoder is not None
    probabilities = annotator.probabilities(ids, brought_over=brought_over)
    decoder.feed(ids.tobytes().translate(LETTER_OF_TOKEN), probabilities, brought_over)
    return decoder.score()


def _changed(brought_over: BroughtOver, change: Change, first: int, end: int) -> BroughtOver:
    """What relatives say of a window with a change: what they say of the unchanged bases.

    So a change is judged by what it does to the gene that was there, not by what else it is like. Of bases
    that were put in beyond those taken out they say nothing.
    """
    growth = len(change.inserted) - (change.end - change.start)
    kept = brought_over[first : change.start + min(len(change.inserted), change.end - change.start)]
    added = np.zeros((max(growth, 0), kept.classes.shape[1]), dtype=np.uint8)
    behind = brought_over[change.end : max(end - growth, change.end)]
    return BroughtOver.joined([kept, BroughtOver(added, added), behind])[: end - first]
