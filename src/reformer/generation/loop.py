"""A decoding loop whose step costs the same at the millionth token as at the first.

That of transformers copies all ids, and the attention mask, at every step: a few milliseconds a token at a
context of a million. This one writes the ids into one tensor. It is a `custom_generate` of `generate()`,
which prepares everything, logits processors and stopping criteria too, as it always does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from reformer.models.sampling import draw, row_generators


class TokenStream(Protocol):
    """Gets the new tokens as they come: a streamer of transformers, but that it does not get the prompt."""

    def put(self, value: Tensor) -> None:
        """Take the next token of each row, int64 `[B]` on the CPU."""

    def end(self) -> None:
        """Take the end of the text."""


@torch.no_grad()
def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    *,
    token_stream: TokenStream | None = None,
    generators: Sequence[torch.Generator] | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """Continue prompts greedily or by sampling: `model.generate(ids, custom_generate=decode, ...)`.

    With the same arguments and random state the result is that of `generate()` without it.

    Args:
        model: a ReformerForCausalLM.
        input_ids: int64 `[B, T]`, padded on the left.
        logits_processor: from `generate`.
        stopping_criteria: from `generate`.
        generation_config: from `generate`.
        token_stream: gets the new tokens; `generate` does not hand on its `streamer`.
        generators: for each row the generator of its draws, on the CPU; by default as in `generate()`, see
            `reformer.models.sampling`.
        model_kwargs: from `generate`: attention_mask, and past_key_values to go on from a cache.

    Returns:
        int64 `[B, T + new tokens]`.

    Raises:
        ValueError: an option needs transformers' own loop.
    """
    config = generation_config
    if config.num_beams > 1 or config.return_dict_in_generate or not config.use_cache:
        raise ValueError("decode is for one beam, a cache and plain ids; leave out custom_generate")
    B, T = input_ids.shape
    stops_at_eos = any(hasattr(criterion, "eos_token_id") for criterion in stopping_criteria)
    padding = config.pad_token_id if config.pad_token_id is not None else config.eos_token_id
    padding = padding[0] if isinstance(padding, list) else padding
    ids = input_ids.new_empty(B, max(T, config.max_length))
    ids[:, :T] = input_ids
    unfinished = torch.ones(B, dtype=torch.bool, device=ids.device)
    if generators is None and config.do_sample:
        generators = row_generators(input_ids, model_kwargs.get("attention_mask"))
    outputs = _read_prompt(model, input_ids, config, model_kwargs)
    length = T
    while True:
        scores = logits_processor(ids[:, :length], outputs.logits[:, -1].float())
        tokens = draw(scores, generators) if config.do_sample else scores.argmax(-1)  # type: ignore[arg-type]
        if stops_at_eos:
            tokens = torch.where(unfinished, tokens, padding)
        ids[:, length] = tokens
        length += 1
        unfinished &= ~stopping_criteria(ids[:, :length], None)
        if token_stream is not None:
            token_stream.put(tokens.cpu())
        if not unfinished.any():
            break
        outputs = model(
            ids[:, length - 1 : length], past_key_values=outputs.past_key_values, logits_to_keep=1
        )
    if token_stream is not None:
        token_stream.end()
    return ids[:, :length]


def _read_prompt(model: Any, input_ids: Tensor, config: Any, model_kwargs: dict[str, Any]) -> Any:
    """The model's outputs for the prompt, of which a cache may hold the beginning."""
    cache, mask, T = (
        model_kwargs.get("past_key_values"),
        model_kwargs.get("attention_mask"),
        input_ids.shape[1],
    )
    # `generate` drops a mask of ones, and notes how long it was.
    whole = mask.shape[1] if mask is not None else getattr(config, "_mask_length", T)
    given = T - cache.get_seq_length() if cache is not None and whole == T else None
    inputs = model.prepare_inputs_for_generation(
        input_ids, next_sequence_length=given, is_first_iteration=True, **model_kwargs
    )
    return model(**inputs, return_dict=True)
