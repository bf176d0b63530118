"""What a Reformer is made of."""

import math
from collections.abc import Sequence
from typing import Any, Self

import transformers
from huggingface_hub.dataclasses import strict
from transformers.activations import ACT2FN

ATTENTION_KINDS = ("lsh", "local", "full")
POSITION_KINDS = ("axial", "rotary", "learned", "none")
ARCHITECTURES = {
    "ReformerModel": "ReformerModel",
    "ReformerModelWithLMHead": "ReformerForCausalLM",
    "ReformerForMaskedLM": "ReformerForMaskedLM",
    "ReformerForSequenceClassification": "ReformerForSequenceClassification",
    "ReformerForQuestionAnswering": "ReformerForQuestionAnswering",
}
"""Our names of transformers' Reformer models."""


@strict
class ReformerConfig(transformers.ReformerConfig):
    """Configuration of all Reformer models.

    Fields that transformers' `ReformerConfig` has keep their names and meanings; `attn_layers` may also
    hold "full". What is ours:

    Args:
        lsh_window: "bucket" (a query sees keys of its own bucket; causal outputs never depend on later
            tokens) or "chunk" (the paper's; transformers' checkpoints).
        lsh_num_chunks_after: by default 0, as in transformers; an encoder with window "bucket", whose
            ranks would else never show it a later token, looks forward as far as back.
        lsh_induction_length: for a decoder with lsh_window "bucket": LSH attention finds what followed the
            like of so many last tokens, see `reformer.layers.induction`; 0 for what the paper does.
        position_embedding_type: "axial", "rotary", "learned" or "none"; by default what
            `axial_pos_embds` says, axial or learned.
        rope_theta: base of rotary positions.
        residual: "int32", exact fixed-point streams, or "float32".
        reversible: rebuild activations in the backward pass; False stores them.
        max_num_buckets: bound of the number of buckets where `num_buckets` is None, a power of two; as
            their factors are chosen to fill evenly, there may be up to an eighth more.
        cross_attention_hidden_size: features of the memory that each layer also attends to, see
            `ReformerForSeq2SeqLM`; None for no cross-attention.
        hash_seed: of the rotations in evaluation; None means 0. Training draws new ones at each forward.
        num_input_features: numbers that come with each token, `input_features`, beside its id, as those of
            speech models do; a linear layer adds them to its embedding. 0 for none.
        rc_equivariant: make masked models and those of token and sequence classification of nucleotides
            exactly equivariant under the reverse complement, at twice the cost, see
            `reformer.models.strands`.
        classifier_pooling: what `ReformerForSequenceClassification` labels a sequence from: "token" (see
            there), "mean", the mean over its real tokens, or "flatten", all of them side by side, each with
            weights of its own, for sequences of up to `max_position_embeddings` tokens.
        as_transformers: do as transformers' Reformer does where ours does otherwise, see
            `reformer.layers.transformers_layout`; sequences are then classified from their first token.

    Raises:
        ValueError: a field has a value outside its range, or fields do not fit each other.
    """

    model_type = "reformer-torch"
    keys_to_ignore_at_inference = ["past_key_values"]

    num_attention_heads: int = 4
    lsh_attn_chunk_length: int = 64
    lsh_num_chunks_before: int = 1
    lsh_num_chunks_after: int | None = None
    lsh_attention_probs_dropout_prob: float | int = 0.0
    lsh_window: str = "bucket"
    lsh_induction_length: int = 0
    position_embedding_type: str | None = None
    rope_theta: float | int = 10000.0
    residual: str = "int32"
    reversible: bool = True
    max_num_buckets: int = 16384
    chunk_size_feed_forward: int = 0
    cross_attention_hidden_size: int | None = None
    num_input_features: int = 0
    rc_equivariant: bool = False
    classifier_pooling: str = "token"
    as_transformers: bool = False

    @classmethod
    def get_config_dict(cls, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read `config.json`, that of transformers' Reformer too: see `from_transformers`."""
        values, kwargs = super().get_config_dict(*args, **kwargs)
        return from_transformers(values), kwargs

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a configuration of its fields, those of transformers' Reformer too."""
        return super().from_dict(from_transformers(config_dict), **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what follows from other fields, and check all."""
        super().__post_init__(**kwargs)
        self.attn_layers = list(self.attn_layers)
        if self.position_embedding_type is None:
            self.position_embedding_type = "axial" if self.axial_pos_embds else "learned"
        self.axial_pos_embds = self.position_embedding_type == "axial"
        if self.lsh_num_chunks_after is None:
            both_ways = self.lsh_window == "bucket" and not self.is_decoder
            self.lsh_num_chunks_after = self.lsh_num_chunks_before if both_ways else 0
        self._check()

    @property
    def longest_input(self) -> int | None:
        """Tokens; None where inputs may have any length."""
        if self.position_embedding_type == "learned" or self.classifier_pooling == "flatten":
            return self.max_position_embeddings
        return math.prod(self.axial_pos_shape) if self.position_embedding_type == "axial" else None

    def _check(self) -> None:
        _one_of("lsh_window", self.lsh_window, ("bucket", "chunk"))
        _one_of("position_embedding_type", self.position_embedding_type, POSITION_KINDS)
        _one_of("residual", self.residual, ("int32", "float32"))
        _one_of("classifier_pooling", self.classifier_pooling, ("token", "mean", "flatten"))
        if not self.attn_layers:
            raise ValueError("attn_layers must name at least one layer")
        for kind in self.attn_layers:
            _one_of("attn_layers", kind, ATTENTION_KINDS)
        for name in (
            *("hidden_size", "feed_forward_size", "num_attention_heads", "attention_head_size", "vocab_size"),
            *("num_hashes", "lsh_attn_chunk_length", "local_attn_chunk_length", "max_position_embeddings"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("lsh_num_chunks_before", "lsh_num_chunks_after", "local_num_chunks_before"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in (
            "hidden_dropout_prob",
            "lsh_attention_probs_dropout_prob",
            "local_attention_probs_dropout_prob",
        ):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("chunk_size_feed_forward", "chunk_size_lm_head"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 (automatic) or positive, got {getattr(self, name)}")
        if self.num_input_features < 0:
            raise ValueError(f"num_input_features must not be negative, got {self.num_input_features}")
        if self.num_input_features and (self.is_decoder or self.rc_equivariant):
            raise ValueError("num_input_features cannot be for a decoder, nor with rc_equivariant")
        if self.classifier_dropout is not None and not 0 <= self.classifier_dropout < 1:
            raise ValueError(f"classifier_dropout must be in [0, 1), got {self.classifier_dropout}")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"hidden_act {self.hidden_act!r} is no activation that transformers knows")
        if self.rope_theta <= 0:
            raise ValueError(f"rope_theta must be positive, got {self.rope_theta}")
        if self.as_transformers and (self.lsh_window != "chunk" or "full" in self.attn_layers):
            raise ValueError(
                'as_transformers needs lsh_window="chunk" and no "full" among attn_layers, got '
                f"{self.lsh_window!r} and {self.attn_layers}"
            )
        if self.cross_attention_hidden_size is not None and self.cross_attention_hidden_size < 1:
            raise ValueError(
                f"cross_attention_hidden_size must be at least 1, got {self.cross_attention_hidden_size}"
            )
        if self.tie_word_embeddings:
            raise ValueError(
                "tie_word_embeddings cannot be: the head works on two streams, 2 * hidden_size features"
            )
        if self.is_decoder and self.rc_equivariant:
            raise ValueError(
                "rc_equivariant cannot be for a decoder, which reads one strand in one direction"
            )
        if self.is_decoder and self.local_num_chunks_after:
            raise ValueError(
                "a decoder (is_decoder=True) cannot look forward: local_num_chunks_after must be 0"
            )
        if self.is_decoder and self.lsh_num_chunks_after:
            raise ValueError(
                "a decoder (is_decoder=True) cannot look forward: lsh_num_chunks_after must be 0"
            )
        if self.lsh_induction_length < 0 or self.lsh_induction_length == 1:
            raise ValueError(f"lsh_induction_length must be 0 or at least 2, got {self.lsh_induction_length}")
        if self.lsh_induction_length and not (self.is_decoder and self.lsh_window == "bucket"):
            raise ValueError('lsh_induction_length needs a decoder (is_decoder=True) and lsh_window="bucket"')
        self._check_buckets()
        if self.position_embedding_type == "axial" and not len(self.axial_pos_shape) == 2 == len(
            self.axial_pos_embds_dim
        ):
            raise ValueError(
                "axial_pos_shape and axial_pos_embds_dim must be two numbers each, got "
                f"{self.axial_pos_shape} and {self.axial_pos_embds_dim}"
            )
        if self.position_embedding_type == "axial" and sum(self.axial_pos_embds_dim) != self.hidden_size:
            raise ValueError(
                f"axial_pos_embds_dim {tuple(self.axial_pos_embds_dim)} must add up to "
                f"hidden_size={self.hidden_size}"
            )
        if self.position_embedding_type == "rotary" and self.attention_head_size % 2:
            raise ValueError(
                f"rotary positions need an even attention_head_size, got {self.attention_head_size}"
            )

    def _check_buckets(self) -> None:
        given = self.num_buckets
        if given is not None:
            factors = given if isinstance(given, Sequence) else [given]
            if not factors or any(n < 2 or n % 2 for n in factors):
                raise ValueError(f"num_buckets must be an even number or a list of even factors, got {given}")
        bound = self.max_num_buckets
        if bound < 1 or bound & (bound - 1):
            raise ValueError(f"max_num_buckets must be a power of two, got {bound}")


def from_transformers(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of our configuration for those of transformers' Reformer; others are returned as they are.

    Fields of ours that were written next to theirs are kept.
    """
    if values.get("model_type") != transformers.ReformerConfig.model_type:
        return values
    ours = {"lsh_window": "chunk", "as_transformers": True, "residual": "float32"}
    # What theirs leaves out when it saves has the value of its own default.
    defaults = transformers.ReformerConfig().to_dict()
    theirs = {name: defaults[name] for name in ReformerConfig.__annotations__ if name in defaults}
    names = [ARCHITECTURES.get(name, name) for name in values.get("architectures") or []]
    changes = {"model_type": ReformerConfig.model_type, "architectures": names or None}
    return theirs | ours | values | changes


def _one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
