"""The report of an annotation: what was found, how right it is, and a plot of tracks over a region."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.genomics.annotation.classes import ClassScheme, labelled_transcripts, without
from reformer.genomics.annotation.metrics import ClassCounts, Score
from reformer.genomics.coordinates import Interval
from reformer.genomics.genes import Gene
from reformer.training import report_page as page
from reformer.training.atomic import write_text_atomically
from reformer.training.report_format import format_count
from reformer.training.report_page import LegendEntry
from reformer.training.report_plots import STAND_IN, Plot, has_matplotlib, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_PLOT = "The plot of the tracks needs matplotlib: pip install 'reformer-torch[report]'"
_SIZE_INCHES = (10.0, 4.0)
_MAX_POINTS = 2000
_COLOURS = {"CDS": "series-1", "exon": "series-1", "intron": "series-2", "RNA": "series-3", "UTR": "series-4"}
_CALLED, _TRUE, _HEIGHT = 2.75, 1.75, 0.32
"""Where the rows of genes are, above probabilities, which reach from -1 to 1."""
_LETTERS_ACROSS = 140
"""How many letters of a gene's name the plot has room for from left to right."""


@dataclass(frozen=True)
class Region:
    """What the plot shows.

    Attributes:
        interval: where it is.
        probabilities: ``[bases, classes]``.
    """

    interval: Interval
    probabilities: npt.NDArray[np.floating]


@dataclass(frozen=True)
class Scores:
    """How right an annotation is.

    Attributes:
        likeliest: bases by true class and the class of the highest probability.
        decoded: bases by true class and the class after decoding.
        genes: by kind of match; empty where the classes cannot be decoded.
    """

    likeliest: ClassCounts
    decoded: ClassCounts
    genes: dict[str, Score]


@dataclass(frozen=True)
class Found:
    """All that the report shows.

    Attributes:
        title: of the page.
        facts: (what, value, remark).
        scheme: the classes.
        called: the called genes.
        true: those of the true annotation, None where there is none.
        region: for the plot, None for no plot.
        scores: None where there is no true annotation.
    """

    title: str
    facts: list[tuple[str, str, str]]
    scheme: ClassScheme
    called: list[Gene]
    true: list[Gene] | None
    region: Region | None
    scores: Scores | None


def write_annotation_report(path: Path, found: Found) -> str | None:
    """Writes the page, whole or not at all; what it says where it lacks its plot, for want of matplotlib."""
    plot = None if found.region is None else _try_plot(found)
    note = _NO_PLOT if found.region is not None and plot is None else None
    parts = [page.paragraph(note, "note")] if note else []
    parts.append(page.section("Summary", page.headline(found.facts)))
    if found.region is not None and plot is not None:
        caption = (
            "Above the line probabilities on +, below it on -, those of a class without strands on both "
            "sides. Boxes are exons, tall ones what codes, low ones UTR and RNA genes; those of genes on - "
            "hang below their row's line, and the point of a gene is its 3' end. Of a gene with several "
            "transcripts the one with most coding bases is shown."
        )
        parts.append(page.section(_place(found.region.interval), page.figure(*plot, caption)))
    if found.scores is not None:
        parts += [_class_table(found.scores), _gene_table(found.scores)]
    write_text_atomically(path, page.page(found.title, "".join(parts)))
    return note


def _try_plot(found: Found) -> Plot | None:
    if not has_matplotlib():
        return None
    assert found.region is not None
    return track_plot(found.scheme, found.region, found.called, found.true)


