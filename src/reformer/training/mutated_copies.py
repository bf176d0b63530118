"""Windows that repeat themselves as relatives do: a causal model learns to look up what it predicts.

The second half of such a window is a changed copy of the first, as one genome is of another: some tokens are
others, some stretches are missing, some are new. How much differs is drawn anew for each window.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from reformer.layers.randomness import derive

LARGEST_RATE = 0.4
"""Of changed tokens. Rates are this times the square of a uniform number: half of them are below 0.1."""
_TOKENS_PER_STRETCH = 20
"""Changed tokens for each stretch that is left out, and for each that is put in."""
_MEAN_STRETCH = 5
_STREAM = 1
"""The label of the random numbers drawn here: masking and windows draw from the seed itself."""

Ids = npt.NDArray[np.uint8]


class MutatedCopies:
    """Puts changed copies of their first halves into the second halves of some windows.

    Args:
        share: of the windows that become such, 0 to 1.
        seed: determines what is drawn, together with a number that each window has.
    """

    def __init__(self, share: float, seed: int) -> None:
        self._share, self._seed = share, derive(seed, _STREAM)

    def for_training(self, ids: Ids, number: int) -> Ids:
        """What the model reads of a window `[T]`: T tokens, the first T - T // 2 of which are the window's.

        Each token of the copy is, with a rate drawn for the window (see `LARGEST_RATE`), that of a random
        place of the first half. Then stretches, one for every 20 such tokens and of 5 tokens on average, are
        left out, and as many of random tokens of the window are put in. Where the copy is too short, the
        window's own tokens that follow the first half come behind it.
        """
        generator = np.random.Generator(np.random.Philox(key=np.array([self._seed, number], dtype=np.uint64)))
        if generator.random() >= self._share:
            return ids
        first = ids[: len(ids) - len(ids) // 2]
        copy = _changed(first, ids, generator)
        return np.concatenate([first, copy, ids[len(first) :]])[: len(ids)]


def _changed(first: Ids, window: Ids, generator: np.random.Generator) -> Ids:
    """A changed copy of the first half of a window, of about its length."""
    num_tokens = len(first)
    rate = LARGEST_RATE * generator.random() ** 2
    others = first[generator.integers(num_tokens, size=num_tokens)]
    copy = np.where(generator.random(num_tokens) < rate, others, first)

    num_stretches = generator.poisson(rate * num_tokens / _TOKENS_PER_STRETCH)
    missing, new = generator.geometric(1 / _MEAN_STRETCH, size=(2, num_stretches))
    is_kept = np.ones(num_tokens, dtype=np.bool_)
    for start, length in zip(generator.integers(num_tokens, size=num_stretches), missing, strict=True):
        is_kept[start : start + length] = False
    copy = copy[is_kept]

    places = np.repeat(generator.integers(len(copy) + 1, size=num_stretches), new)
    return np.insert(copy, places, window[generator.integers(len(window), size=len(places))])
