"""One bucket and a window over everything is full attention (DESIGN.md, section 3, point 2)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reformer.ops import local_attention, lsh_attention

B, H, T, D = 2, 2, 70, 16
BACKENDS = ["reference", "torch"]
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def output_and_gradients(attention: Attention, num_queries: int = T) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((B, H, num_queries, D), (B, H, T, D), (B, H, T, D))
    q, k, v = (torch.randn(s, generator=g, dtype=torch.float64).requires_grad_() for s in shapes)
    grad_out = torch.randn(shapes[0], generator=g, dtype=torch.float64)
    out = attention(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), grad_out)]


def full_attention(causal: bool, *, penalize_self: bool) -> Attention:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        allowed = torch.ones(q.shape[2], T, dtype=torch.bool)
        if causal:
            allowed = allowed.tril(T - q.shape[2])
        mask = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill(~allowed, -torch.inf)
        if penalize_self:
            # Adding this replaces the diagonal of the scores by -1e5.
            own = torch.eye(T, dtype=torch.bool)[T - q.shape[2] :]
            mask = mask + torch.where(own, -1e5 - q @ k.mT, 0.0)
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)

    return attention


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    for name, a, e in zip(("out", "q", "k", "v"), actual, expected, strict=True):
        assert (a - e).abs().max() < 1e-10, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("num_rounds", [1, 3])
@pytest.mark.parametrize("penalize_self", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_queries", [T, 20])
def test_bucket_window(
    backend: str, num_rounds: int, penalize_self: bool, causal: bool, num_queries: int
) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return lsh_attention(
            q,
            k,
            v,
            torch.zeros(B, H, num_rounds, num_queries, dtype=torch.int64),
            torch.zeros(B, H, num_rounds, T, dtype=torch.int64),
            chunk_length=T,
            num_chunks_after=1,
            causal=causal,
            penalize_self=penalize_self,
            backend=backend,
        )

    expected = output_and_gradients(full_attention(causal, penalize_self=penalize_self), num_queries)
    assert_same(output_and_gradients(attention, num_queries), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("chunk_length", "before", "after"), [(T, 0, 0), (T + 9, 0, 0), (T // 2, 1, 0)])
@pytest.mark.parametrize("penalize_self", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_chunk_window(
    backend: str, chunk_length: int, before: int, after: int, penalize_self: bool, causal: bool
) -> None:
    """Whatever the buckets: with two chunks, the look-back of the first wraps around to the last."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return lsh_attention(
            q,
            k,
            v,
            torch.randint(5, (B, H, 1, T), generator=torch.Generator().manual_seed(0)),
            chunk_length=chunk_length,
            num_chunks_before=before,
            num_chunks_after=after,
            window="chunk",
            causal=causal,
            penalize_self=penalize_self,
            backend=backend,
        )

    expected = output_and_gradients(full_attention(causal, penalize_self=penalize_self))
    assert_same(output_and_gradients(attention), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("num_queries", [T, 20])
def test_local_window(backend: str, causal: bool, num_queries: int) -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return local_attention(q, k, v, chunk_length=T, num_chunks_before=0, causal=causal, backend=backend)

    expected = output_and_gradients(full_attention(causal, penalize_self=False), num_queries)
    assert_same(output_and_gradients(attention, num_queries), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_correct_duplicates_makes_many_wide_rounds_full_attention(backend: str) -> None:
    """Buckets differ from round to round, but all are seen: each key counts once."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return lsh_attention(
            q,
            k,
            v,
            torch.randint(5, (B, H, 4, T), generator=torch.Generator().manual_seed(0)),
            chunk_length=T,
            num_chunks_before=2,  # three chunks of four: every key thrice
            window="chunk",
            causal=False,
            penalize_self=False,
            correct_duplicates=True,
            backend=backend,
        )

    assert_same(
        output_and_gradients(attention), output_and_gradients(full_attention(False, penalize_self=False))
    )
