"""Sampling in which each row of a batch draws numbers of its own.

`generate()` of transformers draws the tokens of all rows from torch's global generator, so that what a row
gets depends on its neighbours. Here a row has a generator of its own, seeded by one number from the global
one and by what the row reads: under one `torch.manual_seed`, a prompt has the same continuation alone and
in any batch. Rows that read the same, as `num_return_sequences` makes them, are told apart by counting them.
"""

import copy
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from reformer.layers.randomness import derive, draw_seed, generator


class RowSampling(GenerationMixin):
    """`generate()` whose rows draw independently of each other; beams are searched as ever."""

    def _sample(  # type: ignore[override]
        self,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> Any:
        sample: Any = super()._sample  # type: ignore[misc]
        if not generation_config.do_sample:
            return sample(input_ids, logits_processor, stopping_criteria, generation_config, **kwargs)
        read = kwargs.get("source_ids", input_ids)
        keeps_scores = generation_config.return_dict_in_generate and generation_config.output_scores
        drawing = _Drawing(row_generators(read, kwargs.get("attention_mask")), bool(keeps_scores))
        processors = LogitsProcessorList([*logits_processor, drawing])
        greedy = copy.copy(generation_config)
        greedy.do_sample = False  # what was drawn is the likeliest
        output = sample(input_ids, processors, stopping_criteria, greedy, **kwargs)
        if keeps_scores:
            output.scores = tuple(drawing.scores)
        return output


class _Drawing(LogitsProcessor):
    """The last processor: draws the next tokens and leaves nothing else to choose; may keep the scores."""

    def __init__(self, generators: Sequence[torch.Generator], keeps_scores: bool):
        self.generators, self.keeps_scores = generators, keeps_scores
        self.scores: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.keeps_scores:
            self.scores.append(scores)
        drawn = draw(scores, self.generators)[:, None]
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def row_generators(ids: Tensor, mask: Tensor | None) -> list[torch.Generator]:
    """A generator for each row, seeded by one draw from torch's global generator and by the row's tokens.

    Args:
        ids: int64 `[B, T]`.
        mask: `[B, T]` or, where earlier tokens are not among the ids, wider; 0 at padding. None for ones.
    """
    seed, seen = draw_seed(), Counter[bytes]()
    real = torch.ones_like(ids) if mask is None else mask[:, mask.shape[1] - ids.shape[1] :]
    generators = []
    for row, is_real in zip(ids.cpu(), real.bool().cpu(), strict=True):
        tokens = blake2b(row[is_real].numpy().tobytes(), digest_size=7).digest()
        generators.append(generator(derive(seed, int.from_bytes(tokens, "big"), seen[tokens])))
        seen[tokens] += 1
    return generators


def draw(scores: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """One token of each row: int64 `[B]`.

    Args:
        scores: `[B, vocab]`, logits.
        generators: one a row, on the CPU; each gives one number.

    Raises:
        ValueError: a row has no token that can be drawn, or NaN.
    """
    uniform = torch.stack([torch.rand((), generator=g, dtype=torch.float64) for g in generators])
    below = scores.double().softmax(-1).cumsum(-1)
    drawn = torch.searchsorted(below, uniform.to(scores.device)[:, None] * below[:, -1:], right=True)
    if bool((drawn == scores.shape[1]).any()):
        raise ValueError("no token can be drawn: the scores of a row are NaN, or all are -inf")
    return drawn.squeeze(1)
