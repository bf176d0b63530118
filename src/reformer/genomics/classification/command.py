"""What `reformer dna classify predict` does: sequences in, a folder with labels, scores and a report out."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.classification.classifier import Classifier, softmax
from reformer.genomics.classification.metrics import Classified
from reformer.genomics.classification.report import Found, write_classification_report
from reformer.genomics.formats.label_files import check_all_used, read_labels, targets
from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
from reformer.training.atomic import atomic_folder

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray

PREDICTIONS_FILE, PROBABILITIES_FILE = "predictions.tsv", "probabilities.tsv"
SCORES_FILE, CONFUSION_FILE, REPORT_FILE = "scores.json", "confusion.tsv", "report.html"


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        labels: the true labels, or None.
        top: how many of the likeliest labels to list.
        both_strands: average over the sequence and its reverse complement.
    """

    labels: Path | None = None
    top: int = 3
    both_strands: bool = False


def classify(model: Path, sequences: Path, out: Path, options: Options, device: str = "auto") -> list[str]:
    """Labels sequences and reports.

    Returns:
        Lines that say what was found and where it is.

    Raises:
        UserError: for whatever is wrong with a file.
    """
    from reformer.training.corpus import open_corpus
    from reformer.training.metrics import peak_memory_bytes
    from reformer.training.progress import progress_bar

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty: expected a folder to make")
    classifier = Classifier.load(model, device)
    classes = classifier.settings.classes
    array = open_corpus([sequences])
    if array.tokenizer_name != "nucleotide":
        raise UserError(f"{sequences}: not FASTA of nucleotides: expected sequences of DNA")
    truth = None if options.labels is None else _truth(array, options.labels, classes)
    strands = [False, True] if options.both_strands else [False]
    started = time.perf_counter()
    with progress_bar("classifying", len(array) * len(strands)) as advance:
        logits = [classifier.logits(array, other_strand=strand, on_progress=advance) for strand in strands]
    seconds = time.perf_counter() - started
    probabilities = np.mean([classifier.probabilities(one) for one in logits], axis=0)
    scored = None if truth is None else Classified(classes, truth, probabilities)
    raw = None if truth is None else Classified(classes, truth, np.mean([softmax(o) for o in logits], axis=0))
    facts = [
        ("Sequences", f"{len(array.records):,}", f"{len(array):,} bases, {sequences}"),
        ("Model", str(model), f"{sum(p.numel() for p in classifier.model.parameters()):,} parameters"),
        ("Time", f"{seconds:,.1f} s", f"{len(array) / seconds:,.0f} bases a second"),
        ("Peak memory", f"{peak_memory_bytes() / 2**20:,.0f} MiB", "of the whole process"),
        ("Temperature", f"{classifier.settings.temperature:.3f}", "fitted on the held-out part of the run"),
    ]
    if scored is not None and raw is not None:
        facts += [
            ("Accuracy", f"{scored.accuracy():.4f}", _top_k(scored)),
            ("Macro F1", f"{scored.macro_f1():.4f}", "mean over the classes that occur"),
            (
                "Calibration error",
                f"{scored.calibration_error():.4f}",
                f"expected; {raw.calibration_error():.4f} without temperature",
            ),
        ]
    made = provenance("dna classify predict", model, device, sequences=sequences, **asdict(options))
    with atomic_folder(out) as partial:
        write_provenance(partial / PROVENANCE_FILE, made)
        _write_predictions(partial / PREDICTIONS_FILE, array, classes, probabilities, truth, options.top)
        _write_probabilities(partial / PROBABILITIES_FILE, array, classes, probabilities)
        if scored is not None and raw is not None:
            content = {**scored.to_json(), "expected_calibration_error_before": raw.calibration_error()}
            (partial / SCORES_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            _write_confusion(partial / CONFUSION_FILE, scored)
        page = Found(f"Labels of {sequences.name}", facts, classes, probabilities, scored, raw)
        write_classification_report(partial / REPORT_FILE, page)
    lines = [f"{what.lower():18}{value}  ({remark})" for what, value, remark in facts]
    return [
        *lines,
        f"{'labels':18}{out / PREDICTIONS_FILE}",
        f"{'probabilities':18}{out / PROBABILITIES_FILE}",
        f"{'report':18}{out / REPORT_FILE}",
    ]


def _truth(array: TokenArray, path: Path, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    labels = read_labels([path])
    check_all_used(labels, array)
    return targets(array, labels, classes)


def _top_k(scored: Classified) -> str:
    return ", ".join(f"top {k} {scored.top_k_accuracy(k):.4f}" for k in (2, 3, 5) if k < len(scored.classes))


def _write_predictions(
    path: Path,
    array: TokenArray,
    classes: tuple[str, ...],
    probabilities: npt.NDArray[np.floating],
    truth: npt.NDArray[np.int64] | None,
    top: int,
) -> None:
    """A line per sequence: its name and length, its true label where known, its likeliest labels."""
    likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    with path.open("w", encoding="utf-8") as file:
        ranks = range(1, likeliest.shape[1] + 1)
        header = ["#sequence", "bases", *(["true"] if truth is not None else [])]
        _write_row(
            file, [*header, *(f"{what}_{rank}" for rank in ranks for what in ("label", "probability"))]
        )
        for row, record in enumerate(array.records):
            own: list[Any] = [
                record.name,
                record.length,
                *([classes[truth[row]]] if truth is not None else []),
            ]
            pairs = ((classes[i], f"{probabilities[row, i]:.6f}") for i in likeliest[row])
            _write_row(file, [*own, *(text for pair in pairs for text in pair)])


def _write_probabilities(
    path: Path, array: TokenArray, classes: tuple[str, ...], probabilities: npt.NDArray[np.floating]
) -> None:
    with path.open("w", encoding="utf-8") as file:
        _write_row(file, ["#sequence", *classes])
        for record, row in zip(array.records, probabilities, strict=True):
            _write_row(file, [record.name, *(f"{value:.6f}" for value in row)])


def _write_confusion(path: Path, scored: Classified) -> None:
    """True classes in rows, predicted ones in columns."""
    with path.open("w", encoding="utf-8") as file:
        _write_row(file, ["#true\\predicted", *scored.classes])
        for name, counts in zip(scored.classes, scored.confusion.tolist(), strict=True):
            _write_row(file, [name, *counts])


def _write_row(file: Any, cells: list[Any]) -> None:
    file.write("\t".join(map(str, cells)) + "\n")
