"""lsh_attention_by_level against loops over positions, and against one lsh_attention a level."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from reformer.ops import lsh_attention, lsh_attention_by_level, lsh_hash
from tests.ops import definitions

B, H, D, R = 2, 2, 8, 3
BACKENDS = ["reference", "torch"]


def make_inputs(T: int, seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(B, H, T, D, generator=g, dtype=torch.float64) for _ in range(4)]


def growing_resolution(q: Tensor, chunk_length: int, seed: int = 0) -> list[Tensor]:
    """As the layer does it: queries in [C * 2^j, C * 2^(j+1)) have 2^(j+1) buckets, those below C one."""
    g = torch.Generator().manual_seed(seed)
    T, buckets, num_buckets = q.shape[2], [], 1
    while True:
        end = min(chunk_length * num_buckets, T)
        rotations = torch.randn(H, D, R, num_buckets // 2, generator=g, dtype=torch.float64)
        buckets.append(lsh_hash(q[:, :, :end], rotations, num_buckets))
        if end == T:
            return buckets
        num_buckets *= 2


def random_levels(ends: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(i + 1, (B, H, R, end), generator=g) for i, end in enumerate(ends)]


def by_loops(
    q: Tensor, k: Tensor, v: Tensor, buckets: list[Tensor], real: Tensor, before: int, **options: bool
) -> Tensor:
    rows = []
    for b, h in itertools.product(range(B), range(H)):
        levels = [level[b, h].tolist() for level in buckets]
        by_position = definitions.level_window(levels, real[b].tolist(), before=before)
        seen = [[rounds[r] for rounds in by_position] for r in range(R)]
        rows.append(definitions.attention(q[b, h], k[b, h], v[b, h], seen, **options))
    return torch.tensor(rows, dtype=torch.float64).view(B, H, -1, D)


def padded_at_the_end(T: int, *num_pad: int) -> Tensor:
    return torch.arange(T) < T - torch.tensor(num_pad)[:, None]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("correct_duplicates", [False, True])
@pytest.mark.parametrize("penalize_self", [False, True])
@pytest.mark.parametrize("num_chunks_before", [0, 1, 2])
@pytest.mark.parametrize("T", [1, 7, 8, 9, 45])
def test_equals_definition(
    T: int, num_chunks_before: int, penalize_self: bool, correct_duplicates: bool, backend: Any
) -> None:
    C = 4
    q, k, v, _ = make_inputs(T)
    buckets = growing_resolution(q, C)
    real = padded_at_the_end(T, 0, T // 3)
    options = {"penalize_self": penalize_self, "correct_duplicates": correct_duplicates}
    out = lsh_attention_by_level(
        q,
        k,
        v,
        buckets,
        chunk_length=C,
        num_chunks_before=num_chunks_before,
        key_padding_mask=real,
        backend=backend,
        **options,
    )
    expected = by_loops(q, k, v, buckets, real, num_chunks_before * C, **options)
    assert (out - expected).abs().max() < 1e-10


def test_growing_resolution_is_that_of_the_layer() -> None:
    buckets = growing_resolution(make_inputs(45)[0], chunk_length=4)
    assert [level.shape[-1] for level in buckets] == [4, 8, 16, 32, 45]
    assert [int(level.max()) + 1 for level in buckets] == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("correct_duplicates", [False, True])
@pytest.mark.parametrize("heads_inside", [False, True])
@pytest.mark.parametrize("ends", [(70,), (1, 2, 70), (30, 64, 70, 200), (128, 131)], ids=str)
@pytest.mark.parametrize("own", [True, False], ids=["own buckets", "buckets of keys"])
def test_equals_one_op_a_level(
    own: bool, ends: tuple[int, ...], heads_inside: bool, correct_duplicates: bool, dropout: float
) -> None:
    """Output and gradients, of the tiled path and of the reference."""
    T = ends[-1]
    q, k, v, grad_out = make_inputs(T)
    if heads_inside:
        q, k, v, grad_out = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, grad_out))
    buckets = random_levels(ends)
    of_keys = buckets if own else random_levels(ends, seed=1)
    mask = padded_at_the_end(T, T // 3, 0)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    options: dict[str, Any] = {
        "chunk_length": 16,
        "correct_duplicates": correct_duplicates,
        "dropout": dropout,
        "dropout_seed": 5,
    }
    one_op_a_level = torch.cat(
        [
            lsh_attention(
                q[:, :, start:end],
                k[:, :, :end],
                v[:, :, :end],
                level[..., start:],
                k_level,
                key_padding_mask=mask[:, :end],
                backend="reference",
                **options,
            )
            for level, k_level, (start, end) in zip(
                buckets, of_keys, itertools.pairwise((0, *ends)), strict=True
            )
        ],
        dim=2,
    )
    expected = [one_op_a_level, *torch.autograd.grad(one_op_a_level, leaves, grad_out)]
    for backend in BACKENDS:
        out = lsh_attention_by_level(
            q, k, v, buckets, of_keys, key_padding_mask=mask, backend=backend, **options
        )
        actual = [out, *torch.autograd.grad(out, leaves, grad_out)]
        for a, e in zip(actual, expected, strict=True):
            assert (a - e).abs().max() < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
def test_levels_may_have_different_numbers_of_rounds(backend: Any) -> None:
    q, k, v, _ = make_inputs(40)
    first, second = random_levels((20, 40))
    out = lsh_attention_by_level(q, k, v, [first[:, :, :1], second], chunk_length=8, backend=backend)
    alone = lsh_attention_by_level(
        q[:, :, :20], k[:, :, :20], v[:, :, :20], [first[:, :, :1]], chunk_length=8, backend=backend
    )
    assert (out[:, :, :20] - alone).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([], r"levels must end at growing positions up to T=9, they end at \[\]"),
        ([(2, 2, 3, 8)], r"levels must end at growing positions up to T=9, they end at \[8\]"),
        ([(2, 2, 3, 9), (2, 2, 3, 9)], r"they end at \[9, 9\]"),
        ([(2, 2, 3, 5), (2, 2, 3, 4), (2, 2, 3, 9)], r"they end at \[5, 4, 9\]"),
        ([(2, 2, 3, 0), (2, 2, 3, 9)], r"they end at \[0, 9\]"),
        ([(2, 1, 3, 9)], r"q_buckets must be \[B=2, H=2, R, T=9\], got \[2, 1, 3, 9\]"),
        ([(2, 2, 9)], r"q_buckets must be \[B=2, H=2, R, T=9\], got \[2, 2, 9\]"),
    ],
)
def test_errors_in_levels(shapes: list[tuple[int, ...]], message: str) -> None:
    x = torch.zeros(2, 2, 9, 8)
    with pytest.raises(ValueError, match=message):
        lsh_attention_by_level(x, x, x, [torch.zeros(shape, dtype=torch.int64) for shape in shapes])


def test_as_many_queries_as_keys() -> None:
    x = torch.zeros(2, 2, 9, 8)
    with pytest.raises(ValueError, match="levels must end at growing positions up to T=4"):
        lsh_attention_by_level(x[:, :, :4], x, x, [torch.zeros(2, 2, 3, 9, dtype=torch.int64)])
