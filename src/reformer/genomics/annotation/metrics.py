"""How well an annotation is predicted: per base and class, and per gene."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme, labelled_transcripts
from reformer.genomics.genes import Gene, Transcript


@dataclass(frozen=True)
class Score:
    """Precision, recall and F1 of one class or kind of match; a mean over nothing is 0.

    Attributes:
        num_right: predictions that are true.
        num_predicted: predictions.
        num_true: what there was to predict.
    """

    num_right: float
    num_predicted: float
    num_true: float

    @property
    def precision(self) -> float:
        """Share of the predictions that are true."""
        return self.num_right / self.num_predicted if self.num_predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true ones that are predicted."""
        return self.num_right / self.num_true if self.num_true else 0.0

    @property
    def f1(self) -> float:
        """The harmonic mean of both."""
        total = self.num_predicted + self.num_true
        return 2 * self.num_right / total if total else 0.0

    def to_json(self) -> dict[str, float]:
        """The figures as JSON values."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "predicted": int(self.num_predicted),
            "true": int(self.num_true),
        }


@dataclass(frozen=True)
class ClassCounts:
    """Bases by true and predicted class.

    Attributes:
        scheme: the classes.
        confusion: ``[true classes, predicted classes]``.
    """

    scheme: ClassScheme
    confusion: npt.NDArray[np.floating]

    @classmethod
    def of(
        cls, scheme: ClassScheme, true: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer]
    ) -> ClassCounts:
        """Counts labels ``[bases]``."""
        num = len(scheme.names)
        pairs = true.astype(np.int64) * num + predicted
        return cls(scheme, np.bincount(pairs, minlength=num**2).reshape(num, num).astype(np.float64))

    def __add__(self, other: ClassCounts) -> ClassCounts:
        return ClassCounts(self.scheme, self.confusion + other.confusion)

    def by_class(self) -> dict[str, Score]:
        """Scores of the classes without frames, of those that occur in truth or prediction."""
        scores = {}
        for name, numbers in self.scheme.coarse.items():
            rows, columns = self.confusion[list(numbers)], self.confusion[:, list(numbers)]
            score = Score(float(rows[:, list(numbers)].sum()), float(columns.sum()), float(rows.sum()))
            if score.num_true or score.num_predicted:
                scores[name] = score
        return scores

    def macro_f1(self, names: Iterable[str] | None = None) -> float:
        """Mean F1 of classes without frames; by default of all that occur in truth."""
        scores = self.by_class()
        chosen = [name for name in scores if scores[name].num_true] if names is None else list(names)
        return float(np.mean([scores[name].f1 if name in scores else 0.0 for name in chosen] or [0.0]))

    def accuracy(self) -> float:
        """Share of the bases whose class, frame included, is right."""
        total = float(self.confusion.sum())
        return float(np.trace(self.confusion)) / total if total else 0.0


def gene_scores(
    true: Iterable[Gene], called: Iterable[Gene], lengths: Mapping[str, int] | None = None
) -> dict[str, Score]:
    """Scores per coding gene, each by the transcript that counts (see `.classes`).

    A gene that an end of its sequence cuts off is compared by what is left of it: there the last base of the
    sequence stands for the stop or the start, and the frames must agree as well.

    Args:
        true: the true genes.
        called: the called ones.
        lengths: bases of the sequences, by which genes are told that an end may cut off; None where no such
            genes are called.

    Returns:
        "exact structure": all coding segments are the same; "exact stop": the last coding base is; "exact
        start and stop": the first one too.
    """
    matches = {
        "exact structure": _structure,
        "exact stop": _stop,
        "exact start and stop": lambda transcript: (*_stop(transcript), _ends(transcript)[0]),
    }
    pairs = [[t for t in labelled_transcripts(genes) if t.cds] for genes in (true, called)]
    scores = {}
    for name, key in matches.items():
        wanted, found = (
            {(key(transcript), _frame_at_end(transcript, lengths)) for transcript in transcripts}
            for transcripts in pairs
        )
        scores[name] = Score(len(wanted & found), len(found), len(wanted))
    return scores


def rna_gene_scores(
    true: Iterable[Gene], called: Iterable[Gene], rna_types: Collection[str]
) -> dict[str, Score]:
    """Scores per RNA gene: called and true exons share more than half of the bases that either has.

    Returns:
        "RNA, half shared"; of a true gene that several records of the annotation have, one counts.
    """
    wanted, found = (
        [t for t in labelled_transcripts(genes) if t.type in rna_types] for genes in (true, called)
    )
    by_place: dict[tuple[str, str], list[frozenset[tuple[int, int]]]] = defaultdict(list)
    exons = {
        (t.interval.sequence, t.strand, tuple(sorted((e.start, e.end) for e in t.exons))) for t in wanted
    }
    for sequence, strand, spans in sorted(exons):
        by_place[sequence, strand].append(frozenset(spans))
    num_right = 0
    for transcript in found:
        mine = frozenset((exon.start, exon.end) for exon in transcript.exons)
        left = by_place[transcript.interval.sequence, transcript.strand]
        best = max(left, key=lambda other: _shared(mine, other), default=None)
        if best is not None and _shared(mine, best) > 0.5:
            left.remove(best)  # each is found once
            num_right += 1
    return {"RNA, half shared": Score(num_right, len(found), len(exons))}


def _shared(one: Collection[tuple[int, int]], other: Collection[tuple[int, int]]) -> float:
    """Bases in both sets of spans by those in either."""
    both = sum(max(min(b, d) - max(a, c), 0) for a, b in one for c, d in other)
    return both / (sum(b - a for a, b in (*one, *other)) - both)


def _frame_at_end(transcript: Transcript, lengths: Mapping[str, int] | None) -> int | None:
    """Where codons begin, modulo 3, of a gene that an end of its sequence may cut off; else None."""
    low, high = sorted(_ends(transcript))
    if lengths is None or (low > 0 and high + 1 < lengths[transcript.interval.sequence]):
        return None
    first = transcript.cds[0]
    return (first.end - first.phase if transcript.strand == "-" else first.start + first.phase) % 3


def _structure(transcript: Transcript) -> tuple[Any, ...]:
    segments = tuple((segment.start, segment.end) for segment in transcript.cds)
    return transcript.interval.sequence, transcript.strand, segments


def _ends(transcript: Transcript) -> tuple[int, int]:
    """First and last coding base, from the 5' end."""
    left = min(segment.start for segment in transcript.cds)
    right = max(segment.end for segment in transcript.cds) - 1
    return (right, left) if transcript.strand == "-" else (left, right)


def _stop(transcript: Transcript) -> tuple[Any, ...]:
    return transcript.interval.sequence, transcript.strand, _ends(transcript)[1]
