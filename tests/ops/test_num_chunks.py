"""Window "chunk" with a number of chunks that is given: some of them are empty, and all lie on a circle."""

import pytest
import torch
from torch import Tensor

from reformer.ops import lsh_attention
from reformer.ops.reference import chunk_counts

B, H, R, T, D, C = 2, 2, 3, 44, 8, 8


def _inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, H, T, D, generator=generator, dtype=dtype) for _ in range(3))
    buckets = torch.randint(4, (B, H, R, T), generator=generator)
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, 19:] = False
    return q, k, v, buckets, mask


def test_one_row_by_hand() -> None:
    """Five keys in chunks of two, on a circle of four chunks: the last one is empty."""
    buckets = torch.zeros(1, 1, 1, 5, dtype=torch.int64)
    mask = torch.ones(1, 5, dtype=torch.bool)

    def seen(num_chunks: int | None, before: int) -> list[list[int]]:
        counts = chunk_counts(
            buckets, mask, chunk_length=2, before=before, after=0, causal=False, num_chunks=num_chunks
        )
        return counts[0, 0, 0].tolist()

    assert seen(None, 1)[0] == [1, 1, 0, 0, 1]
    assert seen(4, 1)[0] == [1, 1, 0, 0, 0]  # the chunk before the first is empty
    assert seen(4, 2)[0] == [1, 1, 0, 0, 1]
    assert seen(4, 1)[4] == [0, 0, 1, 1, 1]
    assert seen(3, 3)[0] == [2, 2, 1, 1, 1]  # once around


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("num_chunks", "before", "after"), [(6, 1, 0), (7, 1, 1), (9, 2, 1), (6, 7, 0)])
def test_tiled_equals_the_reference(
    num_chunks: int, before: int, after: int, masked: bool, causal: bool
) -> None:
    q, k, v, buckets, mask = _inputs()
    results = []
    for backend in ("reference", "torch"):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        output = lsh_attention(
            *leaves,
            buckets,
            chunk_length=C,
            num_chunks_before=before,
            num_chunks_after=after,
            window="chunk",
            num_chunks=num_chunks,
            causal=causal,
            key_padding_mask=mask if masked else None,
            backend=backend,  # type: ignore[arg-type]
        )
        results.append([output, *torch.autograd.grad(output.sin().sum(), leaves)])
    for ours, wanted in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)


def test_auto_takes_the_compiled_kernels_only_where_no_chunk_is_empty() -> None:
    q, k, v, buckets, _ = _inputs(torch.float32)
    full = -(-T // C)

    def run(backend: str, num_chunks: int | None) -> Tensor:
        return lsh_attention(
            *(q, k, v, buckets),
            chunk_length=C,
            window="chunk",
            num_chunks=num_chunks,
            backend=backend,  # type: ignore[arg-type]
        )

    assert torch.equal(run("auto", full), run("auto", None))
    assert torch.equal(run("auto", full + 1), run("torch", full + 1))
    with pytest.raises(NotImplementedError, match='backend "cpu" cannot run here'):
        run("cpu", full + 1)


def test_values_that_cannot_be() -> None:
    q, k, v, buckets, _ = _inputs()
    with pytest.raises(ValueError, match="must hold all 44 keys in chunks of 8: at least 6, got 5"):
        lsh_attention(q, k, v, buckets, chunk_length=C, window="chunk", num_chunks=5)
    with pytest.raises(ValueError, match='num_chunks needs window "chunk"'):
        lsh_attention(q, k, v, buckets, chunk_length=C, num_chunks=6)
