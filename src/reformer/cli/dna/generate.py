"""`reformer dna generate`."""

from pathlib import Path
from typing import Annotated

import typer

from reformer.errors import UserError


def generate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A causal model, checkpoint or run folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The FASTA file to write.")],
    prompt: Annotated[
        str | None, typer.Option(help="Bases to begin with; none by default.", show_default=False)
    ] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option(help="FASTA or GenBank: begin with each of its sequences.", show_default=False),
    ] = None,
    length: Annotated[int, typer.Option(help="Bases to draw, after the prompt.")] = 1000,
    number: Annotated[int, typer.Option(help="Sequences for each prompt.")] = 1,
    temperature: Annotated[
        float, typer.Option(help="Below 1 for likelier bases, above 1 for more surprise.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option(help="Choose among the k likeliest.", show_default=False)
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Choose among the likeliest with this total probability.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same sequences.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Draw DNA sequences from a causal model, from a prompt or from nothing, to FASTA.

    Only A, C, G and T are drawn. Each sequence begins with its prompt; its header says which seed it has.
    OUT.json says which model and options made them.
    """
    from dataclasses import asdict

    from reformer.generation.continuation import Sampling
    from reformer.genomics.provenance import provenance, provenance_beside
    from reformer.genomics.sampling import generate_sequences, read_prompts, write_fasta
    from reformer.genomics.strands import model_lower_case
    from reformer.training.atomic import check_writable
    from reformer.training.model_folder import load_model
    from reformer.training.progress import progress_bar

    if prompt is not None and prompt_file is not None:
        raise UserError("expected one of --prompt and --prompt-file, or none")
    if length < 1 or number < 1:
        raise UserError(f"--length is {length}, --number is {number}: expected at least 1")
    check_writable(out)
    sampling = Sampling(length, temperature, top_k, top_p, seed)
    prompts = [("sequence", prompt or "")] if prompt_file is None else list(read_prompts(prompt_file))
    loaded, tokenizer = load_model(model, device)
    model_lower_case(tokenizer, model)
    made = provenance(
        "dna generate",
        model,
        device,
        prompt=prompt,
        prompt_file=prompt_file,
        number=number,
        **asdict(sampling),
    )
    bar = progress_bar("generating", length * number * len(prompts))
    with provenance_beside(out, made), bar as advance:
        sequences = generate_sequences(
            loaded, tokenizer, prompts, sampling, number, on_base=lambda: advance(1)
        )
        count = write_fasta(out, sequences)
    print(f"{out}: {count:,} sequences")
