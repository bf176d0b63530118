"""Registration with transformers' Auto classes; importing this module does it."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from reformer.models.configuration import ReformerConfig
from reformer.models.modeling import (
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
    ReformerModel,
)

__all__ = [
    "ReformerConfig",
    "ReformerForCausalLM",
    "ReformerForMaskedLM",
    "ReformerForQuestionAnswering",
    "ReformerForSequenceClassification",
    "ReformerForTokenClassification",
    "ReformerModel",
]

# transformers has a class of this name too; exist_ok tells its registry that this is another one.
AutoConfig.register(ReformerConfig.model_type, ReformerConfig)
AutoModel.register(ReformerConfig, ReformerModel, exist_ok=True)
AutoModelForCausalLM.register(ReformerConfig, ReformerForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(ReformerConfig, ReformerForMaskedLM, exist_ok=True)
AutoModelForQuestionAnswering.register(ReformerConfig, ReformerForQuestionAnswering, exist_ok=True)
AutoModelForSequenceClassification.register(ReformerConfig, ReformerForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(ReformerConfig, ReformerForTokenClassification, exist_ok=True)
