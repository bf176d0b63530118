"""What a training run is: a recipe with sections data, model and training, checked before work starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, create_model, model_validator

from reformer.errors import UserError
from reformer.training.recipe_errors import first_error, short
from reformer.training.recipe_file import RecipeFile, read_recipe_file
from reformer.training.run_folder import RECIPE_FILE

FilePath = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

CHANGEABLE_ON_RESUME = frozenset(
    {
        "output_dir",
        "data.eval",
        "data.cache_dir",
        "training.eval_every",
        "training.eval_length",
        "training.save_every",
        "training.keep_checkpoints",
        "training.device",
    }
)
"""The keys that change no step of the training, so that a run may be resumed with other values of them."""

_NOT_IN_RECIPE = frozenset(
    {"vocab_size", "num_input_features", "pad_token_id", "bos_token_id", "eos_token_id", "is_decoder"}
)
"""Fields of the configuration that the tokenizer and the task determine."""


class Section(BaseModel):
    """A section of a recipe: unknown keys are errors, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DataSection(Section):
    """Where the sequences are.

    Attributes:
        train: files to train on, relative to the folder that the command runs in.
        eval: held-out files, by the name that reports call them.
        format: "fasta" (or GenBank: nucleotides, one token a base) or "text" (one token a byte); "auto" tells
            by content.
        lower_case: what lower-case bases become, "fold" (upper case) or "keep" (tokens of their own).
        reverse_complement: read every second window of nucleotides, by chance, as the other strand has it.
        mutated_copies: the share of windows whose second half is a changed copy of their first, from which
            a causal model learns to look up the like of what it reads, see `training.mutated_copies`; whole
            records (length "full") stay as they are.
        held_out_regions: a BED file of regions of the training files that are left out of the training and
            evaluated on, under the name "held_out".
        held_out_records: names of whole sequences of the training files, likewise.
        cache_dir: where the token arrays are kept between runs; the user's cache folder by default.
    """

    train: Annotated[list[FilePath], Field(min_length=1)]
    eval: dict[str, Annotated[list[FilePath], Field(min_length=1)]] = {}
    format: Literal["auto", "fasta", "text"] = "auto"
    lower_case: Literal["fold", "keep"] = "fold"
    reverse_complement: bool = False
    mutated_copies: Share = 0.0
    held_out_regions: FilePath | None = None
    held_out_records: list[FilePath] = []
    cache_dir: FilePath | None = None


class Stage(Section):
    """A stretch of training at one sequence length.

    Attributes:
        length: tokens per sequence, or "full" for the whole training data as one sequence.
        steps: optimizer steps.
        batch_size: sequences per forward pass and process.
    """

    length: Annotated[int, Field(ge=2)] | Literal["full"]
    steps: Count
    batch_size: Count = 1

    @model_validator(mode="after")
    def _one_whole_record(self) -> Stage:
        if self.length == "full" and self.batch_size != 1:
            raise ValueError("batch_size 1 where length is full")
        return self


