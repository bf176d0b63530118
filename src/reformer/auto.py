"""Registers all models and tokenizers with transformers' Auto classes when it is imported."""

from reformer.data.tokenizers import register_auto_tokenizers
from reformer.models import auto
from reformer.models.configuration import ReformerConfig

__all__ = list(auto.__all__)

register_auto_tokenizers(ReformerConfig)


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(auto, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