def track_plot(scheme: ClassScheme, region: Region, called: list[Gene], true: list[Gene] | None) -> Plot:
    """Draws the probabilities of classes by strand, and the genes above them."""
    colours = _colours(scheme)
    legend = [LegendEntry(kind, colour) for kind, colour in colours.items()]
    start, end = region.interval.start, region.interval.end
    per_point = -(-(end - start) // _MAX_POINTS)
    edges = np.arange(start, end, per_point)

    def draw(axes: Axes) -> None:
        for kind, colour in colours.items():
            for strand, sign in (("+", 1), ("-", -1)):
                numbers = list(scheme.coarse.get(f"{kind}{strand}") or scheme.coarse[kind])
                track = region.probabilities[:, numbers].sum(axis=1, dtype=np.float64)
                sums = np.add.reduceat(track, edges - start)
                means = sign * sums / np.diff(np.append(edges, end))
                axes.fill_between(edges, means, step="post", color=STAND_IN[colour], alpha=0.45, lw=0)
        rows = [("called", called, _CALLED)] + ([] if true is None else [("annotated", true, _TRUE)])
        for name, genes, height in rows:
            axes.axhline(height, color=STAND_IN["muted"], linewidth=0.6)
            _draw_genes(axes, genes, region.interval, height, with_names=name == "annotated")
        axes.axhline(0, color=STAND_IN["muted"], linewidth=0.6)
        axes.set_yticks(
            [*(height for *_, height in rows), 1, 0, -1], [*(row[0] for row in rows), "1", "0", "1"]
        )
        axes.set_xlim(start, end)
        axes.set_ylim(-1.1, _CALLED + 0.5)
        axes.set_ylabel("probability on -, on +", loc="bottom")
        axes.grid(visible=False)
        axes.set_xlabel(f"position on {region.interval.sequence} (bases)")
        axes.xaxis.set_major_formatter(lambda value, _: format_count(value))

    return svg("tracks", f"Tracks over {_place(region.interval)}", draw, _SIZE_INCHES), legend


def _colours(scheme: ClassScheme) -> dict[str, str]:
    """Those of kinds; classes of features have what these leave, then grey."""
    used = [_COLOURS[kind] for kind in scheme.kinds if kind in _COLOURS]
    left = iter([colour for colour in dict.fromkeys(_COLOURS.values()) if colour not in used])
    return {kind: _COLOURS.get(kind) or next(left, "muted") for kind in scheme.kinds}


def _draw_genes(axes: Axes, genes: list[Gene], region: Interval, height: float, *, with_names: bool) -> None:
    named = [(gene, transcript) for gene in genes for transcript in labelled_transcripts([gene])]
    for gene, transcript in named:
        left, right = transcript.interval.start, transcript.interval.end
        if transcript.interval.sequence != region.sequence or right <= region.start or left >= region.end:
            continue
        side = -1 if transcript.strand == "-" else 1
        exon_colour = _COLOURS["UTR" if transcript.cds else "RNA"]
        middle = height + side * _HEIGHT / 2
        axes.plot([left, right], [middle, middle], color=STAND_IN["series-1"], linewidth=0.8)
        coding = [(segment.start, segment.end) for segment in transcript.cds]
        others = without([(exon.start, exon.end) for exon in transcript.exons], coding)
        _draw_boxes(axes, others, middle, _HEIGHT / 2, exon_colour, 0)
        _draw_boxes(axes, coding, middle, _HEIGHT, _COLOURS["CDS"], side * len(region) / 150)
        name = gene.symbol or gene.name.removeprefix("gene-")
        left, right = max(left, region.start), min(right, region.end)
        if with_names and right - left > len(name) * len(region) / _LETTERS_ACROSS:
            axes.annotate(
                name,
                ((left + right) / 2, height + side * _HEIGHT),
                (0, 2 * side),
                textcoords="offset points",
                ha="center",
                va="bottom" if side > 0 else "top",
                size=7,
            )


def _draw_boxes(
    axes: Axes, spans: list[tuple[int, int]], middle: float, height: float, colour: str, point: float
) -> None:
    """Draws boxes, the last one in the direction of `point` with a point of that many bases."""
    if not spans:
        return
    low, high = middle - height / 2, middle + height / 2
    last = (max if point > 0 else min)(spans)
    for start, end in spans:
        tip = min(abs(point), end - start) if (start, end) == last else 0.0
        xs = (
            [start, end - tip, end, end - tip, start]
            if point >= 0
            else [end, start + tip, start, start + tip, end]
        )
        axes.fill(xs, [low, low, middle, high, high], color=STAND_IN[colour], linewidth=0)


def _place(interval: Interval) -> str:
    first, last = interval.closed
    return f"{interval.sequence}, bases {format_count(first)} to {format_count(last)}"


def _class_table(scores: Scores) -> str:
    header = ("class", "precision", "recall", "F1", "F1, likeliest class", "true bases")
    likeliest = scores.likeliest.by_class()
    rows = [
        (name, *_figures(score), f"{likeliest[name].f1:.4f}" if name in likeliest else "", _count(score))
        for name, score in scores.decoded.by_class().items()
    ]
    caption = (
        "Per base: after decoding by the gene grammar and, in one column, of the likeliest class as it is."
    )
    return page.section("Classes", page.paragraph(caption, "caption") + page.table(header, rows))


def _gene_table(scores: Scores) -> str:
    if not scores.genes:
        return ""
    rows = [(name, *_figures(score), _count(score)) for name, score in scores.genes.items()]
    caption = (
        "Of a gene that an end of its sequence cuts off, the last base counts as its stop or start. An RNA "
        "gene is found where it and a called one share more than half of the bases that either has."
    )
    table = page.table(("match", "precision", "recall", "F1", "true genes"), rows)
    return page.section("Genes", page.paragraph(caption, "caption") + table)


def _figures(score: Score) -> tuple[str, str, str]:
    return f"{score.precision:.4f}", f"{score.recall:.4f}", f"{score.f1:.4f}"


def _count(score: Score) -> str:
    return format_count(score.num_true)
