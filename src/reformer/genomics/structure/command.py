"""What `reformer dna structure` does: a run with a report of its chains, and a file of predictions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reformer.errors import UserError
from reformer.genomics.formats.proteins import Protein, read_proteins
from reformer.genomics.provenance import provenance, provenance_beside
from reformer.training.atomic import atomic_file, check_writable, write_text_atomically

if TYPE_CHECKING:
    from reformer.genomics.structure.data import StructureData
    from reformer.genomics.structure.recipe import StructureRecipe
    from reformer.training.run import RunResult

SCORES_FILE = "scores.json"
_TABLE, _FASTA = (".tsv",), (".fa", ".fasta")
_LINE = 60

Prediction = tuple[Protein, npt.NDArray[np.float32]]


def train_structure(recipe: StructureRecipe, resume: bool = False) -> RunResult:
    """Trains as a recipe says; the run folder then has `scores.json` and a report with chains and confusion.

    Raises:
        UserError: for whatever is wrong with a file, the recipe or the run folder.
    """
    from reformer.genomics.structure.training import StructureTask
    from reformer.training.run import train

    task = StructureTask(recipe)
    result = train(recipe, resume=resume, task=task)
    if result.report is not None:
        _report(result.folder, task.data)
    return result


def _report(folder: Path, data: StructureData) -> None:
    from reformer.genomics.structure.metrics import scores_json
    from reformer.genomics.structure.predictor import StructurePredictor
    from reformer.genomics.structure.report import sections
    from reformer.genomics.structure.training import evaluate_chains
    from reformer.training.report import write_report

    predictor = StructurePredictor.load(folder)
    results = {name: evaluate_chains(predictor, data, name)[1] for name in data.held_out}
    scores = {name: scores_json(found, predictor.letters) for name, found in results.items()}
    write_text_atomically(folder / SCORES_FILE, json.dumps(scores, indent=1) + "\n")
    write_report(folder, sections(results, predictor.letters, data.left_out))


def predict_structure(model: Path, proteins: Path, out: Path, device: str = "auto") -> int:
    """Predicts the proteins of a FASTA file into a file, whole or not at all, and its provenance beside it.

    Args:
        model: a model, checkpoint or run folder.
        proteins: the file.
        out: *.tsv, a line for each residue with the probabilities of its classes; or *.fa, *.fasta, the
            classes as letters in the place of amino acids.
        device: "auto", "cpu" or "cuda".

    Returns:
        The number of proteins.

    Raises:
        UserError: for whatever is wrong with a file.
    """
    from reformer.genomics.structure.predictor import StructurePredictor

    check_writable(out)
    if out.suffix not in _TABLE + _FASTA:
        raise UserError(f"{out}: expected a name that ends with {', '.join(_TABLE + _FASTA)}")
    predictor = StructurePredictor.load(model, device)
    predictions = predictor.predict(read_proteins(proteins))
    write = _write_table if out.suffix in _TABLE else _write_fasta
    with provenance_beside(out, provenance("dna structure predict", model, device, proteins=proteins)):
        return write(out, predictions, predictor.letters)


def _write_table(out: Path, predictions: Iterable[Prediction], letters: str) -> int:
    count = 0
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8") as file:
        columns = "".join(f"\tp_{letter}" for letter in letters)
        file.write(f"protein\tposition\tresidue\tclass{columns}\n")
        for protein, probabilities in predictions:
            best = probabilities.argmax(axis=1)
            for i, (residue, row) in enumerate(zip(protein.letters, probabilities, strict=True)):
                numbers = "".join(f"\t{value:.4f}" for value in row)
                file.write(f"{protein.name}\t{i + 1}\t{residue}\t{letters[best[i]]}{numbers}\n")
            count += 1
    return count


def _write_fasta(out: Path, predictions: Iterable[Prediction], letters: str) -> int:
    count = 0
    with atomic_file(out) as partial, open(partial, "w", encoding="utf-8") as file:
        for protein, probabilities in predictions:
            states = "".join(letters[number] for number in probabilities.argmax(axis=1))
            file.write(f">{protein.name} mean probability {probabilities.max(axis=1).mean():.3f}\n")
            for start in range(0, len(states), _LINE):
                file.write(states[start : start + _LINE] + "\n")
            count += 1
    return count
