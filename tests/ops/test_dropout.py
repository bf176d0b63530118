"""Attention dropout: a fair coin for every (seed, round, row, query, key), the same in all paths."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import lsh_attention
from reformer.ops.dropout import keep_mask, position_seed
from tests.ops.cases import Case, attend, attend_and_differentiate, make_inputs

SIGMAS = 5.0


def kept(rate: float, *, seed: int = 0, num_rounds: int = 4, num_rows: int = 8, T: int = 128) -> Tensor:
    """Whether dropout keeps each (round, row, query, key): bool `[R, N, T, T]`."""
    row = torch.arange(num_rows)[:, None, None]
    position = torch.arange(T)
    seeds = [position_seed(seed, r, row, position[:, None], position) for r in range(num_rounds)]
    assert seeds[0].dtype == torch.int32
    return keep_mask(torch.stack(seeds), rate)


def assert_share(sample: Tensor, probability: float) -> None:
    """Within 5 standard deviations of a binomial."""
    n = sample.numel()
    deviation = math.sqrt(probability * (1 - probability) / n)
    assert abs(sample.double().mean().item() - probability) <= SIGMAS * deviation


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_keep_rate(rate: float) -> None:
    assert_share(kept(rate), 1 - rate)


def test_keep_rate_of_every_round_row_query_and_key() -> None:
    mask = kept(0.3)
    for axis in range(4):
        shares = mask.double().mean([i for i in range(4) if i != axis])
        deviation = math.sqrt(0.3 * 0.7 * mask.shape[axis] / mask.numel())
        assert ((shares - 0.7).abs() <= SIGMAS * deviation).all(), axis


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("distance", [1, 2])
def test_neighbours_are_independent(axis: int, distance: int, rate: float) -> None:
    """Rounds, rows, queries and keys: both are kept as often as two coins both fall."""
    mask = kept(rate)
    n = mask.shape[axis]
    both = mask.narrow(axis, 0, n - distance) & mask.narrow(axis, distance, n - distance)
    assert_share(both, (1 - rate) ** 2)


def test_all_pairs_of_rows_are_independent() -> None:
    """No two of 2,048 (round, row, query) have masks that agree more, or less, than chance allows."""
    masks = kept(0.5, num_rounds=2, num_rows=8, T=128).flatten(0, 2).double() * 2 - 1
    correlation = (masks @ masks.T / masks.shape[1]).fill_diagonal_(0)
    num_pairs = masks.shape[0] ** 2 / 2
    # Of so many pairs, the largest sum of 128 signs.
    assert correlation.abs().max() < (math.sqrt(2 * math.log(num_pairs)) + 1.5) / math.sqrt(masks.shape[1])


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (0, 2**31), (5, 2**62), (0, 2**32 - 1)])
def test_seeds_are_independent(first: int, second: int) -> None:
    assert_share(kept(0.5, seed=first) & kept(0.5, seed=second), 0.25)


def test_nothing_is_dropped_at_rate_zero_and_the_same_at_the_same_seed() -> None:
    assert kept(0.0).all()
    assert torch.equal(kept(0.4, seed=9), kept(0.4, seed=9))


def dropped_weights(case: Case, backend: str, seed: int) -> Tensor:
    """Attention weights `[B, H, T, T]` after dropout: the output for unit vectors as values."""
    inputs = make_inputs(case, seed=0)
    eye = torch.eye(case.T, dtype=torch.float64).expand(2, 2, case.T, case.T)
    return lsh_attention(
        inputs.q,
        inputs.k,
        eye,
        inputs.q_buckets,
        inputs.k_buckets,
        chunk_length=case.chunk_length,
        window=case.window,  # type: ignore[arg-type]
        penalize_self=False,
        key_padding_mask=inputs.key_padding_mask,
        dropout=case.dropout,
        dropout_seed=seed,
        backend=backend,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("window", ["bucket", "chunk"])
@pytest.mark.parametrize("padding", ["none", "left"])
def test_same_mask_in_both_paths(window: str, padding: str) -> None:
    case = Case(window=window, padding=padding, T=65, R=1, dropout=0.4)
    for seed in (0, 1, 2**40):
        reference, tiled = (dropped_weights(case, backend, seed) for backend in ("reference", "torch"))
        assert torch.equal(reference == 0, tiled == 0)
        everything = dropped_weights(replace(case, dropout=0.0), "torch", seed)
        seen = everything > 0
        assert_share(tiled[seen] > 0, 0.6)
        assert (tiled[tiled > 0] - everything[tiled > 0] / 0.6).abs().max() < 1e-12


def test_mask_is_that_of_position_seed() -> None:
    case = Case(window="bucket", T=65, R=1, dropout=0.4, buckets="one", chunk_length=65)
    weights = dropped_weights(case, "torch", 7)
    row, position = torch.arange(4).view(2, 2, 1, 1), torch.arange(65)
    mask = keep_mask(position_seed(7, 0, row, position[:, None], position), 0.4)
    causal = torch.ones(65, 65, dtype=torch.bool).tril()
    assert torch.equal(weights > 0, mask & causal)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("window", ["bucket", "chunk", "local"])
def test_seeds_change_output_and_gradients(window: str, backend: str) -> None:
    case = Case(window=window, T=65, dropout=0.3).possible()
    inputs = make_inputs(case, seed=0)
    results = [attend_and_differentiate(case, inputs, backend) for _ in range(2)]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    none = attend_and_differentiate(replace(case, dropout=0.0), inputs, backend)
    for name in none:
        assert not torch.equal(results[0][name], none[name])


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    case = Case(dropout=0.3)
    attend_and_differentiate(case, make_inputs(case, seed=0), "torch")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_expected_output_is_that_without_dropout(backend: Any) -> None:
    """The mean over 400 seeds, in units of its own standard error."""
    case = Case(T=16, R=2, chunk_length=4)
    inputs = make_inputs(case, seed=0)
    without = attend(case, inputs, backend)
    outputs = torch.stack(
        [
            lsh_attention(
                inputs.q,
                inputs.k,
                inputs.v,
                inputs.q_buckets,
                chunk_length=4,
                dropout=0.3,
                dropout_seed=seed,
                backend=backend,
            )
            for seed in range(400)
        ]
    )
    error = outputs.std(0) / math.sqrt(len(outputs))
    z = (outputs.mean(0) - without) / error
    assert z.abs().max() < SIGMAS
    assert 0.9 < z.std() < 1.1


def test_dropout_of_one_query_is_dropout_of_its_position() -> None:
    """Whatever else is asked in the same call: the last queries alone lose the same weights."""
    case = Case(T=65, R=3, dropout=0.3)
    inputs = make_inputs(case, seed=0)
    for backend, n in itertools.product(("reference", "torch"), (1, 20)):
        last = replace(inputs, q=inputs.q[:, :, -n:], q_buckets=inputs.q_buckets[..., -n:])
        difference = attend(case, last, backend) - attend(case, inputs, backend)[:, :, -n:]
        assert difference.abs().max() < 1e-12
