"""From a model's folder to its service: what files it has say what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reformer.data.sources import sha256_of
from reformer.genomics.annotation import annotator
from reformer.genomics.classification import classifier
from reformer.genomics.tracks import predictor
from reformer.serving.language import serve_language
from reformer.serving.predictions import serve_genes, serve_labels, serve_structure, serve_tracks
from reformer.serving.service import Service
from reformer.training.memory import return_large_memory
from reformer.training.model_folder import WEIGHTS_FILE, find_model_folder, read_model_config

_BY_FILE = {
    annotator.SETTINGS_FILE: serve_genes,
    classifier.SETTINGS_FILE: serve_labels,
    predictor.SETTINGS_FILE: serve_tracks,
}


def load_service(path: Path, device: str, max_length: int) -> Service:
    """Loads what the folder has, for all that it can do.

    Args:
        path: a model, checkpoint or run folder: a causal or masked language model, or one of `dna annotate`,
            `dna classify`, `dna tracks` or `dna structure`.
        device: "auto", "cpu" or "cuda".
        max_length: tokens of the longest sequence that is taken, unless the model has fewer positions.

    Raises:
        UserError: for a missing, damaged or foreign file, and a device that is not there.
    """
    folder = find_model_folder(path)
    labels_tokens = read_model_config(folder).get("architectures") == ["ReformerForTokenClassification"]
    serve = serve_structure if labels_tokens else serve_language
    for file, one in _BY_FILE.items():
        if (folder / file).exists():
            serve = one
    service = serve(folder, device, max_length)
    return_large_memory()  # a long sequence must not leave a server that holds its memory for ever
    weights = sha256_of(folder / WEIGHTS_FILE)
    return replace(service, about={"model": str(path), "weights_sha256": weights, **service.about})
