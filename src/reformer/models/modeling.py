"""The Reformer and its heads, read from top to bottom.

B batch, T tokens, d hidden size. Inside the model the real tokens of each row come first and padding
behind them, whatever the caller's padding side: positions then count real tokens, and padding changes
nothing.
"""

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin, PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutputWithPast,
    MaskedLMOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from reformer.layers.attention import (
    Attention,
    AttentionShape,
    FullSelfAttention,
    LocalSelfAttention,
    LSHSelfAttention,
    SelfAttention,
)
from reformer.layers.chunking import chunked
from reformer.layers.cross_attention import CrossAttention
from reformer.layers.feed_forward import FeedForward
from reformer.layers.induction import InductionSelfAttention
from reformer.layers.layer_norm import normalise_for_products
from reformer.layers.positions import AxialPositionEmbeddings, LearnedPositionEmbeddings
from reformer.layers.randomness import derive, draw_seed, dropout
from reformer.layers.reversible import ReversibleLayer, ReversibleStack
from reformer.layers.token_embedding import TokenEmbedding
from reformer.layers.transformers_layout import TransformersLayout
from reformer.models.cache import ReformerCache
from reformer.models.configuration import ReformerConfig
from reformer.models.decoding import Memory, run_with_cache
from reformer.models.sampling import RowSampling
from reformer.models.strands import BothStrands, flipped

_OLD_CONSTANTS = (r"mask_value_float(16|32)$", r"lm_head\.decoder\.bias$")
"""What old versions of transformers saved besides weights: constants, and the head's bias twice."""

IGNORED = -100
"""The label of a token that no loss counts."""


class ReformerEmbeddings(nn.Module):
    """Token embeddings plus positions, unless positions are rotary or none."""

    def __init__(self, config: ReformerConfig):
        super().__init__()
        self.word_embeddings = TokenEmbedding(config.vocab_size, config.hidden_size)
        self.dropout = config.hidden_dropout_prob
        self.feature_projection: nn.Linear | None = None
        if config.num_input_features:
            self.feature_projection = nn.Linear(config.num_input_features, config.hidden_size, bias=False)
        self.position_embeddings: nn.Module | None = None
        if config.position_embedding_type == "axial":
            self.position_embeddings = AxialPositionEmbeddings(
                config.axial_pos_shape, config.axial_pos_embds_dim, dropout=self.dropout
            )
        elif config.position_embedding_type == "learned":
            self.position_embeddings = LearnedPositionEmbeddings(
                config.max_position_embeddings, config.hidden_size, dropout=self.dropout
            )

    def forward(self, inputs_embeds: Tensor, seed: int | None) -> Tensor:
        """`[B, T, d]` token embeddings to `[B, T, d]`."""
        x = dropout(inputs_embeds, self.dropout, None if seed is None else derive(seed, 0))
        if self.position_embeddings is None:
            return x
        return self.position_embeddings(x, None if seed is None else derive(seed, 1))  # type: ignore[no-any-return]

    def with_features(self, inputs_embeds: Tensor, input_features: Tensor | None) -> Tensor:
        """`[B, T, d]` token embeddings and what `[B, T, features]` add to them."""
        if (input_features is None) != (self.feature_projection is None):
            raise ValueError("num_input_features in the configuration and input_features go together")
        if self.feature_projection is None or input_features is None:
            return inputs_embeds
        expected = (*inputs_embeds.shape[:2], self.feature_projection.in_features)
        if input_features.shape != expected:
            raise ValueError(f"input_features must be {list(expected)}, got {list(input_features.shape)}")
        return inputs_embeds + self.feature_projection(input_features)

    def at(self, inputs_embeds: Tensor, positions: Tensor) -> Tensor:
        """`[B, S, d]` token embeddings to the same, at positions int64 `[B, S]`, in evaluation."""
        if self.position_embeddings is None:
            return inputs_embeds
        return inputs_embeds + self.position_embeddings.at(positions)  # type: ignore[operator]


class ReformerEncoder(ReversibleStack):
    """The reversible layers and the normalisation of their two streams."""

    def __init__(self, config: ReformerConfig):
        super().__init__(
            (_layer(config, index) for index in range(len(config.attn_layers))),
            residual=config.residual,
            reversible=config.reversible,
            chunk_length=config.chunk_size_feed_forward or _chunk_length(config.feed_forward_size),
        )
        self.layer_norm = nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = config.hidden_dropout_prob

    def forward(self, hidden: Tensor, seed: int | None) -> Tensor:
        """Normalise the two streams side by side, `[..., 2d]`: the model's output."""
        return dropout(self.layer_norm(hidden), self.dropout, seed)


