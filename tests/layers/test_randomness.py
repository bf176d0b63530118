"""Random numbers that belong to seeds, not to global state."""

import pytest
import torch

from reformer.layers.randomness import derive, draw_seed, dropout, generator


def test_derived_seeds_are_distinct_and_in_range() -> None:
    drawn = torch.randint(2**63 - 1, (3,), generator=torch.Generator().manual_seed(0)).tolist()
    seeds = {derive(seed, i, j) for seed in drawn for i in range(100) for j in range(100)}
    seeds |= {derive(seed, i) for seed in drawn for i in range(100)}
    assert len(seeds) == 3 * (100 * 100 + 100)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_small_seeds_share_no_derived_seed() -> None:
    assert len({derive(hash_seed, level) for hash_seed in range(10) for level in range(10)}) == 100


def test_neighbouring_labels_flip_about_half_of_the_bits() -> None:
    flips = [(derive(7, i) ^ derive(7, i + 1)).bit_count() for i in range(1000)]
    assert 28 < sum(flips) / len(flips) < 35
    assert min(flips) > 8


def test_draw_seed_takes_one_number_from_torch() -> None:
    torch.manual_seed(0)
    first, second = draw_seed(), draw_seed()
    torch.manual_seed(0)
    assert int(torch.randint(2**63 - 1, ())) == first != second


def test_dropout_is_a_function_of_its_seed_and_leaves_global_state_alone() -> None:
    x = torch.ones(1000, 20)
    state = torch.get_rng_state()
    assert torch.equal(dropout(x, 0.3, 5), dropout(x, 0.3, 5))
    assert not torch.equal(dropout(x, 0.3, 5), dropout(x, 0.3, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert dropout(x, 0.3, None) is x
    assert dropout(x, 0.0, 5) is x


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate: float) -> None:
    kept = dropout(torch.ones(200_000), rate, 3)
    assert set(kept.unique().tolist()) == {0.0, float(torch.tensor(1.0) / (1 - rate))}
    spread = (rate / (1 - rate) / 200_000) ** 0.5
    assert abs(float(kept.mean()) - 1) < 5 * spread


def test_dropout_gradient_is_its_mask() -> None:
    x = torch.randn(50, 4).requires_grad_()
    dropout(x, 0.5, 3).sum().backward()
    assert torch.equal(x.grad, dropout(torch.ones(50, 4), 0.5, 3))  # type: ignore[arg-type]


def test_generators_of_equal_seeds_agree() -> None:
    assert torch.equal(torch.randn(5, generator=generator(9)), torch.randn(5, generator=generator(9)))
