"""Fine-tuning: a run that begins with the weights of a trained model, for its own task or for another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from reformer.data.sources import sha256_of
from reformer.errors import UserError
from reformer.training.model_folder import (
    WEIGHTS_FILE,
    find_model_folder,
    load_tokenizer,
    load_without_tokenizer,
    model_kind,
    read_model_config,
)
from reformer.training.recipe_errors import short

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from reformer.models.auto import ReformerConfig
    from reformer.training.recipe import Recipe
    from reformer.training.run import Task

KEY = "training.start_from"

_KINDS = (
    "ReformerModel",
    "ReformerForCausalLM",
    "ReformerForMaskedLM",
    "ReformerForSequenceClassification",
    "ReformerForTokenClassification",
    "ReformerForQuestionAnswering",
)

_HOW_IT_IS_TRAINED = frozenset(
    {
        "hidden_dropout_prob",
        "lsh_attention_probs_dropout_prob",
        "local_attention_probs_dropout_prob",
        "classifier_dropout",
        "reversible",
        "chunk_size_feed_forward",
        "chunk_size_lm_head",
        "initializer_range",
        "axial_norm_std",
    }
)
"""Fields that change nothing of what trained weights compute in evaluation."""

_OF_THE_HEAD = frozenset({"classifier_pooling", "rc_equivariant"})
_FORWARD = {
    "lsh_num_chunks_after": "lsh_num_chunks_before",
    "local_num_chunks_after": "local_num_chunks_before",
}
"""How far layers look forward, and back."""

_TOKEN_EMBEDDINGS = "embeddings.word_embeddings."
_FEATURES = "embeddings.feature_projection."
_TOKENS, _PROJECTION = "token embeddings", "feature projection"
_TAPS = ".self_attention.taps"


@dataclass(frozen=True)
class StartingModel:
    """The trained model that a recipe starts from, as its folder describes it.

    Attributes:
        folder: its own.
        kind: its class.
        config: its configuration.
        recipe: the recipe.
    """

    folder: Path
    kind: str
    config: ReformerConfig
    recipe: Recipe

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """Finds the model that a recipe with `training.start_from` names, and reads its configuration.

        Raises:
            UserError: there is none, or none of ours.
        """
        from reformer.models.auto import ReformerConfig

        assert recipe.training.start_from is not None
        try:
            folder = find_model_folder(Path(recipe.training.start_from))
            kind = model_kind(folder, _KINDS)
            config = ReformerConfig.from_dict(read_model_config(folder))
        except (UserError, ValueError, TypeError) as error:
            raise recipe.error(KEY, " ".join(str(error).split())) from error
        return cls(folder, kind, config, recipe)

    @property
    def is_of_same_task(self) -> bool:
        """Whether the head is of use too."""
        return self.kind == self.recipe.architecture

    @property
    def turns_round(self) -> bool:
        """Whether one of both models reads one way and the other both ways."""
        return bool(self.config.is_decoder) != self.recipe.is_decoder

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What the model section of the recipe is where it says nothing else."""
        fields: dict[str, Any] = self.config.to_dict()
        if not self.is_of_same_task:
            fields["classifier_pooling"] = "mean"  # a body that never saw labels has no token for them
            fields["rc_equivariant"] &= not self.recipe.is_decoder
        if self.turns_round:
            fields |= {after: 0 if self.recipe.is_decoder else fields[one] for after, one in _FORWARD.items()}
            fields["lsh_induction_length"] = 0  # what followed is of use one way only
        return fields

    def check_fields(self, given: dict[str, Any]) -> None:
        """Raises UserError where the model section of the recipe contradicts the weights."""
        free = set(_HOW_IT_IS_TRAINED)
        if not self.is_of_same_task:
            free |= _OF_THE_HEAD
            if self.config.position_embedding_type != "learned":
                free.add("max_position_embeddings")  # then it is the size of a head that pools by "flatten"
        if self.turns_round:
            free |= _FORWARD.keys()
        for name, value in given.items():
            if name not in free and value != self.fields[name]:
                raise self.recipe.error(
                    f"model.{name}",
                    f"{value!r}, but {KEY} has weights of a model with {self.fields[name]!r}: expected "
                    "the same, or nothing",
                )


@dataclass(frozen=True)
class Taken:
    """What a model has of a trained one.

    Attributes:
        source: the folder with the weights.
        parts: what was taken.
        new: the parts of the model that were not; none where it has all.
        remark: what else is different now.
    """

    source: Path
    parts: tuple[str, ...]
    new: tuple[str, ...]
    remark: str = ""

    def __str__(self) -> str:
        """One line."""
        new = f"; new: {' and '.join(self.new)}" if self.new else ""
        remark = f"; {self.remark}" if self.remark else ""
        return f"{' and '.join(self.parts)} of {self.source}{new}{remark}"

    def to_json(self) -> dict[str, Any]:
        """The same with the digest of the weights, since a folder may change."""
        digest = sha256_of(self.source / WEIGHTS_FILE)
        content = {"from": str(self.source), "sha256": digest, "taken": self.parts, "new": self.new}
        return content | ({"remark": self.remark} if self.remark else {})


