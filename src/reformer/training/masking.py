"""Which tokens a masked language model has to fill in, and what stands in their place.

Of nucleotides only A, C, G and T are chosen, never N; of text every byte may be. 15 % are chosen, one by one.
In training four in five of these become [MASK], one in ten becomes the token of another place in the
sequence, and one in ten stays (Devlin et al. 2019, section 3.1, but that the other token has the frequencies
of the sequence itself); in an evaluation all become [MASK].
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from reformer.data.vocabularies import holds_nucleotides
from reformer.models.modeling import IGNORED

MASKED_SHARE = 0.15

Ids = npt.NDArray[np.int64]


class Masking:
    """Hides tokens of sequences of one vocabulary.

    Args:
        vocabulary: token -> id.
        seed: determines the choice, together with a number that each sequence has.
    """

    def __init__(self, vocabulary: Mapping[str, int], seed: int) -> None:
        self._seed, self._mask_id = seed, vocabulary["[MASK]"]
        self._may_be_chosen = np.zeros(len(vocabulary), dtype=np.bool_)
        letters = "ACGTacgt" if holds_nucleotides(vocabulary) else map(chr, range(256))
        self._may_be_chosen[[vocabulary[letter] for letter in letters if letter in vocabulary]] = True

    def for_training(self, ids: Ids, number: int) -> tuple[Ids, Ids]:
        """What the model reads of a sequence `[T]`, and the labels: -100 where nothing is to be filled in."""
        generator, chosen = self._chosen(ids, number)
        share = generator.random(len(ids))
        others = ids[generator.integers(len(ids), size=len(ids))]
        hidden = np.where(chosen & (share < 0.8), self._mask_id, ids)
        hidden = np.where(chosen & (share >= 0.9), others, hidden)
        return hidden, np.where(chosen, ids, IGNORED)

    def for_evaluation(self, ids: Ids, number: int) -> tuple[Ids, npt.NDArray[np.bool_]]:
        """What the model reads, and which tokens it has to fill in, bool `[T]`."""
        _, chosen = self._chosen(ids, number)
        return np.where(chosen, self._mask_id, ids), chosen

    def _chosen(self, ids: Ids, number: int) -> tuple[np.random.Generator, npt.NDArray[np.bool_]]:
        generator = np.random.Generator(np.random.Philox(key=np.array([self._seed, number], dtype=np.uint64)))
        return generator, (generator.random(len(ids)) < MASKED_SHARE) & self._may_be_chosen[ids]
