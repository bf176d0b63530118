"""Registers all models and tokenizers with transformers' Auto classes when it is imported."""

from reformer.data.tokenizers import register_auto_tokenizers
from reformer.models import auto
from reformer.models.configuration import ReformerConfig
from reformer.models.seq2seq_configuration import ReformerSeq2SeqConfig

__all__ = list(auto.__all__)

register_auto_tokenizers(ReformerConfig)
register_auto_tokenizers(ReformerSeq2SeqConfig)


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(auto, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
