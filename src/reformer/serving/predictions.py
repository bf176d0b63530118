"""What models of genes, labels, tracks and the structure of proteins answer."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from reformer.data.tokenizers import NucleotideTokenizer, ProteinTokenizer
from reformer.genomics.model_inputs import annotation_inputs, language_inputs
from reformer.serving.embedding import embedding_task
from reformer.serving.requests import BasePrediction, GenePrediction, LabelPrediction, Sequences
from reformer.serving.service import Answer, Content, Service, Task
from reformer.serving.texts import Texts


def serve_genes(folder: Path, device: str, max_length: int) -> Service:
    """Loads a model of `dna annotate train`."""
    from reformer.genomics.annotation.annotate import AnnotatedRecord, annotate_sequence, called_genes
    from reformer.genomics.annotation.annotator import Annotator
    from reformer.genomics.windows import Windows

    annotator = Annotator.load(folder, device)
    settings, classes = annotator.settings, annotator.settings.scheme.names
    texts = Texts(NucleotideTokenizer(), annotator.model, max_length)
    in_one_pass = Windows(texts.max_length, overlap=0)

    def predict(request: GenePrediction) -> Answer:
        rows = texts.all_ids(request)
        results = []
        for row in rows:
            said: list[np.ndarray] = []
            found = annotate_sequence(
                *(annotator, "sequence", row, in_one_pass),
                both_strands=request.both_strands,
                open_ends=request.open_ends,
                take=partial(_keep, said) if request.tracks else None,
            )
            result = {"length": len(row), "genes": genes_of(found), "others": runs_of(found)}
            if request.tracks:
                result["tracks"] = dict(zip(classes, np.concatenate(said).T.tolist(), strict=True))
            results.append(result)
        return Answer({"results": results}, sum(map(len, rows)))

    def genes_of(found: AnnotatedRecord) -> list[Content]:
        return [
            {
                "name": gene.name,
                "strand": call.strand,
                "start": gene.interval.start,
                "end": gene.interval.end,
                "exons": [[exon.start, exon.end] for exon in gene.transcripts[0].exons],
                "cds": [[part.start, part.end, part.phase] for part in gene.transcripts[0].cds],
                "partial": list(gene.partial),
                "gain_nats": call.score,
            }
            for gene, call in zip(called_genes([found]), found.genes, strict=True)
        ]

    def runs_of(found: AnnotatedRecord) -> list[Content]:
        names = ("kind", "strand", "start", "end", "probability")
        return [{name: getattr(run, name) for name in names} for run in found.runs]

    tasks: dict[str, Task[Any]] = {
        "predict": Task("genes and features; places count from 0, ends not included", GenePrediction, predict)
    }
    tasks["embed"] = embedding_task(annotator.model, texts, annotation_inputs(settings), has_strands=True)
    return Service("genes", annotator.model, tasks, texts.max_length, {"classes": list(classes)})


def serve_labels(folder: Path, device: str, max_length: int) -> Service:
    """Loads a model of `dna classify train`."""
    from reformer.genomics.classification.classifier import Classifier

    classifier = Classifier.load(folder, device)
    settings = classifier.settings
    texts = Texts(NucleotideTokenizer(), classifier.model, max_length)

    def predict(request: LabelPrediction) -> Answer:
        rows = texts.all_ids(request)
        strands = [False, True] if request.both_strands and not classifier.is_rc_equivariant else [False]
        logits = [classifier.logits_of(rows, other_strand=strand) for strand in strands]
        probabilities = np.mean([settings.probabilities(one) for one in logits], axis=0)
        labelled = [dict(zip(settings.classes, row.tolist(), strict=True)) for row in probabilities]
        results = [{"probabilities": one} for one in labelled]
        return Answer({"results": results}, sum(map(len, rows)))

    tasks: dict[str, Task[Any]] = {
        "predict": Task("calibrated probabilities of the labels", LabelPrediction, predict),
        "embed": embedding_task(classifier.model, texts, classifier.inputs, has_strands=True),
    }
    about = {"classes": list(settings.classes), "problem_type": settings.problem_type}
    return Service("labels of sequences", classifier.model, tasks, texts.max_length, about)


def serve_tracks(folder: Path, device: str, max_length: int) -> Service:
    """Loads a model of `dna tracks train`."""
    from reformer.genomics.tracks.predictor import TrackPredictor

    predictor = TrackPredictor.load(folder, device)
    names = predictor.settings.names
    tokenizer = NucleotideTokenizer(predictor.settings.lower_case)
    texts = Texts(tokenizer, predictor.model, max_length)

    def predict(request: BasePrediction) -> Answer:
        rows = texts.all_ids(request)
        results = []
        for row in rows:
            values = predictor.predict_known(row, both_strands=request.both_strands)
            results.append({"tracks": dict(zip(names, map(_with_nulls, values.T), strict=True))})
        return Answer({"results": results}, sum(map(len, rows)))

    tasks: dict[str, Task[Any]] = {
        "predict": Task("the value of each track at each base, null where it is N", BasePrediction, predict),
        "embed": embedding_task(predictor.model, texts, language_inputs, has_strands=True),
    }
    return Service("tracks", predictor.model, tasks, texts.max_length, {"tracks": list(names)})


def serve_structure(folder: Path, device: str, max_length: int) -> Service:
    """Loads a model of `dna structure train`."""
    from reformer.genomics.structure.predictor import StructurePredictor

    predictor = StructurePredictor.load(folder, device)
    texts = Texts(ProteinTokenizer(), predictor.model, max_length)

    def predict(request: Sequences) -> Answer:
        rows = [row.astype(np.uint8) for row in texts.all_ids(request)]
        results = [
            {
                "structure": "".join(predictor.letters[best] for best in found.argmax(axis=1)),
                "probabilities": dict(zip(predictor.letters, found.T.tolist(), strict=True)),
            }
            for found in predictor.probabilities(rows)
        ]
        return Answer({"results": results}, sum(map(len, rows)))

    tasks: dict[str, Task[Any]] = {
        "predict": Task("the secondary structure of each residue", Sequences, predict),
        "embed": embedding_task(predictor.model, texts, language_inputs, has_strands=False),
    }
    about = {"classes": list(predictor.letters)}
    return Service("structure of proteins", predictor.model, tasks, texts.max_length, about)


def _keep(said: list[np.ndarray], start: int, probabilities: np.ndarray) -> None:
    said.append(probabilities)


def _with_nulls(values: np.ndarray) -> list[float | None]:
    """NaN, which JSON has not, as None."""
    return [None if math.isnan(value) else value for value in values.tolist()]
