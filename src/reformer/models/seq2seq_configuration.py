"""What a Reformer of an encoder and a decoder is made of."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from reformer.models.configuration import ReformerConfig

_ENCODER_DEFAULTS: dict[str, Any] = {"position_embedding_type": "rotary", "local_num_chunks_after": 1}
_DECODER_DEFAULTS: dict[str, Any] = {"position_embedding_type": "rotary"}


@strict
class ReformerSeq2SeqConfig(PreTrainedConfig):
    """Configuration of `ReformerForSeq2SeqLM`: a `ReformerConfig` for each half.

    Args:
        encoder: fields of a `ReformerConfig`, or one with `is_decoder=False`. Of fields that are not given,
            positions are rotary, and local attention looks a chunk forward as well as back.
        decoder: likewise, with `is_decoder=True`; its `cross_attention_hidden_size` is filled in.
        tie_word_embeddings: one table of embeddings for source and target tokens. The head cannot be tied
            to it: it works on two streams, `2 * hidden_size` features.
        label_smoothing: share of the target that is spread over the vocabulary in the training loss.
        pad_token_id: by default the decoder's, as are the two below.
        eos_token_id: ends a target.
        decoder_start_token_id: begins a target; by default pad_token_id.
        vocab_size: the decoder's; not to be given.

    Raises:
        ValueError: a field has a value outside its range, or fields do not fit each other.
    """

    model_type = "reformer-torch-seq2seq"
    keys_to_ignore_at_inference = ["past_key_values", "encoder_last_hidden_state"]

    encoder: ReformerConfig | dict[str, Any] | None = None
    decoder: ReformerConfig | dict[str, Any] | None = None
    is_encoder_decoder: bool = True
    tie_word_embeddings: bool = False
    label_smoothing: float | int = 0.0
    pad_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    decoder_start_token_id: int | None = None
    vocab_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Make the configurations of the halves, and check that they fit each other."""
        encoder = _half(self.encoder, _ENCODER_DEFAULTS, is_decoder=False)
        decoder = _half(self.decoder, _DECODER_DEFAULTS, is_decoder=True)
        decoder.cross_attention_hidden_size = 2 * encoder.hidden_size
        self.encoder, self.decoder = encoder, decoder
        if self.pad_token_id is None:
            self.pad_token_id = decoder.pad_token_id
        if self.eos_token_id is None:
            self.eos_token_id = decoder.eos_token_id
        if self.decoder_start_token_id is None:
            self.decoder_start_token_id = self.pad_token_id
        self.initializer_range = kwargs.pop("initializer_range", decoder.initializer_range)
        super().__post_init__(**kwargs)
        self._check()
        self.vocab_size = decoder.vocab_size

    def _check(self) -> None:
        encoder, decoder = self.halves
        if encoder.is_decoder or not decoder.is_decoder:
            raise ValueError("the encoder needs is_decoder=False, and the decoder is_decoder=True")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.vocab_size not in (None, decoder.vocab_size):
            raise ValueError(
                f"vocab_size is the decoder's, {decoder.vocab_size}: it must not be {self.vocab_size}"
            )
        sizes = [(half.vocab_size, half.hidden_size) for half in (encoder, decoder)]
        if self.tie_word_embeddings and sizes[0] != sizes[1]:
            raise ValueError(
                "tie_word_embeddings needs equal vocab_size and hidden_size, got "
                f"{sizes[0]} in the encoder and {sizes[1]} in the decoder"
            )

    @property
    def halves(self) -> tuple[ReformerConfig, ReformerConfig]:
        """The configurations of encoder and decoder."""
        assert isinstance(self.encoder, ReformerConfig)
        assert isinstance(self.decoder, ReformerConfig)
        return self.encoder, self.decoder


def _half(
    given: ReformerConfig | dict[str, Any] | None, defaults: dict[str, Any], *, is_decoder: bool
) -> ReformerConfig:
    if isinstance(given, ReformerConfig):
        return given
    return ReformerConfig(**({"is_decoder": is_decoder} | defaults | (given or {})))
