"""Registration with transformers' Auto classes; importing this module does it."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
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

# transformers has a class of this name too; exist_ok tells its registry that this is another one.
AutoConfig.register(ReformerConfig.model_type, ReformerConfig)
AutoModel.register(ReformerConfig, ReformerModel, exist_ok=True)
AutoModelForCausalLM.register(ReformerConfig, ReformerForCausalLM, exist_ok=True)
AutoModelForMaskedLM.register(ReformerConfig, ReformerForMaskedLM, exist_ok=True)
AutoModelForQuestionAnswering.register(ReformerConfig, ReformerForQuestionAnswering, exist_ok=True)
AutoModelForSequenceClassification.register(ReformerConfig, ReformerForSequenceClassification, exist_ok=True)
AutoModelForTokenClassification.register(ReformerConfig, ReformerForTokenClassification, exist_ok=True)

AutoConfig.register(ReformerSeq2SeqConfig.model_type, ReformerSeq2SeqConfig)
AutoModelForSeq2SeqLM.register(ReformerSeq2SeqConfig, ReformerForSeq2SeqLM)
