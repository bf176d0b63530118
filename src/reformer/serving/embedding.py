"""Vectors of sequences, by a model of any kind."""

from __future__ import annotations

from typing import Any

import numpy as np

from reformer.data.nucleotides import reverse_complement
from reformer.genomics.embedding import embed_in_one_pass
from reformer.genomics.model_inputs import ModelInputs
from reformer.serving.requests import DnaEmbedding, Embedding
from reformer.serving.service import Answer, Task
from reformer.serving.texts import Texts, TokenIds
from reformer.training.batches import by_length

_TOKENS_PER_BATCH = 1 << 15


def embedding_task(model: Any, texts: Texts, inputs: ModelInputs, *, has_strands: bool) -> Task[Any]:
    """The task of a model that takes `inputs`; DNA has another strand."""

    def embed(request: Embedding) -> Answer:
        rows = texts.all_ids(request)
        vectors = vectors_of(rows, request.pooling)
        if isinstance(request, DnaEmbedding) and request.both_strands:
            vectors += vectors_of([reverse_complement(row) for row in rows], request.pooling)
            vectors *= np.float32(0.5)
        return Answer({"results": [{"embedding": one.tolist()} for one in vectors]}, sum(map(len, rows)))

    def vectors_of(rows: list[TokenIds], pooling: Any) -> np.ndarray:
        found: dict[int, Any] = {}
        for batch in by_length([len(row) for row in rows], _TOKENS_PER_BATCH):
            vectors = embed_in_one_pass(model, [rows[number] for number in batch], pooling, inputs)
            found |= dict(zip(batch, vectors, strict=True))
        return np.stack([found[number] for number in range(len(rows))])

    does = f"vectors of {2 * model.config.hidden_size:,} numbers"
    return Task(does, DnaEmbedding if has_strands else Embedding, embed)
