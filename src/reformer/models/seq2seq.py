"""A Reformer that reads one sequence and writes another.

B sources, S source tokens, T target tokens, d hidden size. The encoder reads the whole source both ways;
the decoder is causal, and each of its layers also attends to all of the encoder's output, `[B, S, 2d]`.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from reformer.layers.chunking import chunked
from reformer.models.cache import ReformerCache
from reformer.models.decoding import Memory
from reformer.models.modeling import (
    IGNORED,
    ReformerLMHead,
    ReformerModel,
    _check_labels,
    _chunk_length,
    _Encoded,
    _real_labels,
    _TokenLoss,
    _wanted,
    _WithHead,
)
from reformer.models.sampling import RowSampling
from reformer.models.seq2seq_configuration import ReformerSeq2SeqConfig


class ReformerForSeq2SeqLM(_WithHead, RowSampling, GenerationMixin):
    """A Reformer of an encoder and a decoder, as for translation and summaries."""

    config_class = ReformerSeq2SeqConfig  # type: ignore[assignment]
    config: ReformerSeq2SeqConfig  # type: ignore[assignment]
    base_model_prefix = ""
    _is_stateful = True  # a step gives the logits of one position: no assisted decoding
    _tied_weights_keys = {
        "decoder.embeddings.word_embeddings.weight": "encoder.embeddings.word_embeddings.weight"
    }

    def __init__(self, config: ReformerSeq2SeqConfig):
        super().__init__(config)  # type: ignore[arg-type]
        encoder, decoder = config.halves
        self.encoder = ReformerModel(encoder)
        self.decoder = ReformerModel(decoder)
        self.lm_head = ReformerLMHead(decoder)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The embeddings of source tokens."""
        return self.encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embeddings of source tokens, and of target tokens if they are the same."""
        self.encoder.set_input_embeddings(value)
        if self.config.tie_word_embeddings:
            self.decoder.set_input_embeddings(value)

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize both vocabularies and the head; see transformers."""
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        size = embeddings.num_embeddings
        if not self.config.tie_word_embeddings:
            self.decoder.resize_token_embeddings(size)
        for config in (self.config, *self.config.halves):
            config.vocab_size = size
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[Tensor, ...] | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: ReformerCache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> Seq2SeqLMOutput | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: source, int64 `[B, S]`.
            attention_mask: `[B, S]`, 1 or True where a real token is, 0 at padding, on whichever side.
            decoder_input_ids: target, int64 `[B, T]`, beginning with `decoder_start_token_id`; by default the
                labels, one later. Rows may be several times as many, those of one source side by side.
            decoder_attention_mask: `[B, T]`; by default padding is where labels begin or end with -100.
            encoder_outputs: what the encoder gave, instead of the source.
            inputs_embeds: `[B, S, d]` instead of input_ids.
            decoder_inputs_embeds: `[B, T, d]` instead of decoder_input_ids.
            labels: int64 `[B, T]`, the token that each position is to give; -100 and padding are not counted.
            past_key_values: of target tokens before these; `decoder_attention_mask` is then of all. It is
                changed in place, and nothing carries gradient.
            use_cache: give a cache to go on with, in evaluation; by default where one was given.
            logits_to_keep: give the logits of the last positions only; 0 for all.
            output_hidden_states: also give hidden states of both halves; stores activations.
            output_attentions: also give attention weights, for short sequences; likewise.
            return_dict: False for a tuple.

        Returns:
            `loss`, mean nats over the labels, in training smoothed; `logits` `[B, T, vocab]`, in training
            with labels None; `encoder_last_hidden_state` `[B, S, 2d]`; what else was asked for.

        Raises:
            ValueError: inputs do not fit each other.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_hidden_states, output_attentions
            )
        encoded = encoder_outputs
        if not isinstance(encoded, BaseModelOutput):
            encoded = BaseModelOutput(*encoded)  # type: ignore[arg-type]
        memory = encoded.last_hidden_state
        assert memory is not None
        if labels is not None:
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            if decoder_attention_mask is None:
                decoder_attention_mask = _within(labels)
        cache = None
        if use_cache or past_key_values is not None:
            if labels is not None or output_hidden_states or output_attentions:
                raise ValueError("labels, hidden states and attentions need use_cache=False")
            cache = ReformerCache(self.decoder.encoder) if past_key_values is None else past_key_values
            mask = None if attention_mask is None else attention_mask.bool()
            decoded = self.decoder.read(
                decoder_input_ids,
                decoder_attention_mask,
                decoder_inputs_embeds,
                cache,
                logits_to_keep,
                Memory(memory, mask),
            )
        else:
            decoded = self.decoder.encode(
                decoder_input_ids,
                decoder_attention_mask,
                decoder_inputs_embeds,
                output_hidden_states,
                output_attentions,
                memory,
                attention_mask,
            )
        loss = None
        if labels is not None:
            loss = self._loss(decoded, _real_labels(labels, decoder_attention_mask))
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=None if labels is not None and self.training else self._logits(decoded, logits_to_keep),
            past_key_values=cache,  # type: ignore[arg-type]
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=memory,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return output if _wanted(return_dict, self.config.return_dict) else output.to_tuple()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The labels `[B, T]`, one later, behind `decoder_start_token_id`; -100 becomes `pad_token_id`."""
        pad, start = self.config.pad_token_id, self.config.decoder_start_token_id
        if pad is None or start is None:
            raise ValueError("the configuration needs pad_token_id and decoder_start_token_id")
        shifted = F.pad(labels[:, :-1], (1, 0), value=IGNORED)
        begins = _within(labels).long().argmax(1, keepdim=True)
        return shifted.masked_fill(shifted == IGNORED, pad).scatter(1, begins, start)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: ReformerCache | None = None,
        attention_mask: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: BaseModelOutput | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """What `forward` gets at a step of `generate`: with a cache the new tokens alone."""
        if past_key_values is not None:
            input_ids = input_ids[:, past_key_values.get_seq_length() :]
        if attention_mask is not None and encoder_outputs is not None:
            # `generate` has given each beam a copy of its source's mask.
            attention_mask = attention_mask[:: len(attention_mask) // len(encoder_outputs[0])]
        return {
            "decoder_input_ids": input_ids,
            "decoder_attention_mask": decoder_attention_mask,
            "attention_mask": attention_mask,
            "encoder_outputs": encoder_outputs,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    def _maybe_prepare_encoder_kwargs_for_generation(  # type: ignore[override]
        self, inputs_tensor: Tensor, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """Keep the source, which tells rows apart that all begin with the same token."""
        if not inputs_tensor.is_floating_point():
            model_kwargs["source_ids"] = inputs_tensor
        return super()._maybe_prepare_encoder_kwargs_for_generation(  # type: ignore[misc]
            inputs_tensor, model_kwargs, *args, **kwargs
        )

    def _expand_inputs_for_generation(  # type: ignore[override]
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = True,
        input_ids: Any = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """The beams of a source share one copy of the encoder's output."""
        input_ids, kwargs = super()._expand_inputs_for_generation(  # type: ignore[misc]
            expand_size, False, input_ids, **kwargs
        )
        return input_ids, kwargs | {"encoder_outputs": encoder_outputs}

    def _logits(self, decoded: _Encoded, logits_to_keep: int) -> Tensor:
        hidden = decoded.hidden[:, -logits_to_keep:] if logits_to_keep else decoded.hidden
        return self.lm_head(self.decoder.encoder(hidden, decoded.head_seed()))

    def _loss(self, decoded: _Encoded, labels: Tensor) -> Tensor:
        """Mean nats over labels `[B, T]` that are not -100; never makes `[B, T, vocab]`."""
        _, config = self.config.halves
        _check_labels(labels, decoded.hidden.shape[:2], config.vocab_size)
        smoothing = self.config.label_smoothing if self.training else 0.0
        (losses,) = chunked(
            _TokenLoss(self.decoder.encoder, self.lm_head, smoothing).forward,
            decoded.hidden,
            labels,
            chunk_length=config.chunk_size_lm_head or _chunk_length(config.vocab_size),
            seed=decoded.head_seed(),
        )
        return losses.sum() / (labels != IGNORED).sum().clamp(min=1)


def _within(labels: Tensor) -> Tensor:
    """Where a target is, bool `[B, T]`: not the -100 that it begins or ends with."""
    counted = (labels != IGNORED).long()
    return (counted.cumsum(1) > 0) & (counted.flip(1).cumsum(1).flip(1) > 0)
