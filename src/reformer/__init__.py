"""Reformer models for sequences as long as they come.

Names are imported when they are first used: `import reformer` alone is quick. The first use of a model
name, or `import reformer.auto`, registers models and tokenizers with transformers' Auto classes.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reformer.models.configuration import ReformerConfig
    from reformer.models.modeling import (
        ReformerForCausalLM,
        ReformerForMaskedLM,
        ReformerForQuestionAnswering,
        ReformerForSequenceClassification,
        ReformerForTokenClassification,
        ReformerModel,
    )
    from reformer.models.seq2seq import ReformerForSeq2SeqLM
    from reformer.models.seq2seq_configuration import ReformerSeq2SeqConfig

__all__ = [
    "ReformerConfig",
    "ReformerForCausalLM",
    "ReformerForMaskedLM",
    "ReformerForQuestionAnswering",
    "ReformerForSeq2SeqLM",
    "ReformerForSequenceClassification",
    "ReformerForTokenClassification",
    "ReformerModel",
    "ReformerSeq2SeqConfig",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("reformer-torch")
    if name in __all__:
        return getattr(import_module("reformer.auto"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
