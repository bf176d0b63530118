"""Markov models of a symbol sequence: the baseline that a trained model has to beat."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reformer.data.vocabularies import vocabulary

Symbols = NDArray[np.uint8]
Positions = NDArray[np.int64]

BREAK = 255
"""The symbol of what is not predicted and ends the context: N, another IUPAC letter, a record boundary."""

_MAX_TABLE_ENTRIES = 2**28
_BLOCK = 2**18
_LEAVE_ONE_OUT_SAMPLE = 2**16
_CONCENTRATIONS = 2.0 ** np.arange(-4, 21)

_SYMBOL_OF_TOKEN = np.full(256, BREAK, dtype=np.uint8)
for _token, _token_id in vocabulary("nucleotide", "keep").items():
    if _token.upper() in "ACGT":
        _SYMBOL_OF_TOKEN[_token_id] = "ACGT".index(_token.upper())


def nucleotide_symbols(token_ids: NDArray[Any], record_starts: ArrayLike = ()) -> Symbols:
    """Map nucleotide token ids to the symbols A C G T = 0 1 2 3, in either case.

    Args:
        token_ids: Integer ids `[T]` of the nucleotide vocabulary.
        record_starts: Positions at which a new record begins, as in `TokenArray.records.starts`.

    Returns:
        uint8 `[T + number of record starts]`: the symbols, `BREAK` for whatever is not one of the four
        bases, and a `BREAK` before each record.
    """
    return np.insert(_SYMBOL_OF_TOKEN[token_ids], np.asarray(record_starts, dtype=np.int64), BREAK)


class MarkovModel:
    """An order-k Markov model whose contexts back off smoothly to shorter ones.

    The probability of symbol s after the context c of length j is, for j = 0 .. k,

        p_j(s | c) = (n(c s) + alpha_j * p_{j-1}(s | c')) / (n(c) + alpha_j)

    where n counts occurrences in the training sequence, n(c) = sum over s of n(c s), c' is c without its
    oldest symbol, and p_{-1} is uniform. This is the hierarchical Dirichlet model of MacKay and Peto (A
    hierarchical Dirichlet language model, Natural Language Engineering 1(3), 1995). The concentrations
    alpha_j are powers of two chosen one order after the other, j = 0 first, to minimise the leaving-one-out
    code length of the training sequence itself (Ney, Essen and Kneser, On the estimation of 'small'
    probabilities by leaving-one-out, IEEE TPAMI 17(12), 1995): each occurrence is predicted from the counts
    without it, at up to 65,536 positions spread evenly. A symbol with fewer than k symbols before it in its
    run is predicted from those that there are, so every order predicts the same symbols.

    Args:
        order: Length of the longest context in symbols, at least 0.
        num_symbols: Size of the alphabet, 2 to 255. The counts take 4 bytes for each of the
            num_symbols^(order + 1) combinations, and less than that again for all shorter contexts together.

    Attributes:
        order: As given.
        num_symbols: As given.
        concentrations: float64 `[order + 1]`, alpha_0 .. alpha_order; empty before `fit`.

    Raises:
        ValueError: If an argument is out of range or the table would have more than 2^28 entries.
    """

    def __init__(self, order: int, num_symbols: int = 4) -> None:
        if order < 0:
            raise ValueError(f"order must be at least 0, got {order}")
        if not 2 <= num_symbols <= BREAK:
            raise ValueError(f"num_symbols must be in 2..{BREAK}, got {num_symbols}")
        if num_symbols ** (order + 1) > _MAX_TABLE_ENTRIES:
            raise ValueError(
                f"order {order} of {num_symbols} symbols needs {num_symbols ** (order + 1):,} counts, "
                f"expected at most {_MAX_TABLE_ENTRIES:,}"
            )
        self.order = order
        self.num_symbols = num_symbols
        self.concentrations: NDArray[np.float64] = np.empty(0)
        self._counts: list[NDArray[np.int32]] = []

    def fit(self, symbols: Symbols) -> "MarkovModel":
        """Count the contexts of a training sequence and choose the concentrations on it.

        Args:
            symbols: uint8 `[T]`; a value of `num_symbols` or more is a break that no context crosses.

        Returns:
            The model itself.

        Raises:
            ValueError: If `symbols` is not a one-dimensional uint8 array or has no symbol to count.
        """
        self._check(symbols)
        if not np.any(symbols < self.num_symbols):
            raise ValueError(f"the training sequence has no symbol below {self.num_symbols}")
        self._counts = [
            np.zeros((self.num_symbols**j, self.num_symbols), np.int32) for j in range(self.order + 1)
        ]
        one = np.int32(1)  # of the table's own type, or np.add.at is some 15 times slower
        for block in _blocks(len(symbols)):
            for counts, (at, contexts) in zip(self._counts, self._contexts(symbols, block), strict=True):
                np.add.at(counts.reshape(-1), contexts * self.num_symbols + symbols[block[at]], one)
        self._choose_concentrations(symbols)
        return self

    def bits(self, symbols: Symbols) -> tuple[float, int]:
        """Return the mean code length in bits per predicted symbol, and how many were predicted.

        Args:
            symbols: uint8 `[T]`, breaks as in `fit`.

        Raises:
            ValueError: If `symbols` is not a one-dimensional uint8 array or has no symbol to predict.
            RuntimeError: If the model has not been fitted.
        """
        bits = self.bits_per_position(symbols)
        predicted = bits[~np.isnan(bits)]
        if not predicted.size:
            raise ValueError(f"the sequence has no symbol below {self.num_symbols}")
        return float(predicted.mean()), predicted.size

    def bits_per_position(self, symbols: Symbols) -> NDArray[np.float64]:
        """Return -log2 p(symbol | the symbols before it in its run), NaN at breaks.

        Args:
            symbols: uint8 `[T]`, breaks as in `fit`.

        Returns:
            float64 `[T]`.

        Raises:
            ValueError: If `symbols` is not a one-dimensional uint8 array.
            RuntimeError: If the model has not been fitted.
        """
        if not self._counts:
            raise RuntimeError("fit the model first")
        self._check(symbols)
        bits = np.full(len(symbols), np.nan)
        for block in _blocks(len(symbols)):
            bits[block] = -np.log2(self._probabilities(symbols, block))
        return bits

    def _probabilities(self, symbols: Symbols, positions: Positions) -> NDArray[np.float64]:
        """Return p(symbols[positions] | context), float64, NaN at breaks."""
        p = np.where(symbols[positions] < self.num_symbols, 1 / self.num_symbols, np.nan)
        levels = zip(self._counts, self.concentrations, self._contexts(symbols, positions), strict=True)
        for counts, alpha, (at, contexts) in levels:
            count, total = _occurrences(counts, contexts, symbols[positions[at]])
            p[at] = (count + alpha * p[at]) / (total + alpha)
        return p

    def _choose_concentrations(self, symbols: Symbols) -> None:
        """Set each alpha_j to the grid value of the shortest leaving-one-out code, given the shorter ones."""
        predictable = np.flatnonzero(symbols < self.num_symbols)
        sample = predictable[:: -(-len(predictable) // _LEAVE_ONE_OUT_SAMPLE)]
        p = np.full(len(sample), 1 / self.num_symbols)
        self.concentrations = np.empty(self.order + 1)
        levels = zip(self._counts, self._contexts(symbols, sample), strict=True)
        for j, (counts, (at, contexts)) in enumerate(levels):
            count, total = _occurrences(counts, contexts, symbols[sample[at]])
            candidates = [(count - 1 + alpha * p[at]) / (total - 1 + alpha) for alpha in _CONCENTRATIONS]
            best = int(np.argmax([np.log(candidate).sum() for candidate in candidates]))
            self.concentrations[j] = _CONCENTRATIONS[best]
            p[at] = candidates[best]

    def _contexts(self, symbols: Symbols, positions: Positions) -> Iterator[tuple[Positions, Positions]]:
        """Yield, for each context length 0 .. order, who has such a context and which one it is.

        Both arrays are int64 `[N]`: indices into `positions` of those that hold a symbol with at least that
        many symbols before it in its run, and their contexts as numbers, the newest symbol least significant.
        """
        at = np.flatnonzero(symbols[positions] < self.num_symbols)
        contexts = np.zeros(len(at), np.int64)
        yield at, contexts
        for length in range(1, self.order + 1):
            source = positions[at] - length
            oldest = symbols[source].astype(np.int64)
            whole = (source >= 0) & (oldest < self.num_symbols)
            at, oldest, contexts = at[whole], oldest[whole], contexts[whole]
            contexts = contexts + oldest * self.num_symbols ** (length - 1)
            yield at, contexts

    def _check(self, symbols: Symbols) -> None:
        if symbols.ndim != 1 or symbols.dtype != np.uint8:
            raise ValueError(f"symbols must be a uint8 array [T], got {symbols.dtype} {list(symbols.shape)}")


def _blocks(length: int) -> Iterator[Positions]:
    for start in range(0, length, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, length))


def _occurrences(
    counts: NDArray[np.int32], contexts: Positions, symbols: Symbols
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return n(c s) and n(c) for each context c and the symbol s that follows it, `[N]`."""
    rows = counts.take(contexts, axis=0)
    return rows[np.arange(len(rows)), symbols], np.einsum("cs->c", rows)