class TrainingSection(Section):
    """How the model is trained.

    Attributes:
        objective: "causal" (the next token) or "masked" (tokens that are hidden, see `training.masking`).
        start_from: the folder of a trained model, checkpoint or run whose weights the run begins with, see
            `reformer.training.fine_tuning`; new ones by default.
        lora_rank: train adapters of this rank, see `reformer.training.lora`, and what is new for the task,
            but no other weights of the model to start from; 0 to train them all.
        seed: determines the weights that are new, the windows, the dropout and the hash rotations.
        lengths: the stages of the sequence length, in order.
        gradient_accumulation: forward passes per optimizer step.
        learning_rate: the peak of the schedule.
        schedule: what follows the warm-up: "constant", "linear" or "cosine", the latter two down to 0.
        warmup_steps: steps in which the learning rate rises from 0.
        weight_decay: AdamW's, on matrices only.
        clip_grad_norm: largest norm of the gradient; 0 for no clipping.
        bf16: run matrix products in bfloat16 (autocast).
        compile: run what is position-wise in the layers through torch.compile; needs hidden_dropout_prob 0
            and, on a CPU, a C++ compiler.
        eval_every: steps between evaluations; one more follows the last step.
        eval_length: tokens per window of an evaluation, or "full"; that of the last stage by default.
        save_every: steps between checkpoints; one more follows the last step.
        keep_checkpoints: how many of the latest checkpoints to keep; the best one is kept besides.
        device: "auto" (a GPU where there is one), "cpu" or "cuda"; `torchrun` uses one GPU a process.
    """

    objective: Literal["causal", "masked"] = "causal"
    start_from: FilePath | None = None
    lora_rank: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    lengths: Annotated[list[Stage], Field(min_length=1)]
    gradient_accumulation: Count = 1
    learning_rate: Positive = 1e-3
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: NonNegative = 0.0
    clip_grad_norm: NonNegative = 1.0
    bf16: bool = False
    compile: bool = False
    eval_every: Count = 100
    eval_length: Annotated[int, Field(ge=3)] | Literal["full"] | None = None
    save_every: Count = 100
    keep_checkpoints: Count = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def num_steps(self) -> int:
        """Optimizer steps of all stages."""
        return sum(stage.steps for stage in self.lengths)


class Recipe(Section):
    """A checked recipe.

    Attributes:
        data: where the sequences are.
        model: fields of `ReformerConfig`; what the tokenizer and the task determine is left out, and so may
            be all that the weights of `training.start_from` determine.
        training: how the model is trained.
        output_dir: the run folder.
    """

    data: DataSection
    model: dict[str, Any] = {}
    training: TrainingSection
    output_dir: FilePath

    _file: RecipeFile = PrivateAttr()

    @property
    def is_decoder(self) -> bool:
        """Whether the model is causal; a recipe for another task says no."""
        return self.training.objective == "causal"

    @property
    def architecture(self) -> str:
        """The class of the model; a recipe for another task says another one."""
        return "ReformerForCausalLM" if self.is_decoder else "ReformerForMaskedLM"

    def error(self, key: str, message: str) -> UserError:
        """An error about a dotted key, which names the file and the line where it was written."""
        path = tuple(int(part) if part.isdecimal() else part for part in key.split("."))
        return self._file.error(path, f"{key}: {message}")


def load_recipe(
    path: Path,
    overrides: Sequence[str] = (),
    kind: type[Recipe] = Recipe,
) -> Recipe:
    """Reads and checks a recipe.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` strings laid over the file.
        kind: the class of the recipe, which may have sections of its own.

    Returns:
        The recipe, its paths absolute and every field of the model filled in.

    Raises:
        UserError: one line with the place and what was expected there.
        OSError: when the file cannot be read.
    """
    recipe = load_sections(path, overrides, kind)
    if recipe.data.mutated_copies and not recipe.is_decoder:
        raise recipe.error(
            "data.mutated_copies",
            f"{recipe.data.mutated_copies:g}: expected 0 for a model that is not a causal language model",
        )
    if recipe.training.lora_rank and recipe.training.start_from is None:
        raise recipe.error(
            "training.lora_rank",
            f"{recipe.training.lora_rank}: adapters are of trained weights, expected a model in "
            "training.start_from (--start-from)",
        )
    recipe.output_dir = absolute(recipe.output_dir)
    if recipe.training.start_from is not None:
        recipe.training.start_from = absolute(recipe.training.start_from)
    recipe.model = _checked_model_fields(recipe)
    recipe.data.train = [absolute(name) for name in recipe.data.train]
    recipe.data.eval = {name: [absolute(file) for file in files] for name, files in recipe.data.eval.items()}
    if recipe.data.cache_dir is not None:
        recipe.data.cache_dir = absolute(recipe.data.cache_dir)
    if recipe.data.held_out_regions is not None:
        recipe.data.held_out_regions = absolute(recipe.data.held_out_regions)
    return recipe


