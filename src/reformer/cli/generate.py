"""`reformer generate`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError


def generate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    prompt: Annotated[str | None, typer.Option(help="What to continue.", show_default=False)] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(
            help="A file with what to continue (FASTA or bare letters for DNA).", show_default=False
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="How many tokens to add.")] = 200,
    temperature: Annotated[
        float, typer.Option(help="Below 1 for likelier tokens, above 1 for more surprise.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Choose among the k likeliest.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose among the likeliest with this total probability.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write to this file, not to the output.", show_default=False)
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(help="Go on from what --save-cache wrote; a prompt may follow.", show_default=False),
    ] = None,
    save_cache: Annotated[
        Path | None,
        typer.Option(help="Write what the model has read to this file.", show_default=False),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Continue a prompt, and print the continuation alone."""
    from reformer.generation.continuation import Sampling, continue_text, read_prompt
    from reformer.training.atomic import check_writable, write_text_atomically
    from reformer.training.model_folder import load_model
    from reformer.training.progress import progress_bar

    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, seed)
    text = read_prompt(prompt, prompt_file, is_optional=cache is not None)
    for file in (out, save_cache):
        if file is not None:
            check_writable(file)
    if cache is not None and not cache.is_file():
        raise UserError(f"{cache}: expected a file that --save-cache wrote")
    loaded, tokenizer = load_model(model, device)
    with progress_bar("generating", max_new_tokens) as advance:
        continuation = continue_text(
            loaded,
            tokenizer,
            text,
            sampling,
            cache_file=cache,
            save_cache_file=save_cache,
            on_token=lambda: advance(1),
        )
    if out is None:
        print(continuation)
    else:
        write_text_atomically(out, continuation + "\n")