def _layer(config: ReformerConfig, index: int) -> ReversibleLayer:
    attention = Attention(
        _self_attention(config, index),
        dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
    )
    feed_forward = FeedForward(
        config.hidden_size,
        config.feed_forward_size,
        activation=nn.ReLU(inplace=True) if config.hidden_act == "relu" else ACT2FN[config.hidden_act],
        dropout=config.hidden_dropout_prob,
        layer_norm_eps=config.layer_norm_eps,
    )
    cross_attention = None
    if config.cross_attention_hidden_size is not None:
        cross_attention = CrossAttention(
            config.hidden_size,
            config.cross_attention_hidden_size,
            config.num_attention_heads,
            config.attention_head_size,
            dropout=config.hidden_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
        )
    return ReversibleLayer(attention, feed_forward, cross_attention)


def _self_attention(config: ReformerConfig, index: int) -> SelfAttention:
    kind = config.attn_layers[index]
    is_induction = kind == "lsh" and config.lsh_induction_length > 0
    shape = AttentionShape(
        config.hidden_size,
        config.num_attention_heads,
        config.attention_head_size,
        causal=config.is_decoder,
        dropout=config.lsh_attention_probs_dropout_prob
        if kind == "lsh"
        else config.local_attention_probs_dropout_prob,
        rope_theta=config.rope_theta
        if config.position_embedding_type == "rotary" and not is_induction
        else None,
        layout=_transformers_layout(config) if config.as_transformers else None,
    )
    if kind == "full":
        return FullSelfAttention(shape)
    if kind == "local":
        return LocalSelfAttention(
            shape,
            chunk_length=config.local_attn_chunk_length,
            num_chunks_before=config.local_num_chunks_before,
            num_chunks_after=config.local_num_chunks_after,
        )
    kind_of_lsh = (
        partial(InductionSelfAttention, induction_length=config.lsh_induction_length)
        if is_induction
        else LSHSelfAttention
    )
    return kind_of_lsh(
        shape,
        window=config.lsh_window,
        chunk_length=config.lsh_attn_chunk_length,
        num_chunks_before=config.lsh_num_chunks_before,
        num_chunks_after=config.lsh_num_chunks_after or 0,
        num_hashes=config.num_hashes,
        num_buckets=config.num_buckets,
        max_num_buckets=config.max_num_buckets,
        hash_seed=config.hash_seed or 0,
    )


def _transformers_layout(config: ReformerConfig) -> TransformersLayout:
    lengths = {"lsh": config.lsh_attn_chunk_length, "local": config.local_attn_chunk_length}
    used = [lengths[kind] for kind in set(config.attn_layers)]
    return TransformersLayout(math.lcm(*used), min(used), config.max_position_embeddings)