def load_sections(
    path: Path,
    overrides: Sequence[str] = (),
    kind: type[Recipe] = Recipe,
) -> Recipe:
    """Reads a recipe as it stands: its paths are not made absolute, its model section is not checked.

    That needs no transformers. Arguments and errors are those of `load_recipe`.
    """
    file = read_recipe_file(path, overrides)
    try:
        recipe = kind.model_validate(file.values)
    except ValidationError as error:
        raise first_error(file, (), file.values, error.errors(), _recipe_keys(kind)) from error
    recipe._file = file
    for name in recipe.data.eval:
        if not name.strip() or not name.isprintable() or "/" in name:
            message = f"data.eval: expected a printable name without /, got {name!r}"
            raise file.error(("data", "eval", name), message)
    return recipe


class AnyRecipe(Recipe):
    """A recipe of whichever task: sections that a task has of its own are passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML that reproduces the run by itself."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def check_resumable(recipe: Recipe, earlier: Recipe) -> None:
    """Raises UserError if a recipe differs from a run's earlier one in a key that changes the training."""
    now, before = _flat(recipe.model_dump(mode="json")), _flat(earlier.model_dump(mode="json"))
    for key in now | before:
        if now.get(key) != before.get(key) and key not in CHANGEABLE_ON_RESUME:
            raise recipe.error(
                key, f"{short(now.get(key))}, but the run to resume began with {short(before.get(key))}"
            )


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """The values of the sections, by dotted key."""
    flat: dict[str, Any] = {}
    for section, content in values.items():
        if isinstance(content, dict):
            flat |= {f"{section}.{key}": value for key, value in content.items()}
        else:
            flat[section] = content
    return flat


def absolute(name: str) -> str:
    """A path that means the same in any folder, `~` written out."""
    return os.path.abspath(os.path.expanduser(name))


def _model_fields() -> dict[str, Any]:
    """Name -> type of the fields of `ReformerConfig` that a recipe may set."""
    import inspect

    from transformers import PreTrainedConfig

    from reformer.models.auto import ReformerConfig

    classes = ReformerConfig.__mro__[: ReformerConfig.__mro__.index(PreTrainedConfig)]
    fields: dict[str, Any] = {}
    for config_class in reversed(classes):
        fields |= inspect.get_annotations(config_class, eval_str=True)
    return {name: kind for name, kind in fields.items() if name not in _NOT_IN_RECIPE}


def _checked_model_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields that the recipe gives, completed by those it starts from or `ReformerConfig`'s defaults."""
    from reformer.models.auto import ReformerConfig

    file, values = recipe._file, recipe.model
    fields = _model_fields()
    definitions: dict[str, Any] = {name: (kind, None) for name, kind in fields.items()}
    shape = create_model("model", __base__=Section, **definitions)
    try:
        shape.model_validate(values)
    except ValidationError as error:
        keys = [f"model.{name}" for name in fields]
        raise first_error(file, ("model",), values, error.errors(), keys) from error
    if recipe.training.start_from is not None:
        values = {name: value for name, value in _start_fields(recipe).items() if name in fields} | values
    try:
        config = ReformerConfig(**values, is_decoder=recipe.is_decoder)
    except (ValueError, TypeError) as error:
        message = " ".join(str(error).split())
        named = next((name for name in values if name in message), None)
        raise file.error(("model", named) if named else ("model",), f"model: {message}") from error
    resolved = config.to_dict()
    return {name: resolved[name] for name in fields if name in resolved}


def _start_fields(recipe: Recipe) -> dict[str, Any]:
    """The fields of the model that a run starts from, or began with: it may be resumed where that is gone."""
    from reformer.training.fine_tuning import StartingModel

    begun = Path(recipe.output_dir) / RECIPE_FILE
    if begun.exists():
        return dict(read_recipe_file(begun).values.get("model") or {})
    start = StartingModel.of(recipe)
    start.check_fields(recipe.model)
    return start.fields


def _recipe_keys(kind: type[Recipe]) -> list[str]:
    """Every dotted key that a recipe can have, outside the model section."""
    sections = {
        name: field.annotation
        for name, field in kind.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    keys = [*kind.model_fields]
    keys += [f"{name}.{key}" for name, section in sections.items() for key in section.model_fields]
    return keys + [f"training.lengths.{key}" for key in Stage.model_fields]
