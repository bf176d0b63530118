"""The recipe of `reformer dna pretrain`: a language model over whole chromosomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from reformer.training.recipe import Recipe


@dataclass(frozen=True)
class PretrainingData:
    """What a model is trained on, and what is kept back.

    Attributes:
        genomes: FASTA or GenBank files, all sequences of which are trained on but for what is held out.
        held_out_regions: a BED file of regions of these.
        held_out_records: names of sequences of these.
        species: other such files to evaluate on, by name.
        lower_case: "fold" or "keep", see `reformer.data.nucleotides`.
    """

    genomes: Sequence[Path]
    held_out_regions: Path | None = None
    held_out_records: Sequence[str] = ()
    species: Mapping[str, Path] = field(default_factory=dict)
    lower_case: Literal["fold", "keep"] = "fold"


_MASKED = {
    "data.mutated_copies": 0.0,
    "model.attn_layers": ["local", "lsh", "local", "lsh"],
    "model.lsh_induction_length": 0,
    "model.num_hashes": 1,
    "model.local_num_chunks_after": 1,
}
"""What a masked model, which looks both ways, does otherwise than `pretrain.yaml` says."""


def pretraining_recipe(
    data: PretrainingData,
    objective: Literal["causal", "masked"],
    output_dir: Path,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    start_from: Path | None = None,
    lora_rank: int | None = None,
) -> Recipe:
    """The recipe that `reformer train` runs.

    Args:
        data: what to train on.
        objective: what the model learns to predict.
        output_dir: the run folder.
        recipe: a recipe whose model and training sections are used instead of `pretrain.yaml`'s.
        overrides: `key=value` strings over all of it.
        start_from: the folder of a trained model, checkpoint or run to begin with the weights of.
        lora_rank: that of the adapters which are trained then; None to train all weights.

    Raises:
        UserError: one line, for whatever is wrong with the recipe.
    """
    from reformer.genomics.recipes import load_over_packaged
    from reformer.training.recipe import Recipe

    values: dict[str, Any] = {
        "data.train": [str(path) for path in data.genomes],
        "data.held_out_records": list(data.held_out_records),
        "data.lower_case": data.lower_case,
        "training.objective": objective,
        "output_dir": str(output_dir),
    }
    if data.species:
        values["data.eval"] = {name: [str(path)] for name, path in data.species.items()}
    if data.held_out_regions is not None:
        values["data.held_out_regions"] = str(data.held_out_regions)
    if start_from is not None:
        values["training.start_from"] = str(start_from)
        if recipe is None:
            values["data.mutated_copies"] = 0.0  # nothing is known of how the model reads
    elif recipe is None and objective == "masked":
        values |= _MASKED
    if lora_rank is not None:
        values["training.lora_rank"] = lora_rank
    given = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return load_over_packaged(Recipe, recipe, "pretrain.yaml", [*given, *overrides])
