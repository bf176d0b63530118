"""What a language model answers: likelihoods, continuations, vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reformer.data.tokenizers import NucleotideTokenizer
from reformer.errors import UserError
from reformer.genomics.model_inputs import language_inputs
from reformer.serving.embedding import embedding_task
from reformer.serving.requests import DnaGeneration, Generation, Sequences
from reformer.serving.service import Answer, Service, Task
from reformer.serving.texts import Texts


def serve_language(folder: Path, device: str, max_length: int) -> Service:
    """Loads a causal or masked model of any tokenizer."""
    from reformer.training.model_folder import load_language_model

    model, tokenizer = load_language_model(folder, device)
    texts = Texts(tokenizer, model, max_length)
    is_dna = isinstance(tokenizer, NucleotideTokenizer)
    is_causal = model.config.is_decoder

    def score(request: Sequences) -> Answer:
        from reformer.training.evaluation import evaluate_sequences
        from reformer.training.metrics import NATS_PER_BIT

        rows = texts.all_ids(request)
        results: list[dict[str, Any]] = []
        for number, bits in enumerate(evaluate_sequences(model, tokenizer.get_vocab(), rows)):
            if bits is None:
                raise UserError(f"sequences.{number}: {len(rows[number]):,} tokens: too few to predict one")
            nats = bits.bits_per_token * NATS_PER_BIT
            results.append({"log_likelihood": -nats * bits.num_tokens, "nats_per_token": nats, **vars(bits)})
        return Answer({"results": results}, sum(map(len, rows)))

    def generate(request: Generation) -> Answer:
        from reformer.generation.continuation import Sampling, continue_text
        from reformer.genomics.sampling import generate_sequences

        options = request.model_dump(exclude={"prompt"})
        sampling = Sampling(**options)
        prompt = request.prompt
        num_read = len(texts.ids(prompt, "prompt", sampling.max_new_tokens))
        if is_dna:
            (drawn,) = generate_sequences(model, tokenizer, [("prompt", prompt)], sampling, 1)
            continuation = drawn.letters[len(prompt) :]
        elif num_read:
            continuation = continue_text(model, tokenizer, prompt, sampling)  # type: ignore[arg-type]
        else:
            raise UserError("prompt: empty: expected at least one token")
        return Answer({"continuation": continuation}, num_read + sampling.max_new_tokens)

    tasks: dict[str, Task[Any]] = {"score": Task("log-likelihoods of sequences, in nats", Sequences, score)}
    if is_causal:
        kind: type[Generation] = DnaGeneration if is_dna else Generation
        tasks["generate"] = Task("a continuation of a prompt", kind, generate)
    tasks["embed"] = embedding_task(model, texts, language_inputs, has_strands=is_dna)
    name = type(tokenizer).__name__.removesuffix("Tokenizer").lower()
    what = "causal" if is_causal else "masked"
    return Service(f"{what} language model", model, tasks, texts.max_length, {"tokenizer": name})
