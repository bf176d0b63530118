"""Sequences with a label for every base: a token array, and the labels in an array of the same length."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reformer.data.names import check_names
from reformer.data.vocabularies import vocabulary
from reformer.errors import UserError
from reformer.genomics.annotation.classes import ClassScheme, Labels, label_bases, paint_labels
from reformer.genomics.annotation.coding_model import Codes, CodingModel, other_strand
from reformer.genomics.annotation.gene_places import base_codes
from reformer.genomics.annotation.grammar import Grammar
from reformer.genomics.annotation.hints import HintModel
from reformer.genomics.annotation.relatives import READINGS, BroughtOver, Relatives
from reformer.genomics.annotation.signals import Places, SignalModel, Site
from reformer.genomics.annotation.sites import sites
from reformer.genomics.base_encoding import LETTER_OF_TOKEN
from reformer.genomics.coordinates import Interval, reverse_complement
from reformer.genomics.formats.annotation import read_features, read_genes
from reformer.genomics.formats.features import Feature
from reformer.genomics.genes import Gene, Transcript
from reformer.training.corpus import open_corpus
from reformer.training.progress import progress_bar
from reformer.training.run_data import RunData, file_facts

if TYPE_CHECKING:
    from reformer.data.tokens import Record, TokenArray
    from reformer.genomics.annotation.recipe import AnnotationRecipe

_N = vocabulary("nucleotide", "fold")["N"]


@dataclass(frozen=True)
class LabelledSequences:
    """Sequences with their annotation.

    Attributes:
        array: the sequences.
        labels: uint8 ``[tokens]``, a class for each token of the array.
        genes: of all sequences.
        files: the annotations.
        features: those that have a class.
        other_types: types of features that have none.
        brought_over: what relatives say of each token; None where nobody asked them.
    """

    array: TokenArray
    labels: Labels
    genes: list[Gene]
    files: tuple[Path, ...]
    features: list[Feature] = field(default_factory=list)
    other_types: frozenset[str] = frozenset()
    brought_over: BroughtOver | None = None

    @classmethod
    def of(
        cls, array: TokenArray, annotations: Sequence[str | Path], scheme: ClassScheme
    ) -> LabelledSequences:
        """Labels the sequences of an array.

        Raises:
            UserError: an annotation cannot be read, names a sequence that is not there, or goes beyond one.
        """
        if array.tokenizer_name != "nucleotide":
            raise UserError(f"{array.sources[0].path}: not FASTA of nucleotides: expected a genome")
        labels = np.zeros(len(array), dtype=np.uint8)
        by_name = record_views(array, labels)
        genes: list[Gene] = []
        features: list[Feature] = []
        other_types: set[str] = set()
        for file in annotations:
            found, kept = read_genes(file), []
            for feature in read_features(file) if scheme.features else ():
                if feature.type in scheme.feature_types:
                    kept.append(feature)
                else:
                    other_types.add(feature.type)
            intervals = [*(gene.interval for gene in found), *(feature.interval for feature in kept)]
            names = {interval.sequence for interval in intervals}
            check_names(names, file, by_name, array.sources[0].path)
            genes += found
            features += kept
        try:
            paint_labels(scheme, genes, by_name, features)
        except ValueError as error:
            raise UserError(f"{', '.join(map(str, annotations))}: {error}") from error
        return cls(array, labels, genes, tuple(map(Path, annotations)), features, frozenset(other_types))

    def relatives(self, scheme: ClassScheme) -> Relatives:
        """All of them as relatives of others."""
        return Relatives.of(map(self._record, self.array.records), scheme)

    def with_relatives(self, relatives: Relatives) -> LabelledSequences:
        """The same with what the relatives say of them."""
        sequences = (self.array.window(one.start, one.length) for one in self.array.records)
        with self._asking_relatives() as advance:
            found = list(relatives.bring_over(sequences, advance))
        return replace(self, brought_over=BroughtOver.joined(found))

    def as_relatives_of_each_other(self, genomes: Sequence[int], scheme: ClassScheme) -> LabelledSequences:
        """The same with what the other genomes say of each.

        Args:
            genomes: how many records each genome has, in their order.
            scheme: the classes of the labels.
        """
        records, found = list(self.array.records), list[BroughtOver]()
        ends = np.cumsum(genomes)
        with self._asking_relatives() as advance:
            for start, end in zip(ends - genomes, ends, strict=True):
                others = Relatives.of(map(self._record, records[:start] + records[end:]), scheme)
                mine = (self.array.window(one.start, one.length) for one in records[start:end])
                found += others.bring_over(mine, advance)
        return replace(self, brought_over=BroughtOver.joined(found))

    def _asking_relatives(self) -> AbstractContextManager[Callable[[int], None]]:
        return progress_bar("asking relatives", len(READINGS) * len(self.array))

    def _record(self, record: Record) -> tuple[Labels, Labels]:
        """Tokens and labels of a record, pseudogenes hidden: their like may well be a gene."""
        tokens = np.array(self.array.window(record.start, record.length))
        for gene in self.genes:
            if gene.type == "pseudogene" and gene.interval.sequence == record.name:
                tokens[gene.interval.start : gene.interval.end] = _N
        return tokens, self.labels[record.start : record.start + record.length]

    def letters(self, interval: Interval) -> str:
        """The letters of an interval, in upper case."""
        start = next(r.start for r in self.array.records if r.name == interval.sequence)
        tokens = self.array.tokens[start + interval.start : start + interval.end]
        letters = tokens.tobytes().translate(LETTER_OF_TOKEN).decode()
        return reverse_complement(letters) if interval.strand == "-" else letters

    def class_shares(self, scheme: ClassScheme) -> tuple[float, ...]:
        """How common each class of the scheme that they are labelled by is; strands and frames are alike."""
        counts = 1.0 + np.bincount(self.labels, minlength=len(scheme.names))
        counts += counts[scheme.other_strand]
        for numbers in scheme.coarse.values():
            counts[list(numbers)] = counts[list(numbers)].mean()
        return tuple((counts / counts.sum()).tolist())

    def coding_model(self) -> CodingModel:
        """The codon statistics of the sequences."""
        classes = label_bases(
            ClassScheme(kinds=("CDS",)), self.genes, {r.name: r.length for r in self.array.records}
        )
        return CodingModel.of(
            (
                base_codes(self.array.window(r.start, r.length).tobytes().translate(LETTER_OF_TOKEN)),
                classes[r.name],
            )
            for r in self.array.records
        )

    def signal_model(self, grammar: Grammar) -> SignalModel:
        """What surrounds the start codons and splice sites of all transcripts that code."""
        return SignalModel.of((codes, places) for _, _, codes, places in self._sites(grammar))

    def hint_model(self, grammar: Grammar, scheme: ClassScheme) -> HintModel:
        """What relatives, who have been asked, say of the ends of genes and coding exons."""
        everything = self.brought_over
        assert everything is not None

        def strands() -> Iterator[tuple[BroughtOver, dict[Site, tuple[Places, Places]]]]:
            for record, is_reverse, _, places in self._sites(grammar, between_coding=True):
                said = everything[record.start : record.start + record.length]
                yield said.reverse_complement(scheme) if is_reverse else said, places

        return HintModel.of(strands(), scheme)

    def _sites(
        self, grammar: Grammar, *, between_coding: bool = False
    ) -> Iterator[tuple[Record, bool, Codes, dict[Site, tuple[Places, Places]]]]:
        """Yields both strands of each record, whether it is "-", its base codes and its sites."""
        coding: dict[tuple[str, bool], list[Transcript]] = defaultdict(list)
        for gene in self.genes:
            for t in gene.transcripts:
                if t.cds and gene.type != "pseudogene":
                    coding[t.interval.sequence, t.strand == "-"].append(t)
        for record in self.array.records:
            tokens = self.array.window(record.start, record.length)
            codes = base_codes(tokens.tobytes().translate(LETTER_OF_TOKEN))
            for is_reverse in (False, True):
                bases = other_strand(codes) if is_reverse else codes
                transcripts = coding[record.name, is_reverse]
                places = sites(bases, transcripts, is_reverse, grammar, between_coding=between_coding)
                yield record, is_reverse, bases, places


def record_views(array: TokenArray, values: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The part of an array ``[tokens]`` that belongs to each record, by name; to be changed in place."""
    return {record.name: values[record.start : record.start + record.length] for record in array.records}