def take_weights(
    recipe: Recipe, task: Task, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Taken:
    """Puts the weights that `training.start_from` names into a new model.

    A model of the same task gives all its weights. One of another task gives its layers, its positions, and
    its token embeddings where they are of the same tokens.

    Args:
        recipe: names the folder.
        task: says which tokens are the same.
        model: a new one, of the recipe's configuration.
        tokenizer: of the data.

    Raises:
        UserError: the folder is not whole, reads sequences of another sort, or has a model of the same task
            with other tokens or other classes.
    """
    start = StartingModel.of(recipe)
    try:
        theirs = load_tokenizer(start.folder)
        if type(theirs) is not type(tokenizer):
            raise UserError(
                f"{start.folder}: a model of {_sort(theirs)} sequences, but the data are {_sort(tokenizer)}"
            )
        source = load_without_tokenizer(start.folder, (start.kind,))
        has_same_tokens = task.has_its_tokens(start.folder, tokenizer)
        if start.is_of_same_task:
            _check_same(source, model, start.folder, has_same_tokens)
            _copy(source, model, start.folder)
            return Taken(start.folder, ("all weights",), ())
        return _take_body(start, source, model, has_same_tokens)
    except UserError as error:
        raise recipe.error(KEY, str(error)) from error


def names_of_new(parts: Sequence[str]) -> tuple[str, ...]:
    """How the names of weights begin that are in parts of a model, those of `Taken.new`."""
    places = {_TOKENS: _TOKEN_EMBEDDINGS, _PROJECTION: _FEATURES}
    return tuple(f"reformer.{places[part]}" if part in places else f"{part}." for part in parts)


def has_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokens of a trained model are those of a tokenizer, number by number."""
    return (
        read_model_config(folder).get("vocab_size") == len(tokenizer)
        and load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
    )


def _take_body(start: StartingModel, source: Any, model: Any, has_same_tokens: bool) -> Taken:
    """Copies what does not depend on the head, nor on tokens that are not the same."""
    embeddings = (_TOKENS,)
    left_out = (_FEATURES,) if has_same_tokens else (_FEATURES, _TOKEN_EMBEDDINGS)
    _copy(getattr(source, "reformer", source), model.reformer, start.folder, left_out)
    layers = f"{len(model.config.attn_layers)} layer(s)"
    heads = [name for name, child in model.named_children() if name != "reformer" and [*child.parameters()]]
    if model.config.num_input_features:
        heads.insert(0, _PROJECTION)
    remark = ""
    if start.turns_round:
        remark = f"they read {'one way' if start.recipe.is_decoder else 'both ways'} now"
    if start.config.lsh_induction_length and not model.config.lsh_induction_length:
        remark += " and look up the like of tokens, not what followed it"
    if has_same_tokens:
        return Taken(start.folder, (*embeddings, layers), tuple(heads), remark)
    return Taken(start.folder, (layers,), (*embeddings, *heads), remark)


def _check_same(source: Any, model: Any, folder: Path, has_same_tokens: bool) -> None:
    """Raises UserError unless two models of one task have the same tokens and classes."""
    if not has_same_tokens:
        raise UserError(
            f"{folder}: its vocabulary, of {source.config.vocab_size:,} tokens, is not that of this recipe, "
            f"of {model.config.vocab_size:,}: expected the same for the same task"
        )
    if not hasattr(model, "classifier"):
        return
    theirs, ours = ([name for _, name in sorted(one.config.id2label.items())] for one in (source, model))
    if theirs != ours:
        raise UserError(f"{folder}: its classes are {short(theirs)}, those of this run {short(ours)}")
    if source.config.problem_type != model.config.problem_type:
        raise UserError(
            f"{folder}: its problem_type is {source.config.problem_type}, that of this run "
            f"{model.config.problem_type}"
        )


def _copy(source: nn.Module, target: nn.Module, folder: Path, left_out: tuple[str, ...] = ()) -> None:
    """Copies parameters by name, but for those whose names begin as said, and taps that the target lacks."""
    theirs, ours = (
        {name: weight for name, weight in one.named_parameters() if not name.startswith(left_out)}
        for one in (source, target)
    )
    if not any(name.endswith(_TAPS) for name in ours):
        theirs = {name: weight for name, weight in theirs.items() if not name.endswith(_TAPS)}
    for name in sorted(theirs.keys() | ours.keys()):
        shapes = [list(one[name].shape) if name in one else "no such tensor" for one in (theirs, ours)]
        if shapes[0] != shapes[1]:
            raise UserError(f"{folder / WEIGHTS_FILE}: {name}: {shapes[0]}, but this model has {shapes[1]}")
    for name, weight in ours.items():
        weight.data.copy_(theirs[name].data)


def _sort(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer reads: "nucleotide", "byte"."""
    return type(tokenizer).__name__.removesuffix("Tokenizer").lower()
