"""Continuing a prompt with a trained causal model, by sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from reformer.models.auto import ReformerForCausalLM


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        max_new_tokens: how many.
        temperature: divides the logits, above 0.
        top_k: draw among the k likeliest tokens only; None for all.
        top_p: draw among the fewest tokens that have this probability together, 0 to 1; None for all.
        seed: 0 to 2**63 - 1; determines the draws.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises UserError for a value out of range."""
        if self.max_new_tokens < 1:
            raise UserError(f"max-new-tokens is {self.max_new_tokens}: expected at least 1")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(
                f"temperature is {self.temperature}: expected a number above 0; "
                "for the likeliest token every time, use top-k 1"
            )
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"top-k is {self.top_k}: expected at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UserError(f"top-p is {self.top_p}: expected a number above 0 and up to 1")
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed is {self.seed}: expected 0 to 2**63 - 1")


def read_prompt(prompt: str | None, prompt_file: Path | None, *, is_optional: bool = False) -> str | None:
    """The prompt, from one of two sources.

    Args:
        prompt: the text itself.
        prompt_file: a file that holds it.
        is_optional: whether there may be none, and None is returned then.

    Raises:
        UserError: when both or none are given, or the prompt is empty or its file is not UTF-8.
    """
    if prompt is None and prompt_file is None and is_optional:
        return None
    if (prompt is None) == (prompt_file is None):
        raise UserError("expected one of --prompt and --prompt-file")
    name = "--prompt" if prompt_file is None else str(prompt_file)
    if prompt_file is not None:
        try:
            prompt = prompt_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{name}: not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}"
            ) from error
    if not prompt:
        raise UserError(f"{name}: the prompt is empty; expected at least one token")
    return prompt


def continue_text(
    model: ReformerForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | None,
    sampling: Sampling,
    *,
    cache_file: Path | None = None,
    save_cache_file: Path | None = None,
    on_token: Callable[[], None] | None = None,
    never: Sequence[str] = (),
) -> str:
    """Samples a continuation without special tokens, those of `never`, or bytes that are not UTF-8.

    The draws come from a generator of their own: torch's global random state is left as it was.

    Args:
        model: the model, in eval mode.
        tokenizer: the model's.
        prompt: text; for a nucleotide model letters with white space between, or one FASTA record. None
            where a cache file is all that there is to continue.
        sampling: how tokens are drawn.
        cache_file: what the model has read before the prompt, from an earlier `save_cache_file`.
        save_cache_file: gets what the model has read: the cache file and the prompt.
        on_token: called after every token.
        never: tokens that are not to be drawn.

    Returns:
        The continuation alone.

    Raises:
        UserError: for a prompt that has no tokens, or letters outside the model's alphabet, and for a cache
            file that is damaged or of another model.
    """
    import torch

    from reformer.data.tokenizers import ByteTokenizer
    from reformer.generation.cache_file import load_cache, save_cache
    from reformer.generation.loop import decode
    from reformer.generation.utf8 import Utf8Text
    from reformer.layers.randomness import generator
    from reformer.models.cache import ReformerCache

    ids = _token_ids(tokenizer, prompt).to(model.device)
    cache = ReformerCache(model.reformer.encoder)
    if cache_file is not None:
        cache, last_ids = load_cache(cache_file, model)
        ids = torch.cat([last_ids[:, None], ids], dim=1)
    with torch.no_grad():
        if save_cache_file is not None:
            if ids.shape[1] > 1:
                model(ids[:, :-1], past_key_values=cache, logits_to_keep=1)
                ids = ids[:, -1:]
            save_cache(save_cache_file, model, cache, ids[:, -1])
        processors: list[Any] = []
        if isinstance(tokenizer, ByteTokenizer):
            processors.append(Utf8Text(tokenizer, ids.shape[1] + sampling.max_new_tokens))
        generate: Any = model.generate  # type: ignore[misc]
        output = generate(
            ids,
            attention_mask=ids.new_ones(1, cache.columns + ids.shape[1]),
            past_key_values=cache,
            max_new_tokens=sampling.max_new_tokens,
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k or 0,
            top_p=1.0 if sampling.top_p is None else sampling.top_p,
            suppress_tokens=[*tokenizer.all_special_ids, *map(tokenizer.convert_tokens_to_ids, never)],
            logits_processor=processors,
            custom_generate=decode,
            generators=[generator(sampling.seed)],
            token_stream=_Counter(on_token) if on_token else None,
        )
    return str(tokenizer.decode(output[0, ids.shape[1] :]))


def _token_ids(tokenizer: PreTrainedTokenizerBase, prompt: str | None) -> torch.Tensor:
    """int64 `[1, T]`."""
    import torch

    from reformer.data.tokenizers import NucleotideTokenizer

    if prompt is None:
        return torch.empty(1, 0, dtype=torch.int64)
    if isinstance(tokenizer, NucleotideTokenizer):
        prompt = _nucleotides(prompt)
    try:
        ids: torch.Tensor = tokenizer(prompt, return_tensors="pt")["input_ids"]
    except UserError as error:
        raise UserError(f"prompt, {error}") from error
    return ids


def _nucleotides(text: str) -> str:
    """The letters of a prompt, without white space and without the header line of a FASTA record."""
    lines = text.split("\n")
    headers = [line for line in lines if line.startswith(">")]
    if len(headers) > 1:
        raise UserError(f"prompt: {len(headers)} FASTA records; expected one")
    letters = "".join("".join(line.split()) for line in lines if not line.startswith(">"))
    if not letters:
        raise UserError("prompt: no letters; expected at least one of A C G T")
    return letters


class _Counter:
    """A token stream that only counts."""

    def __init__(self, on_token: Callable[[], None]) -> None:
        self._on_token = on_token

    def put(self, value: torch.Tensor) -> None:
        """Takes one token at a time."""
        self._on_token()

    def end(self) -> None:
        """Takes the end of the text."""
