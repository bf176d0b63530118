"""How much likelier a language model finds a sequence with a change in it than without: nats.

All is said in the direction of reading; both strands are read, and treated alike. The sequence with and the
one without the change begin at the same base and are equally long: where bases are deleted, as many more of
those behind come in, and where bases are inserted, as many drop out at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from reformer.genomics.strands import StrandedSequence
from reformer.genomics.variants.changes import Change

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Nats = npt.NDArray[np.float64]


class Likelihood(Protocol):
    """Scores changes with one model."""

    def ratios(self, sequence: StrandedSequence, changes: Sequence[Change]) -> Nats:
        """Nats by which the sequence with each change is likelier than the sequence as it is.

        Args:
            sequence: a strand.
            changes: on it, sorted by `start`.

        Returns:
            float64 `[changes]`, NaN where no base can be compared. A number does not depend on which other
            changes there are, but for rounding.
        """


def likelihood_of(model: Any, tokenizer: PreTrainedTokenizerBase, window: int, reach: int) -> Likelihood:
    """The likelihood that fits a model's kind."""
    from reformer.genomics.variants.causal_likelihood import CausalLikelihood
    from reformer.genomics.variants.masked_likelihood import MaskedLikelihood

    if model.config.is_decoder:
        return CausalLikelihood(model, window, reach)
    return MaskedLikelihood(model, tokenizer, window)
