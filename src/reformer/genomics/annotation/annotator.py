"""A trained model that says what each base is, with all that its probabilities are read by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reformer.data.nucleotides import reverse_complement
from reformer.errors import UserError
from reformer.genomics.annotation.classes import ClassScheme
from reformer.genomics.annotation.coding_model import CodingModel
from reformer.genomics.annotation.gene_calls import GeneDecoder
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.hints import HintModel
from reformer.genomics.annotation.relatives import BroughtOver, Relatives
from reformer.genomics.annotation.signals import SignalModel
from reformer.genomics.base_encoding import BaseEncoding, by_frame
from reformer.training.atomic import write_text_atomically
from reformer.training.json_file import read_json
from reformer.training.model_folder import find_model_folder, load_without_tokenizer, resolve_device

SETTINGS_FILE = "annotation.json"
_FORMAT = "reformer annotation"
_TOKENS_PER_BLOCK = 1 << 16


@dataclass(frozen=True)
class AnnotationSettings:
    """What a model's tokens and classes are, and what the genes that it was trained on look like.

    Attributes:
        scheme: the classes.
        encoding: the tokens.
        grammar: of the genes; None where the classes cannot be decoded.
        coding: codon statistics of the genes; None likewise.
        signals: their start codons and splice sites; None likewise.
        relatives: annotated genomes whose labels the model reads; None where it reads the sequence alone.
        hints: what relatives say of their sites; None without relatives or grammar.
        shortest_runs: fewest bases of RNA genes, UTR and features, by kind, see `.runs`; what has none is
            not called.
    """

    scheme: ClassScheme
    encoding: BaseEncoding
    grammar: Grammar | None
    coding: CodingModel | None = None
    signals: SignalModel | None = None
    relatives: Relatives | None = None
    hints: HintModel | None = None
    shortest_runs: Mapping[str, int] = field(default_factory=dict)

    def decoder(self, *, open_ends: bool = False, free_start: bool = True) -> GeneDecoder | None:
        """A decoder for one sequence, see `GeneDecoder`; None without a grammar."""
        if self.grammar is None:
            return None
        statistics = self.coding, self.signals, self.hints
        return GeneDecoder(self.scheme, self.grammar, *statistics, open_ends=open_ends, free_start=free_start)

    def write(self, folder: Path) -> None:
        """Writes `annotation.json`, and the tables beside it, into a model's folder."""
        content = {
            "format": _FORMAT,
            "classes": list(self.scheme.names),
            "scheme": self.scheme.to_json(),
            "encoding": asdict(self.encoding),
            "grammar": None if self.grammar is None else self.grammar.to_json(),
            "coding": self.coding is not None,
            "signals": self.signals is not None,
            "relatives": self.relatives is not None,
            "hints": self.hints is not None,
            "shortest_runs": dict(self.shortest_runs),
        }
        for statistics in (self.coding, self.signals, self.relatives, self.hints):
            if statistics is not None:
                statistics.write(folder)
        write_text_atomically(folder / SETTINGS_FILE, json.dumps(content, indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> AnnotationSettings:
        """Reads what `write` has written.

        Raises:
            UserError: it is missing, damaged or not ours.
        """
        file = folder / SETTINGS_FILE
        if not file.exists():
            raise UserError(
                f"{folder}: {SETTINGS_FILE} is missing: expected a model of `reformer dna annotate train`"
            )
        content = read_json(file)
        if content.get("format") != _FORMAT:
            raise UserError(f'{file}: expected "format": "{_FORMAT}"')
        try:
            grammar = content["grammar"]
            scheme = ClassScheme(**content["scheme"])
            return cls(
                scheme,
                BaseEncoding(**content["encoding"]),
                None if grammar is None else Grammar(**grammar),
                CodingModel.read(folder) if content.get("coding") else None,
                SignalModel.read(folder) if content.get("signals") else None,
                Relatives.read(folder, scheme) if content.get("relatives") else None,
                HintModel.read(folder, scheme) if content.get("hints") else None,
                {kind: int(bases) for kind, bases in content.get("shortest_runs", {}).items()},
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{file}: damaged: {error}") from error


class Annotator:
    """Gives the probabilities of the classes of each base.

    Args:
        model: a `ReformerForTokenClassification`; any callable that takes int64 `[1, bases]` tokens as
            `input_ids` and returns an object with `logits` `[1, bases, classes]` will do. Where the settings
            have relatives it takes `input_features` too.
        settings: of its folder.
    """

    def __init__(self, model: Any, settings: AnnotationSettings) -> None:
        self.model = model
        self.settings = settings

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Annotator:
        """Loads a model in eval mode from its folder, or that of its run or a checkpoint.

        Raises:
            UserError: for a missing, damaged or foreign file, and a device that is not there.
        """
        folder = find_model_folder(path)
        settings = AnnotationSettings.read(folder)
        torch_device = resolve_device(device)
        model = load_without_tokenizer(folder, ("ReformerForTokenClassification",))
        if model.config.num_labels != len(settings.scheme.names):
            raise UserError(
                f"{folder}: the model has {model.config.num_labels} classes, {SETTINGS_FILE} "
                f"{len(settings.scheme.names)}"
            )
        return cls(model.to(torch_device).eval(), settings)

    def bring_over(self, tokens: npt.NDArray[np.uint8]) -> BroughtOver | None:
        """What the relatives say of nucleotide token ids ``[bases]``; None where there are none."""
        if self.settings.relatives is None:
            return None
        (found,) = self.settings.relatives.bring_over([tokens])
        return found

    def probabilities(
        self,
        tokens: npt.NDArray[np.uint8],
        *,
        both_strands: bool = True,
        brought_over: BroughtOver | None = None,
    ) -> npt.NDArray[np.float32]:
        """Reads a sequence in one pass, or one pass for each strand.

        Args:
            tokens: nucleotide token ids ``[bases]``.
            both_strands: average what the model says of the sequence and of its reverse complement; one that
                is equivariant does so by itself.
            brought_over: what the relatives say of the bases, where the model reads it; by default they are
                asked.

        Returns:
            float32 ``[bases, classes]``, in the order of the scheme.
        """
        scheme = self.settings.scheme
        if brought_over is None:
            brought_over = self.bring_over(tokens)
        forward = self._one_strand(tokens, brought_over)
        config = getattr(self.model, "config", None)
        if not both_strands or getattr(config, "rc_equivariant", False):
            return forward
        other = None if brought_over is None else brought_over.reverse_complement(scheme)
        backward = self._one_strand(reverse_complement(np.asarray(tokens)), other)
        forward += backward[::-1][:, scheme.other_strand]
        forward *= 0.5
        return forward

    def _one_strand(
        self, tokens: npt.NDArray[np.uint8], brought_over: BroughtOver | None
    ) -> npt.NDArray[np.float32]:
        import torch

        first = len(tokens) % 3  # so that either strand's first base is there, see `BaseEncoding.complement`
        ids = torch.from_numpy(self.settings.encoding.ids(tokens, first))[None]
        device = getattr(self.model, "device", "cpu")
        inputs = {"input_ids": ids.to(device)}
        if brought_over is not None:
            features = brought_over.features(len(self.settings.scheme.names))
            inputs["input_features"] = torch.from_numpy(features)[None].to(device)
        with torch.no_grad():
            logits = self.model(**inputs).logits[0]
        del inputs
        anchored = logits.float().softmax(-1).cpu().numpy()
        del logits
        for start in range(0, len(tokens), _TOKENS_PER_BLOCK):  # in place: at 100 Mbp every copy counts
            block = slice(start, start + _TOKENS_PER_BLOCK)
            anchored[block] = by_frame(self.settings.scheme, anchored[block], first + start)
        return anchored
