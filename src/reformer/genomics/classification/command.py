"""What `reformer dna classify` does: a run with a report of its labels, and a folder of predictions."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.classification.classifier import MULTI_LABEL, ClassificationSettings, Classifier
from reformer.genomics.classification.metrics import Classified, OneLabel, SeveralLabels, Targets
from reformer.genomics.classification.report import Found, run_sections, write_classification_report
from reformer.genomics.formats.label_files import check_all_used, read_labels
from reformer.genomics.provenance import PROVENANCE_FILE, provenance, write_provenance
from reformer.training.atomic import atomic_folder, write_text_atomically

if TYPE_CHECKING:
    from reformer.data.tokens import TokenArray
    from reformer.genomics.classification.data import ClassificationData
    from reformer.genomics.classification.recipe import ClassificationRecipe
    from reformer.training.run import RunResult

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


def train_classifier(recipe: ClassificationRecipe, resume: bool = False) -> RunResult:
    """Trains as a recipe says; the run folder then has `scores.json` and a report with them.

    Raises:
        UserError: for whatever is wrong with a file, the recipe or the run folder.
    """
    from reformer.genomics.classification.training import ClassificationTask
    from reformer.training.run import train

    task = ClassificationTask(recipe)
    result = train(recipe, resume=resume, task=task)
    if result.report is not None and task.data.held_out:
        _report(result.folder, task.data)
    return result


def _report(folder: Path, data: ClassificationData) -> None:
    from reformer.training.report import write_report

    classifier = Classifier.load(folder)
    results = {
        name: classifier.settings.scored(classifier.logits(array), data.targets[f"eval.{name}"])
        for name, array in data.held_out.items()
    }
    scores = {name: _scores(*found) for name, found in results.items()}
    write_text_atomically(folder / SCORES_FILE, json.dumps(scores, indent=1) + "\n")
    write_report(folder, run_sections(results))


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
    truth = None if options.labels is None else _truth(array, options.labels, classifier.settings)
    strands = [False, True] if options.both_strands and not classifier.is_rc_equivariant else [False]
    started = time.perf_counter()
    with progress_bar("classifying", len(array) * len(strands)) as advance:
        logits = [classifier.logits(array, other_strand=strand, on_progress=advance) for strand in strands]
    seconds = time.perf_counter() - started
    settings = classifier.settings
    probabilities = np.mean([settings.probabilities(one) for one in logits], axis=0)
    scored = raw = None
    if truth is not None:
        pairs = [settings.scored(one, truth) for one in logits]
        scored, raw = (
            replace(of_strands[0], probabilities=np.mean([one.probabilities for one in of_strands], axis=0))
            for of_strands in zip(*pairs, strict=True)
        )
    facts = [
        ("Sequences", f"{len(array.records):,}", f"{len(array):,} bases, {sequences}"),
        ("Model", str(model), f"{sum(p.numel() for p in classifier.model.parameters()):,} parameters"),
        ("Time", f"{seconds:,.1f} s", f"{len(array) / seconds:,.0f} bases a second"),
        ("Peak memory", f"{peak_memory_bytes() / 2**20:,.0f} MiB", "of the whole process"),
        ("Temperature", f"{settings.temperature:.3f}", "fitted on the validation part of the run"),
    ]
    if scored is not None and raw is not None:
        facts += _facts(scored, raw)
    made = provenance("dna classify predict", model, device, sequences=sequences, **asdict(options))
    with atomic_folder(out) as partial:
        write_provenance(partial / PROVENANCE_FILE, made)
        _write_predictions(partial / PREDICTIONS_FILE, array, classes, probabilities, truth, options.top)
        _write_probabilities(partial / PROBABILITIES_FILE, array, classes, probabilities)
        if scored is not None and raw is not None:
            text = json.dumps(_scores(scored, raw), indent=1) + "\n"
            (partial / SCORES_FILE).write_text(text, encoding="utf-8")
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


def _truth(array: TokenArray, path: Path, settings: ClassificationSettings) -> Targets:
    labels = read_labels([path], several=settings.problem_type == MULTI_LABEL)
    check_all_used(labels, array)
    return settings.targets(array, labels)


def _scores(scored: Classified, raw: Classified) -> dict[str, Any]:
    content, before = scored.to_json(), raw.to_json()
    for key in ("expected_calibration_error", "top_k_calibration"):
        content[f"{key}_before"] = before[key]
    return content


def _facts(scored: Classified, raw: Classified) -> list[tuple[str, str, str]]:
    """What the report says first: (what, value, remark)."""
    after, before = scored.to_json(), raw.to_json()
    error = "expected_calibration_error"
    facts = [("Macro F1", f"{after['macro_f1']:.4f}", "mean over the classes that occur")]
    if isinstance(scored, OneLabel):
        remark = ", ".join(f"top {k} {value:.4f}" for k, value in after["top_k_accuracy"].items())
        facts.insert(0, ("Accuracy", f"{after['accuracy']:.4f}", remark))
    if isinstance(scored, SeveralLabels):
        facts += [
            ("Micro F1", f"{after['micro_f1']:.4f}", "of all pairs of a sequence and a label"),
            (
                "Average precision",
                f"{after['macro_average_precision']:.4f}",
                f"mean over the labels that occur; {after['micro_average_precision']:.4f} of all pairs",
            ),
        ]
        recalls = after["recall_at_k"]
        if recalls:
            remark = ", ".join(f"{value:.4f} of {k}" for k, value in recalls.items())
            facts.append(("Recall at k", remark.split()[0], f"true labels among the likeliest: {remark}"))
    return [
        *facts,
        ("Calibration error", f"{after[error]:.4f}", f"expected; {before[error]:.4f} without temperature"),
    ]


def _write_predictions(
    path: Path,
    array: TokenArray,
    classes: tuple[str, ...],
    probabilities: npt.NDArray[np.floating],
    truth: Targets | None,
    top: int,
) -> None:
    """A line per sequence: its name and length, its true labels where known, its likeliest labels."""
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
                *([_names(classes, truth[row])] if truth is not None else []),
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


def _names(classes: tuple[str, ...], true: Any) -> str:
    """The class of a number, or the labels of a row of 0 and 1."""
    return ";".join(classes[i] for i in np.flatnonzero(true)) if np.ndim(true) else classes[true]


def _write_confusion(path: Path, scored: Classified) -> None:
    """True classes in rows, predicted ones in columns; of several labels, counts for each by itself."""
    with path.open("w", encoding="utf-8") as file:
        if isinstance(scored, OneLabel):
            _write_row(file, ["#true\\predicted", *scored.classes])
            for name, counts in zip(scored.classes, scored.confusion.tolist(), strict=True):
                _write_row(file, [name, *counts])
            return
        _write_row(file, ["#label", "true_positive", "false_positive", "false_negative", "true_negative"])
        for name, score in scored.by_class().items():
            right, predicted, true = (int(n) for n in (score.num_right, score.num_predicted, score.num_true))
            others = len(scored.targets) - predicted - true + right
            _write_row(file, [name, right, predicted - right, true - right, others])


def _write_row(file: Any, cells: list[Any]) -> None:
    file.write("\t".join(map(str, cells)) + "\n")
