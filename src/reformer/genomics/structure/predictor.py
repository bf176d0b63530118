"""A trained model that gives the secondary structure of proteins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.data.proteins import protein_table
from reformer.errors import UserError
from reformer.genomics.formats.proteins import Protein
from reformer.training.batches import by_length

_TOKENS_PER_BATCH = 1 << 14
_PROTEINS_AT_A_TIME = 256
_PAD = 0


class StructurePredictor:
    """Gives the probabilities of the classes of each residue.

    Args:
        model: a `ReformerForTokenClassification` of proteins in eval mode, whose labels are letters.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.letters = "".join(model.config.id2label[number] for number in range(model.config.num_labels))
        self._table = protein_table()

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> StructurePredictor:
        """Loads a model from its folder, or that of its run or a checkpoint.

        Raises:
            UserError: for a missing, damaged or foreign file, and a device that is not there.
        """
        from reformer.data.tokenizers import ProteinTokenizer
        from reformer.training.model_folder import load_token_classifier

        model, tokenizer = load_token_classifier(path, device)
        if not isinstance(tokenizer, ProteinTokenizer):
            raise UserError(
                f"{path}: not a model of proteins: expected one of `reformer dna structure train`"
            )
        return cls(model)

    def predict(self, proteins: Iterable[Protein]) -> Iterator[tuple[Protein, npt.NDArray[np.float32]]]:
        """Yields proteins in their order, each with probabilities ``[residues, classes]``."""
        waiting: list[Protein] = []
        for protein in proteins:
            waiting.append(protein)
            if len(waiting) == _PROTEINS_AT_A_TIME:
                yield from self._predict_all(waiting)
                waiting = []
        yield from self._predict_all(waiting)

    def probabilities(self, sequences: list[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.float32]]:
        """The probabilities ``[residues, classes]`` of each sequence of token ids ``[residues]``."""
        found: dict[int, npt.NDArray[np.float32]] = {}
        for numbers in by_length([len(sequence) for sequence in sequences], _TOKENS_PER_BATCH):
            rows = self._one_batch([sequences[number] for number in numbers])
            found |= {
                number: row[: len(sequences[number])] for number, row in zip(numbers, rows, strict=True)
            }
        return [found[number] for number in range(len(sequences))]

    def _predict_all(self, proteins: list[Protein]) -> Iterator[tuple[Protein, npt.NDArray[np.float32]]]:
        tokens = [
            np.frombuffer(protein.letters.encode().translate(self._table), np.uint8) for protein in proteins
        ]
        yield from zip(proteins, self.probabilities(tokens), strict=True)

    def _one_batch(self, sequences: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        import torch

        ids = np.full((len(sequences), max(map(len, sequences))), _PAD, dtype=np.int64)
        for row, sequence in zip(ids, sequences, strict=True):
            row[: len(sequence)] = sequence
        input_ids = torch.from_numpy(ids).to(self.model.device)
        with torch.no_grad():
            logits = self.model(input_ids=input_ids, attention_mask=(input_ids != _PAD).long()).logits
        return logits.float().softmax(-1).cpu().numpy()  # type: ignore[no-any-return]
