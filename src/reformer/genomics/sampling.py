"""Sequences drawn from a causal model: the work of `reformer dna generate`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reformer.errors import UserError
from reformer.genomics.coordinates import Interval
from reformer.genomics.genome import Genome
from reformer.training.atomic import atomic_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from reformer.generation.continuation import Sampling

_LINE = 80


@dataclass(frozen=True)
class Sequence:
    """A FASTA record: the first word of its header, the rest of it, and its letters."""

    name: str
    description: str
    letters: str


def read_prompts(path: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """Yields name and letters of the records of a FASTA file."""
    with Genome(path) as genome:
        for name, length in genome.lengths.items():
            yield name, genome.letters(Interval(name, 0, length))


def generate_sequences(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Iterable[tuple[str, str]],
    sampling: Sampling,
    number: int,
    on_base: Callable[[], None] = lambda: None,
) -> Iterator[Sequence]:
    """Draws sequences of A, C, G and T; each begins with its prompt.

    Args:
        model: a `ReformerForCausalLM` in evaluation mode.
        tokenizer: the model's, of nucleotides.
        prompts: name and letters of each; an empty prompt stands for nothing: then the first base is drawn
            from A, C, G and T alike, since a model says nothing about a base that none comes before.
        sampling: how bases are drawn, and how many after the prompt. The n-th sequence of all, from 0, has
            the seed of the sampling plus n.
        number: sequences for each prompt.
        on_base: called after every base.

    Raises:
        UserError: a prompt has letters that are no nucleotides.
    """
    from reformer.generation.continuation import continue_text

    never = [token for token in ("N", "n") if token in tokenizer.get_vocab()]
    count = 0
    for name, prompt in prompts:
        for copy in range(1, number + 1):
            own = replace(sampling, seed=sampling.seed + count)
            count += 1
            start, rest = prompt, own.max_new_tokens
            if not prompt:
                start, rest = random.Random(own.seed).choice("ACGT"), own.max_new_tokens - 1
                on_base()
            letters = start
            if rest:
                own = replace(own, max_new_tokens=rest)
                try:
                    letters += continue_text(model, tokenizer, start, own, on_token=on_base, never=never)
                except UserError as error:
                    raise UserError(f"{name}: {error}") from error
            yield Sequence(f"{name}_{copy}", f"prompt={len(prompt)} seed={own.seed}", letters)


def write_fasta(path: Path, sequences: Iterable[Sequence]) -> int:
    """Writes records as they come, in lines of 80 letters; returns how many.

    The file is either whole or not there.
    """
    count = 0
    with atomic_file(path) as partial, open(partial, "w", encoding="utf-8") as file:
        for sequence in sequences:
            file.write(f">{sequence.name} {sequence.description}\n")
            for start in range(0, len(sequence.letters), _LINE):
                file.write(sequence.letters[start : start + _LINE] + "\n")
            count += 1
    return count