def _chunk_length(features: int) -> int:
    """Tokens whose features, in float32, take 8 MiB at most: enough for a GEMM, little beside the rest."""
    return min(max((1 << 21) // features, 256), 2048)


class ReformerPreTrainedModel(PreTrainedModel):
    """Initialisation, saving and loading."""

    config_class = ReformerConfig
    config: ReformerConfig
    base_model_prefix = "reformer"
    _no_split_modules = ["ReversibleLayer"]
    supports_gradient_checkpointing = True  # reversible as it is; with reversible=False it becomes so
    _keys_to_ignore_on_load_unexpected = list(_OLD_CONSTANTS)

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.ParameterList):
            # Of axial positions: transformers passes over modules that have no parameters of their own.
            for weight in module:
                initialization.normal_(weight, std=self.config.axial_norm_std)
        elif isinstance(module, ReformerLMHead):
            initialization.zeros_(module.bias)
        elif isinstance(module, InductionSelfAttention):
            std = module.std_of_taps(len(module.taps), self.config.initializer_range)
            initialization.normal_(module.taps, std=std)


def is_constant_of_old_checkpoint(name: str) -> bool:
    """Whether old versions of transformers saved this tensor and no model needs it."""
    return any(re.search(pattern, name) for pattern in _OLD_CONSTANTS)


@dataclass
class _Encoded:
    """What a head works on.

    `hidden` are the two streams side by side `[B, T, 2d]`, not yet normalised; `seed` is that of this
    forward pass in training.
    """

    hidden: Tensor
    seed: int | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    cross_attentions: tuple[Tensor, ...] | None = None

    def head_seed(self) -> int | None:
        return None if self.seed is None else derive(self.seed, 2)


class ReformerModel(ReformerPreTrainedModel):
    """The Reformer without a head (Kitaev et al. 2020)."""

    def __init__(self, config: ReformerConfig):
        super().__init__(config)
        self.embeddings = ReformerEmbeddings(config)
        self.encoder = ReformerEncoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The token embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings."""
        self.embeddings.word_embeddings = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        input_features: Tensor | None = None,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: int64 `[B, T]`, any T >= 1.
            attention_mask: `[B, T]`, 1 or True where a real token is, 0 at padding, on whichever side.
            inputs_embeds: `[B, T, d]` instead of input_ids.
            output_hidden_states: also give the second stream before each layer and at the end.
            output_attentions: also give the attention weights `[B, H, T, T]` of each layer, T <= 2048.
            return_dict: False for a tuple.
            input_features: `[B, T, num_input_features]`, where the configuration has some.

        Returns:
            `last_hidden_state` `[B, T, 2d]`, `hidden_states` and `attentions`.
        """
        encoded = self.encode(
            input_ids,
            attention_mask,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
            input_features=input_features,
        )
        output = BaseModelOutput(
            last_hidden_state=self.encoder(encoded.hidden, encoded.head_seed()),
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self._returned(output, return_dict)

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        input_features: Tensor | None = None,
    ) -> _Encoded:
        """Everything but the last normalisation; see `forward`.

        With a `cross_attention_hidden_size` m, `memory` is `[B, S, m]` and `memory_mask` `[B, S]` as the
        attention mask; rows of the input may be several times as many, those of one memory side by side.
        """
        if (memory is None) != (self.config.cross_attention_hidden_size is None):
            raise ValueError(
                "cross_attention_hidden_size and a memory, such as an encoder's output, go together"
            )
        mask = _check_inputs(input_ids, attention_mask, inputs_embeds)
        order = None if mask is None else _real_tokens_first(mask)
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        inputs_embeds = self.embeddings.with_features(inputs_embeds, input_features)
        if mask is not None and order is not None:
            mask, inputs_embeds = mask.gather(1, order), _reordered(inputs_embeds, order)
        seed = draw_seed() if self.training else None
        x = self.embeddings(inputs_embeds, seed)
        del inputs_embeds  # at a million tokens every [T, d] counts

        with_states = _wanted(output_hidden_states, self.config.output_hidden_states)
        with_weights = _wanted(output_attentions, self.config.output_attentions)
        weights: list[Tensor] | None = [] if with_weights else None
        hidden, states = self.encoder.run(
            x,
            seed,
            mask,
            memory=memory,
            memory_mask=None if memory_mask is None else _check_inputs(None, memory_mask, memory),
            output_hidden_states=with_states,
            attention_weights=weights,
        )
        crossed: list[Tensor] | None = None
        if weights is not None and memory is not None:
            weights, crossed = weights[::2], weights[1::2]
        if order is not None:
            inverse = order.argsort(dim=1)
            hidden = _reordered(hidden, inverse)
            states = [_reordered(state, inverse) for state in states]
            if weights is not None:
                weights = [
                    _reordered(_reordered(w, inverse[:, None]).mT, inverse[:, None]).mT for w in weights
                ]
            if crossed is not None:
                crossed = [_reordered(w, inverse[:, None]) for w in crossed]
        return _Encoded(
            hidden,
            seed,
            tuple(states) if with_states else None,
            None if weights is None else tuple(weights),
            None if crossed is None else tuple(crossed),
        )

    @torch.no_grad()
    def read(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        inputs_embeds: Tensor | None,
        cache: ReformerCache,
        num_last: int,
        memory: Memory | None = None,
    ) -> _Encoded:
        """Encode tokens that come after those in a cache, in evaluation, and put them there.

        Args:
            input_ids: int64 `[B, S]`, the new tokens.
            attention_mask: `[B, S]`, or `[B, T + S]` where T tokens, padding included, are in the cache.
            inputs_embeds: `[B, S, d]` instead of input_ids.
            cache: changed in place.
            num_last: give the last positions only; 0 for all.
            memory: what cross-attention is over, the same at every call.

        Raises:
            ValueError: shapes do not fit, or the model is in training mode.
        """
        if self.training:
            raise ValueError("a decode cache needs the model in evaluation mode: call model.eval()")
        given = inputs_embeds if input_ids is None else input_ids
        if given is None:
            raise ValueError("give either input_ids or inputs_embeds")
        shape = given.shape
        if cache.columns and cache.batch_size != shape[0]:
            raise ValueError(f"past_key_values has {cache.batch_size} rows, the new tokens {shape[0]}")
        if attention_mask is not None and attention_mask.shape[1] == cache.columns + shape[1]:
            attention_mask = attention_mask[:, -shape[1] :]
        mask = _check_inputs(input_ids, attention_mask, inputs_embeds)
        order = None if mask is None else _real_tokens_first(mask)
        if inputs_embeds is None:
            inputs_embeds = self.embeddings.word_embeddings(input_ids)
        if mask is not None and order is not None:
            mask, inputs_embeds = mask.gather(1, order), _reordered(inputs_embeds, order)
        if cache.columns:
            start = torch.tensor(cache.lengths, device=inputs_embeds.device)[:, None]
            positions = start + torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
            x = self.embeddings.at(inputs_embeds, positions if mask is None else positions * mask)
        else:
            x = self.embeddings(inputs_embeds, None)
        del inputs_embeds
        hidden = run_with_cache(self.encoder, x, mask, cache, 0 if order is not None else num_last, memory)
        if order is not None:
            hidden = _reordered(hidden, order.argsort(dim=1)[:, -num_last:])
        return _Encoded(hidden, None, None, None)

    def _returned(self, output: Any, return_dict: bool | None) -> Any:
        return output if _wanted(return_dict, self.config.return_dict) else output.to_tuple()


class ReformerLMHead(nn.Module):
    """Logits of the two normalised streams."""

    def __init__(self, config: ReformerConfig):
        super().__init__()
        self.decoder = nn.Linear(2 * config.hidden_size, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, x: Tensor) -> Tensor:
        """`[..., 2d]` to `[..., vocab]`."""
        return self.decoder(x) + self.bias


class _TokenLoss(nn.Module):
    """Normalisation, head and cross-entropy of each token: position-wise, so that it can be chunked."""

    def __init__(self, encoder: ReformerEncoder, head: ReformerLMHead, label_smoothing: float = 0.0):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.norm = encoder.layer_norm
        self.head = head
        self.dropout = encoder.dropout

    def forward(self, rows: Tensor, seed: int | None, labels: Tensor) -> Tensor:
        logits = self.head(dropout(normalise_for_products(self.norm, rows), self.dropout, seed))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = F.cross_entropy(
            logits, labels, reduction="none", ignore_index=IGNORED, label_smoothing=self.label_smoothing
        )
        return losses[:, None]


class _WithHead(ReformerPreTrainedModel):
    """A model that gives logits of tokens."""

    lm_head: ReformerLMHead

    def get_output_embeddings(self) -> nn.Linear:
        """The layer that gives logits."""
        return self.lm_head.decoder

    def set_output_embeddings(self, new_embeddings: nn.Linear) -> None:
        """Replace the layer that gives logits."""
        self.lm_head.decoder = new_embeddings
        vocab_size = new_embeddings.weight.shape[0]
        bias = self.lm_head.bias.new_zeros(vocab_size)
        kept = min(vocab_size, len(self.lm_head.bias))
        bias[:kept] = self.lm_head.bias.data[:kept]
        self.lm_head.bias = nn.Parameter(bias)


class _LanguageModel(_WithHead):
    """What the causal and the masked language model share."""

    def __init__(self, config: ReformerConfig):
        super().__init__(config)
        self.reformer = ReformerModel(config)
        self.lm_head = ReformerLMHead(config)
        self.post_init()

    def _logits(self, encoded: _Encoded, logits_to_keep: int) -> Tensor:
        hidden = encoded.hidden[:, -logits_to_keep:] if logits_to_keep else encoded.hidden
        return self.lm_head(self.reformer.encoder(hidden, encoded.head_seed()))

    def _token_losses(self, encoded: _Encoded, labels: Tensor) -> Tensor:
        """Nats `[B, T]` for labels `[B, T]`, 0 where they are ignored; never makes `[B, T, vocab]`."""
        _check_labels(labels, encoded.hidden.shape[:2], self.config.vocab_size)
        return chunked(
            _TokenLoss(self.reformer.encoder, self.lm_head).forward,
            encoded.hidden,
            labels,
            chunk_length=self.config.chunk_size_lm_head or _chunk_length(self.config.vocab_size),
            seed=encoded.head_seed(),
        )[0].squeeze(-1)


class ReformerForCausalLM(_LanguageModel, RowSampling, GenerationMixin):
    """A Reformer that predicts the next token. Needs `is_decoder=True`."""

    _is_stateful = True  # a ReformerCache cannot be cut back, so there is no assisted decoding

    def __init__(self, config: ReformerConfig):
        if not config.is_decoder:
            raise ValueError("ReformerForCausalLM needs a configuration with is_decoder=True")
        super().__init__(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        past_key_values: ReformerCache | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: see `ReformerModel.forward` for all that is not said here.
            attention_mask: `[B, T]`.
            inputs_embeds: `[B, T, d]`.
            labels: int64 `[B, T]`, as a rule input_ids: the token at t + 1 is the target of position t.
                -100 and padding are not counted.
            logits_to_keep: give the logits of the last positions only; 0 for all.
            past_key_values: what was read before; the inputs are then the tokens that follow, and it is
                changed in place.
            use_cache: give a cache to go on with, in evaluation; by default where one was given. Nothing
                carries gradient then.
            output_hidden_states: also give hidden states.
            output_attentions: also give attention weights.
            return_dict: False for a tuple.

        Returns:
            `loss`, mean nats over the targets; `logits` `[B, T, vocab]`, in training with labels None;
            `past_key_values` where a cache is used.

        Raises:
            ValueError: inputs do not fit; with a cache also for labels, hidden states and attentions.
        """
        if use_cache or past_key_values is not None:
            if labels is not None or output_hidden_states or output_attentions:
                raise ValueError("labels, hidden states and attentions need use_cache=False")
            cache = ReformerCache(self.reformer.encoder) if past_key_values is None else past_key_values
            encoded = self.reformer.read(input_ids, attention_mask, inputs_embeds, cache, logits_to_keep)
            cached = CausalLMOutputWithPast(
                logits=self._logits(encoded, logits_to_keep), past_key_values=cache
            )
            return self.reformer._returned(cached, return_dict)
        encoded = self.reformer.encode(
            input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions
        )
        loss = None
        if labels is not None:
            targets = _next_tokens(labels, attention_mask)
            loss = self._token_losses(encoded, targets).sum() / (targets != IGNORED).sum().clamp(min=1)
        logits = None if labels is not None and self.training else self._logits(encoded, logits_to_keep)
        output = CausalLMOutputWithPast(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.reformer._returned(output, return_dict)

    @torch.no_grad()
    def token_losses(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Nats of each token given those before it, in the mode (train or eval) that the model is in.

        Args:
            input_ids: int64 `[B, T]`, T >= 2.
            attention_mask: `[B, T]`.

        Returns:
            float32 `[B, T - 1]`: at t the loss of the real token that follows token t, as a rule t + 1; 0
            where there is none, and at padding.
        """
        encoded = self.reformer.encode(input_ids, attention_mask)
        return self._token_losses(encoded, _next_tokens(input_ids, attention_mask))[:, :-1].float()

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: ReformerCache | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        is_first_iteration: bool = False,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `forward` gets at a step of `generate`: with a cache the new tokens alone."""
        inputs: dict[str, Any] = {"attention_mask": attention_mask, "logits_to_keep": 1}
        if use_cache:
            inputs |= {"past_key_values": past_key_values, "use_cache": True}
        elif next_sequence_length is not None:
            next_sequence_length = None
        if inputs_embeds is not None and is_first_iteration:
            return inputs | {"inputs_embeds": _last(inputs_embeds, next_sequence_length)}
        return inputs | {"input_ids": _last(input_ids, next_sequence_length)}


def _last(x: Tensor, length: int | None) -> Tensor:
    """The last positions of `[B, T, ...]`; all for None."""
    return x if length is None else x[:, -length:]


class ReformerForMaskedLM(_LanguageModel):
    """A Reformer that fills in masked tokens. Needs `is_decoder=False`."""

    def __init__(self, config: ReformerConfig):
        _needs_encoder(type(self), config)
        super().__init__(config)
        self.strands = BothStrands(config.vocab_size, config.vocab_size) if config.rc_equivariant else None

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Run the model; labels int64 `[B, T]` with -100 where no token is to be predicted; padding never is.

        In training with labels, logits are None. See `ReformerModel.forward`.
        """
        encoded = self.reformer.encode(
            input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions
        )
        labels = None if labels is None else _real_labels(labels, attention_mask)
        loss = logits = None
        if self.strands is not None:
            other = self.reformer.encode(self.strands.other(input_ids), flipped(attention_mask))
            logits = self.strands.mean(self._logits(encoded, 0), self._logits(other, 0))
            if labels is not None:
                loss = _mean_loss(logits.flatten(0, 1), labels.flatten())
        elif labels is not None:
            loss = self._token_losses(encoded, labels).sum() / (labels != IGNORED).sum().clamp(min=1)
        if logits is None and not (labels is not None and self.training):
            logits = self._logits(encoded, 0)
        output = MaskedLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.reformer._returned(output, return_dict)


class ReformerClassificationHead(nn.Module):
    """Logits of a sequence from one of its tokens, from their mean, or from all of them side by side."""

    def __init__(self, config: ReformerConfig):
        super().__init__()
        num_tokens = config.max_position_embeddings if config.classifier_pooling == "flatten" else 1
        self.dense = nn.Linear(num_tokens * 2 * config.hidden_size, config.hidden_size)
        self.dropout = _classifier_dropout(config)
        self.out_proj = nn.Linear(config.hidden_size, _num_labels(config))

    def forward(self, x: Tensor, seed: int | None) -> Tensor:
        """`[B, 2d]`, or of all tokens, `[B, 2d * max_position_embeddings]`, to `[B, labels]`."""
        x = dropout(x, self.dropout, None if seed is None else derive(seed, 0))
        x = torch.tanh(self.dense(x))
        return self.out_proj(dropout(x, self.dropout, None if seed is None else derive(seed, 1)))


class ReformerForSequenceClassification(ReformerPreTrainedModel):
    """A Reformer that labels a sequence, from its first token, or its last real one if causal.

    With `as_transformers` a causal one too labels it from its first token; with `classifier_pooling="mean"`
    it is labelled from the mean over its real tokens, so that all of them count however far apart they are,
    and with "flatten" from all of them side by side, so that it also counts where each of them is.
    """

    def __init__(self, config: ReformerConfig):
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.reformer = ReformerModel(config)
        self.classifier = ReformerClassificationHead(config)
        self.strands = BothStrands(config.vocab_size, _num_labels(config)) if config.rc_equivariant else None
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Run the model.

        Labels are int64 `[B]` (classes), float `[B]` or `[B, num_labels]` (regression), or float
        `[B, num_labels]` of 0 and 1 (several labels at once), as `config.problem_type` says; without it
        the kind is told from `num_labels` and the dtype. See `ReformerModel.forward`.
        """
        encoded = self.reformer.encode(
            input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions
        )
        logits = self._logits(encoded, attention_mask)
        if self.strands is not None:
            mask = flipped(attention_mask)
            other = self.reformer.encode(self.strands.other(input_ids), mask)
            logits = self.strands.mean(logits, self._logits(other, mask))
        output = SequenceClassifierOutput(
            loss=None if labels is None else _classification_loss(self.config, logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.reformer._returned(output, return_dict)

    def _logits(self, encoded: _Encoded, attention_mask: Tensor | None) -> Tensor:
        seed = encoded.head_seed()
        if self.config.classifier_pooling == "mean":
            pooled = _mean_of_real(self.reformer.encoder(encoded.hidden, seed), attention_mask)
        elif self.config.classifier_pooling == "flatten":
            x = self.reformer.encoder(encoded.hidden, seed)
            pooled = _side_by_side(x, attention_mask, self.config.max_position_embeddings)
        else:
            pooled = self.reformer.encoder(self._token(encoded.hidden, attention_mask), seed)
        return self.classifier(pooled, None if seed is None else derive(seed, 1))  # type: ignore[no-any-return]

    def _token(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        B, T, _ = hidden.shape
        rows = torch.arange(B, device=hidden.device)
        from_last = self.config.is_decoder and not self.config.as_transformers
        if attention_mask is None:
            return hidden[:, -1 if from_last else 0]
        positions = torch.arange(T, device=hidden.device).expand(B, -1)
        real = attention_mask.bool()
        if from_last:
            return hidden[rows, positions.masked_fill(~real, -1).amax(1)]
        return hidden[rows, positions.masked_fill(~real, T).amin(1).clamp(max=T - 1)]


class ReformerForTokenClassification(ReformerPreTrainedModel):
    """A Reformer that labels every token."""

    def __init__(self, config: ReformerConfig):
        super().__init__(config)
        self.num_labels = _num_labels(config)
        self.reformer = ReformerModel(config)
        self.dropout = _classifier_dropout(config)
        self.classifier = nn.Linear(2 * config.hidden_size, _num_labels(config))
        self.strands = BothStrands(config.vocab_size, _num_labels(config)) if config.rc_equivariant else None
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        input_features: Tensor | None = None,
    ) -> TokenClassifierOutput | tuple[Any, ...]:
        """Run the model; labels int64 `[B, T]`, -100 where none counts; padding never does.

        Labels `[B, T, S]` say S things of each token, each by one of `num_labels / S` classes.

        See `ReformerModel.forward`.
        """
        encoded = self.reformer.encode(
            input_ids,
            attention_mask,
            inputs_embeds,
            output_hidden_states,
            output_attentions,
            input_features=input_features,
        )
        logits = self._logits(encoded)
        if self.strands is not None:
            other = self.reformer.encode(self.strands.other(input_ids), flipped(attention_mask))
            logits = self.strands.mean(logits, self._logits(other))
        loss = None
        if labels is not None:
            real = _real_labels(labels, attention_mask)
            loss = _mean_loss(logits.reshape(real.numel(), -1), real.flatten())
        output = TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self.reformer._returned(output, return_dict)

    def _logits(self, encoded: _Encoded) -> Tensor:
        seed = encoded.head_seed()
        x = self.reformer.encoder(encoded.hidden, seed)
        return self.classifier(dropout(x, self.dropout, None if seed is None else derive(seed, 1)))


class ReformerForQuestionAnswering(ReformerPreTrainedModel):
    """A Reformer that finds where an answer begins and ends."""

    def __init__(self, config: ReformerConfig):
        _needs_one_strand(type(self), config)
        super().__init__(config)
        self.reformer = ReformerModel(config)
        self.qa_outputs = nn.Linear(2 * config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> QuestionAnsweringModelOutput | tuple[Any, ...]:
        """Run the model; start and end are int64 `[B]`, out of [0, T) where there is no answer.

        See `ReformerModel.forward`.
        """
        encoded = self.reformer.encode(
            input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions
        )
        logits = self.qa_outputs(self.reformer.encoder(encoded.hidden, encoded.head_seed()))
        if attention_mask is not None:
            logits = logits.masked_fill(~attention_mask.bool()[..., None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = logits.unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            start_loss = _position_loss(start_logits, start_positions)
            loss = (start_loss + _position_loss(end_logits, end_positions)) / 2
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self.reformer._returned(output, return_dict)


def _wanted(argument: bool | None, default: bool | None) -> bool:
    return bool(default if argument is None else argument)


def _check_inputs(
    input_ids: Tensor | None, attention_mask: Tensor | None, inputs_embeds: Tensor | None
) -> Tensor | None:
    """Check the shapes; the mask as bool `[B, T]`, or None if nothing is padding."""
    if input_ids is not None and inputs_embeds is None:
        shape, wanted = list(input_ids.shape), "input_ids must be [B, T]"
        fits = len(shape) == 2
    elif inputs_embeds is not None and input_ids is None:
        shape, wanted = list(inputs_embeds.shape), "inputs_embeds must be [B, T, d]"
        fits = len(shape) == 3
    else:
        raise ValueError("give either input_ids or inputs_embeds")
    if not fits or shape[1] < 1:
        raise ValueError(f"{wanted} with T >= 1, got {shape}")
    if attention_mask is None:
        return None
    if list(attention_mask.shape) != shape[:2]:
        raise ValueError(f"attention_mask must be {shape[:2]}, got {list(attention_mask.shape)}")
    mask = attention_mask.bool()
    return None if mask.all() else mask


def _real_tokens_first(mask: Tensor) -> Tensor | None:
    """The order `[B, T]` that puts real tokens first in each row, or None if they are."""
    if bool((mask[:, 1:] <= mask[:, :-1]).all()):
        return None
    return (~mask).to(torch.uint8).argsort(dim=1, stable=True)


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    """Take the last but one dimension in the order given."""
    return x.gather(-2, order[..., None].expand(*x.shape[:-1], x.shape[-1]))


def _next_tokens(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The target of each position: the next real token, however much padding lies between, or -100."""
    T = labels.shape[1]
    labels = F.pad(labels, (0, 1), value=IGNORED)
    if attention_mask is None:
        return labels[:, 1:]
    real = attention_mask.bool()
    position = torch.arange(T, device=labels.device).expand_as(real).masked_fill(~real, T)
    following = F.pad(position[:, 1:], (0, 1), value=T).flip(1).cummin(1).values.flip(1)
    return labels.gather(1, following).masked_fill(~real, IGNORED)


def _real_labels(labels: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Labels that count no padding."""
    if attention_mask is None:
        return labels
    is_real = attention_mask.bool()
    return labels.masked_fill(~(is_real if labels.dim() == 2 else is_real[..., None]), IGNORED)


def _check_labels(labels: Tensor, shape: torch.Size, vocab_size: int) -> None:
    if labels.shape != shape:
        raise ValueError(f"labels must be {list(shape)}, got {list(labels.shape)}")
    outside = (labels != IGNORED) & ((labels < 0) | (labels >= vocab_size))
    if outside.any():
        raise ValueError(f"labels must be -100 or in [0, {vocab_size}), got {int(labels[outside][0])}")


def _needs_encoder(model: type, config: ReformerConfig) -> None:
    if config.is_decoder:
        raise ValueError(f"{model.__name__} needs a configuration with is_decoder=False")


def _needs_one_strand(model: type, config: ReformerConfig) -> None:
    if config.rc_equivariant:
        raise ValueError(
            f"rc_equivariant: {model.__name__} finds places, not what is the same on both strands"
        )


def _mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean nats over the labels `[N]` that are not -100, and 0 if all are."""
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")
    return losses / (labels != IGNORED).sum().clamp(min=1)


def _position_loss(logits: Tensor, positions: Tensor) -> Tensor:
    """Cross-entropy over the positions of a sequence; one outside of it is ignored."""
    outside = (positions < 0) | (positions >= logits.shape[1])
    return _mean_loss(logits, positions.masked_fill(outside, IGNORED))


def _num_labels(config: ReformerConfig) -> int:
    return config.num_labels or 2


def _classifier_dropout(config: ReformerConfig) -> float:
    return config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout


def _mean_of_real(x: Tensor, attention_mask: Tensor | None) -> Tensor:
    """The mean `[B, d]` over the real tokens of `[B, T, d]`; 0 where there is none."""
    if attention_mask is None:
        return x.mean(1)
    real = attention_mask.to(x.dtype)[..., None]
    return (x * real).sum(1) / real.sum(1).clamp(min=1)


def _side_by_side(x: Tensor, attention_mask: Tensor | None, num_tokens: int) -> Tensor:
    """The real tokens of `[B, T, d]`, first to last, as `[B, num_tokens * d]`, 0 where there are fewer."""
    if attention_mask is not None:
        real = attention_mask.bool()
        x = x.masked_fill(~real[..., None], 0)
        order = _real_tokens_first(real)
        x = x if order is None else _reordered(x, order)
        x = x[:, : max(int(real.sum(1).max()), 1)]
    if x.shape[1] > num_tokens:
        raise ValueError(
            f"{x.shape[1]} tokens are more than max_position_embeddings={num_tokens}, which "
            'classifier_pooling "flatten" has weights for'
        )
    return F.pad(x, (0, 0, 0, num_tokens - x.shape[1])).flatten(1)


def _classification_loss(config: ReformerConfig, logits: Tensor, labels: Tensor) -> Tensor:
    problem = config.problem_type
    if problem is None:
        if config.num_labels == 1:
            problem = "regression"
        else:
            problem = (
                "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
            )
    logits = logits.float()
    if problem == "regression":
        return F.mse_loss(logits, labels.float().view_as(logits))
    if problem == "single_label_classification":
        return F.cross_entropy(logits.view(-1, _num_labels(config)), labels.view(-1))
    return F.binary_cross_entropy_with_logits(logits, labels.float())
