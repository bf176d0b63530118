"""The parts of a run's report that are about secondary structure: Q3 and Q8, confusion, and the chains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reformer.genomics.structure.metrics import ChainResult, accuracy_by_chain, confusion_of
from reformer.training import report_page as page
from reformer.training.report_format import format_count
from reformer.training.run_data import TEST

_NEVER_USED = "Read for the first time after training: no choice was made by these chains."
_CHOSEN_BY = "The best checkpoint was chosen by these chains, so that their figures are a little too good."

NAMES = {
    "H": "H, helix",
    "E": "E, strand",
    "C": "C, coil",
    "G": "G, 3-10 helix",
    "I": "I, pi helix",
    "B": "B, bridge",
    "T": "T, turn",
    "S": "S, bend",
}


def sections(results: dict[str, list[ChainResult]], letters: str, left_out: Sequence[str]) -> str:
    """HTML: for each held-out set its figures, its confusion matrix and its chains, and what is not used."""
    parts = [_set(name, found, letters) for name, found in results.items()]
    if left_out:
        listed = page.preformatted("\n".join(left_out))
        summary = f"{format_count(len(left_out))} files and chains are not used"
        parts.append(page.section("Left out", page.collapsed(summary, listed)))
    return "".join(parts)


def _set(name: str, results: list[ChainResult], letters: str) -> str:
    confusion = confusion_of(results, letters)
    majority = Counter("".join(result.true for result in results)).most_common(1)[0][0]
    num_classes = 3 if len(letters) == 3 else 8
    constant = [ChainResult(one.name, one.true, majority * len(one.true)) for one in results]
    facts = [
        ("Chains", format_count(len(results)), f"{format_count(int(confusion.sum()))} residues"),
        ("Q3", f"{accuracy_by_chain(results, 3):.4f}", "mean over chains"),
    ]
    if num_classes == 8:
        facts.append(("Q8", f"{accuracy_by_chain(results, 8):.4f}", "mean over chains"))
    facts += [
        ("By residue", f"{np.trace(confusion) / confusion.sum():.4f}", "share of all residues"),
        (
            f"Always {NAMES[majority]}",
            f"{accuracy_by_chain(constant, num_classes):.4f}",
            "mean over chains of the most frequent class",
        ),
    ]
    caption = page.paragraph("Residues: true classes in rows, predicted ones in columns.", "caption")
    content = page.headline(facts) + caption + _confusion(confusion, letters)
    use = _NEVER_USED if name == TEST else _CHOSEN_BY
    content = page.paragraph(use, "caption") + content + _chains(results, num_classes)
    return page.section(f"Secondary structure: {name}", content)


def _confusion(confusion: np.ndarray, letters: str) -> str:
    rows = []
    for number, letter in enumerate(letters):
        right, predicted, true = (
            int(part)
            for part in (confusion[number, number], confusion[:, number].sum(), confusion[number].sum())
        )
        counts = [format_count(int(count)) for count in confusion[number]]
        rows.append((NAMES[letter], *counts, _share(right, predicted), _share(right, true)))
    return page.table(("class", *letters, "precision", "recall"), rows)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""


def _chains(results: list[ChainResult], num_classes: int) -> str:
    kinds = (3,) if num_classes == 3 else (3, 8)
    rows = [
        (one.name, format_count(len(one.true)), *(f"{one.accuracy(kind):.4f}" for kind in kinds))
        for one in sorted(results, key=lambda one: one.accuracy(num_classes))
    ]
    table = page.table(("chain", "residues", *(f"Q{kind}" for kind in kinds)), rows)
    return page.collapsed("By chain, from the worst to the best", table)
