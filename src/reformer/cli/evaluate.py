"""`reformer evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reformer.training.evaluation import Bits, BitsReport


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, checkpoint or run folder.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="FASTA, GenBank or text files.")],
    length: Annotated[
        int | None, typer.Option(help="Tokens per window; whole records by default.", show_default=False)
    ] = None,
    context: Annotated[
        list[Path] | None,
        typer.Option(
            help="File that a causal model reads before each record, such as a relative's genome; may be "
            "repeated.",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with the records too.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Print how many bits per token (and per base) a model needs for data, overall and by position.

    The first token of every window is given. With --context, every record is read whole behind all that these
    files hold, which is not counted. A masked model fills in 15 % of the tokens, which alone count.
    Bits per base counts only A, C, G and T, not N.
    """
    from reformer.training.corpus import open_corpus_for
    from reformer.training.evaluation import evaluate_bits, num_evaluated_tokens
    from reformer.training.model_folder import load_language_model
    from reformer.training.progress import progress_bar

    loaded, tokenizer = load_language_model(model, device)
    array = open_corpus_for(tokenizer, files, f"the model in {model}")
    before = open_corpus_for(tokenizer, context, f"the model in {model}") if context else None
    with progress_bar("evaluating", num_evaluated_tokens(array)) as advance:
        report = evaluate_bits(loaded, array, length, context=before, on_progress=advance)
    if json:
        import json as json_module

        print(json_module.dumps(report.to_json(), indent=1))
    else:
        _print_table(report)


def _print_table(report: BitsReport) -> None:
    from rich.console import Console
    from rich.table import Table

    has_bases = report.total.bits_per_base is not None
    table = Table(
        "tokens before", "predicted tokens", "bits/token", *(["bases", "bits/base"] if has_bases else [])
    )
    for column in table.columns:
        column.justify = "right"

    def add_row(label: str, bits: Bits) -> None:
        base = "-" if bits.bits_per_base is None else f"{bits.bits_per_base:.4f}"
        row = [label, f"{bits.num_tokens:,}", f"{bits.bits_per_token:.4f}"]
        table.add_row(*row, *([f"{bits.num_bases:,}", base] if has_bases else []))

    for bound, bits in report.by_position.items():
        add_row(f"{bound // 2:,} to {bound - 1:,}" if bound > 2 else "1", bits)
    table.add_section()
    add_row("all", report.total)
    Console().print(table)
