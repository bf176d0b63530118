"""lsh_hash against its definition in loops."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import hashing, lsh_hash
from tests.ops import definitions

FACTORS = [(2,), (4,), (10,), (64,), (2, 4), (4, 2, 6)]


def small_integers(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Integers from -2 to 2: products are exact in every dtype, and many are equal."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def buckets_by_loops(x: Tensor, rotations: Tensor, factors: tuple[int, ...]) -> Tensor:
    vectors, matrices = x.tolist(), rotations.tolist()
    B, H, T, _ = x.shape
    buckets = [
        [
            [
                [
                    definitions.hash_bucket(vectors[b][h][t], [row[r] for row in matrices[h]], factors)
                    for t in range(T)
                ]
                for r in range(rotations.shape[2])
            ]
            for h in range(H)
        ]
        for b in range(B)
    ]
    return torch.tensor(buckets)


@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_equals_definition_with_ties(factors: tuple[int, ...], dtype: torch.dtype) -> None:
    x = small_integers(2, 2, 40, 6, seed=1, dtype=dtype)
    x[0, 0, 0] = 0  # every product ties
    rotations = small_integers(2, 6, 3, sum(factors) // 2, seed=2)
    buckets = lsh_hash(x, rotations, factors)
    assert buckets.dtype == torch.int64
    assert torch.equal(buckets, buckets_by_loops(x, rotations, factors))


def test_ties_are_there_to_be_broken() -> None:
    x, rotations = small_integers(1, 1, 40, 6, seed=1), small_integers(1, 6, 1, 5, seed=2)
    products = [definitions.hash_products(row, rotations[0, :, 0].tolist()) for row in x[0, 0].tolist()]
    assert sum(p.count(max(p)) > 1 for p in products) >= 5


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_equals_definition_in_float64(factors: tuple[int, ...]) -> None:
    x, rotations = (
        normal(2, 2, 30, 8, seed=3, dtype=torch.float64),
        normal(2, 8, 3, sum(factors) // 2, seed=4),
    )
    assert torch.equal(lsh_hash(x, rotations, factors), buckets_by_loops(x, rotations, factors))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_chosen_product_is_the_highest_up_to_float32_rounding(dtype: torch.dtype) -> None:
    D, n = 64, 128
    x, rotations = normal(1, 2, 500, D, seed=5, dtype=dtype), normal(2, D, 4, n // 2, seed=6)
    buckets = lsh_hash(x, rotations, n)
    products = torch.einsum("bhtd,hdri->bhrti", x.double(), rotations.double())
    sizes = torch.einsum("bhtd,hdri->bhrti", x.double().abs(), rotations.double().abs())
    products = torch.cat([products, -products], -1)
    chosen = products.gather(-1, buckets[..., None])[..., 0]
    rounding = D * torch.finfo(torch.float32).eps * sizes.amax(-1)
    assert (chosen >= products.amax(-1) - rounding).all()


def test_one_bucket_needs_no_rotations() -> None:
    buckets = lsh_hash(normal(2, 3, 7, 8, seed=0), torch.zeros(3, 8, 4, 0), 1)
    assert torch.equal(buckets, torch.zeros(2, 3, 4, 7, dtype=torch.int64))


@pytest.mark.parametrize("num_buckets", [1, 6, (4, 6), [4, 6]], ids=str)
def test_padding_gets_the_bucket_behind_the_last(num_buckets: Any) -> None:
    factors = (num_buckets,) if isinstance(num_buckets, int) else num_buckets
    x, rotations = normal(2, 2, 20, 8, seed=7), normal(2, 8, 3, sum(factors) // 2, seed=8)
    mask = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.7
    buckets = lsh_hash(x, rotations, num_buckets, padding_mask=mask)
    everywhere = mask[:, None, None].expand_as(buckets)
    assert (buckets[~everywhere] == math.prod(factors)).all()
    assert torch.equal(buckets[everywhere], lsh_hash(x, rotations, num_buckets)[everywhere])


@pytest.mark.parametrize("num_buckets", [2, 32, (4, 6)], ids=str)
def test_block_size_changes_nothing(num_buckets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    factors = (num_buckets,) if isinstance(num_buckets, int) else num_buckets
    x = small_integers(2, 2, 101, 8, seed=9)
    rotations = small_integers(2, 8, 3, sum(factors) // 2, seed=10)
    whole = lsh_hash(x, rotations, num_buckets)
    for block_numel in (1, 7 * 2 * 3 * sum(factors) // 2, 1000):
        monkeypatch.setattr(hashing, "_BLOCK_NUMEL", block_numel)
        assert torch.equal(lsh_hash(x, rotations, num_buckets), whole)


def test_depends_on_nothing_but_the_vector() -> None:
    x, rotations = small_integers(2, 2, 50, 8, seed=11), small_integers(2, 8, 3, 16, seed=12)
    whole = lsh_hash(x, rotations, 32)
    assert torch.equal(lsh_hash(x[:, :, 13:40], rotations, 32), whole[..., 13:40])
    assert torch.equal(lsh_hash(x[:1], rotations[:, :, 1:2], 32), whole[:1, :, 1:2])
    assert torch.equal(lsh_hash(4 * x, rotations, 32), whole)
    heads_inside = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(lsh_hash(heads_inside, rotations, 32), whole)


def test_carries_no_gradient() -> None:
    x, rotations = (normal(*shape, seed=0).requires_grad_() for shape in ((1, 2, 9, 8), (2, 8, 3, 4)))
    assert not lsh_hash(x, rotations, 8).requires_grad


def test_autocast_changes_nothing() -> None:
    x, rotations = normal(2, 2, 400, 64, seed=13), normal(2, 64, 2, 32, seed=14)
    plain = lsh_hash(x, rotations, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lsh_hash(x, rotations, 64), plain)
    in_bfloat16 = lsh_hash(x.bfloat16(), rotations.bfloat16(), 64)
    assert not torch.equal(in_bfloat16, plain)  # so that autocast would have shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": (2, 7, 8)}, r"x must be \[B, H, T, D\], got \[2, 7, 8\]"),
        ({"rotations": (3, 8, 4, 3)}, r"rotations must be \[H=2, D=8, R, 3\] for .*, got \[3, 8, 4, 3\]"),
        ({"rotations": (2, 9, 4, 3)}, r"rotations must be \[H=2, D=8, R, 3\]"),
        ({"rotations": (2, 8, 4, 4)}, r"rotations must be \[H=2, D=8, R, 3\]"),
        ({"rotations": (2, 8, 3)}, r"rotations must be \[H=2, D=8, R, 3\]"),
        (
            {"rotations": (2, 8, 3), "num_buckets": 1},
            r"rotations must be \[H, D, R, n / 2\], got",
        ),
        ({"num_buckets": 5}, r"num_buckets must be 1 or even factors, got \(5,\)"),
        ({"num_buckets": 0}, r"num_buckets must be 1 or even factors, got \(0,\)"),
        ({"num_buckets": -2}, r"num_buckets must be 1 or even factors, got \(-2,\)"),
        ({"num_buckets": (2, 3)}, r"num_buckets must be 1 or even factors, got \(2, 3\)"),
        ({"num_buckets": ()}, r"num_buckets must be 1 or even factors, got \(\)"),
        ({"padding_mask": torch.ones(2, 7)}, r"padding_mask must be bool \[B=2, T=7\], got torch.float32"),
        ({"padding_mask": torch.ones(2, 8, dtype=torch.bool)}, r"padding_mask must be bool .* \[2, 8\]"),
        (
            {"num_buckets": 1, "padding_mask": torch.ones(2, 8, dtype=torch.bool)},
            r"padding_mask must be bool .* \[2, 8\]",
        ),
    ],
)
def test_errors(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x": (2, 2, 7, 8), "rotations": (2, 8, 4, 3), "num_buckets": 6, **changes}
    x, rotations = torch.zeros(arguments.pop("x")), torch.zeros(arguments.pop("rotations"))
    with pytest.raises(ValueError, match=message):
        lsh_hash(x, rotations, arguments.pop("num_buckets"), **arguments)