@dataclass(frozen=True)
class AnnotationData(RunData):
    """The data of a run, with labels.

    Attributes:
        train: what it is trained on.
        held_out: what it is evaluated on, by name.
        labelled: the same with labels, "train" and the names of the held-out sets.
        relatives: what is brought over from, for a model that reads it.
    """

    labelled: dict[str, LabelledSequences]
    relatives: Relatives | None = None

    @classmethod
    def of(cls, recipe: AnnotationRecipe) -> AnnotationData:
        """Opens the sequences and annotations that a recipe names.

        Raises:
            UserError: for whatever is wrong with a file, and training data without a single gene.
        """
        data = RunData.open(recipe)
        arrays = {"train": (data.train, recipe.annotation.train)} | {
            f"eval.{name}": (array, recipe.annotation.eval[name]) for name, array in data.held_out.items()
        }
        labelled = {
            name: LabelledSequences.of(array, files, recipe.scheme) for name, (array, files) in arrays.items()
        }
        _check_features(recipe, labelled["train"])
        if not labelled["train"].labels.any():
            raise recipe.error("annotation.train", "no base of the sequences has a class but intergenic")
        if not recipe.annotation.relatives:
            return cls(data.train, data.held_out, labelled)
        of = recipe.data
        genomes = [len(open_corpus([f], of.format, of.lower_case, of.cache_dir).records) for f in of.train]
        relatives = labelled["train"].relatives(recipe.scheme)
        labelled = {
            name: one.as_relatives_of_each_other(genomes, recipe.scheme)
            if name == "train"
            else one.with_relatives(relatives)
            for name, one in labelled.items()
        }
        return cls(data.train, data.held_out, labelled, relatives)

    def sources(self) -> dict[str, Any]:
        """What the data were, annotations included, for `data.json`."""
        sources = super().sources()
        for name, labelled in self.labelled.items():
            sources[name]["files"] += [file_facts(path) for path in labelled.files]
        return sources


def _check_features(recipe: AnnotationRecipe, train: LabelledSequences) -> None:
    """Refuses types of features that occur nowhere, most often for a misspelt name."""
    present = {feature.type for feature in train.features}
    for name, types in recipe.annotation.features.items():
        for kind in types:
            if kind not in present:
                files, known = ", ".join(map(str, train.files)), sorted(present | train.other_types)
                near = difflib.get_close_matches(kind, known, n=3, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(known)}"
                raise recipe.error(f"annotation.features.{name}", f"no {kind!r} in {files}; {hint}")
