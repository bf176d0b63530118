"""Axial, learned and rotary positions."""

import pytest
import torch

from reformer.layers.positions import AxialPositionEmbeddings, LearnedPositionEmbeddings, rotate


def _positions(embeddings: torch.nn.Module, length: int, seed: int | None) -> torch.Tensor:
    """What `[length, 7]` zeros get; 3 features for learned ones."""
    features = 7 if isinstance(embeddings, AxialPositionEmbeddings) else 3
    found: torch.Tensor = embeddings(torch.zeros(1, length, features), seed)
    return found[0]


def _axial(dropout: float = 0.0) -> AxialPositionEmbeddings:
    torch.manual_seed(0)
    embeddings = AxialPositionEmbeddings((5, 7), (3, 4), dropout=dropout)
    for weight in embeddings.weights:
        torch.nn.init.normal_(weight)
    return embeddings


@pytest.mark.parametrize("length", [1, 2, 6, 7, 8, 13, 20, 34, 35])
def test_axial_embeddings_are_a_row_beside_a_column(length: int) -> None:
    embeddings = _axial()
    found = _positions(embeddings, length, None)
    assert found.shape == (length, 7)
    rows, columns = embeddings.weights
    for p in range(length):
        assert torch.equal(found[p, :3], rows[p // 7, 0])
        assert torch.equal(found[p, 3:], columns[0, p % 7])


def test_axial_gradients_reach_what_was_used_and_no_more() -> None:
    embeddings = _axial()
    _positions(embeddings, 10, None).sum().backward()
    rows, columns = (weight.grad for weight in embeddings.weights)
    assert rows[:, 0, 0].tolist() == [7, 3, 0, 0, 0]  # type: ignore[index]
    assert columns[0, :, 0].tolist() == [2, 2, 2, 1, 1, 1, 1]  # type: ignore[index]


@pytest.mark.parametrize("length", [3, 7, 20, 35])
def test_axial_positions_are_added_with_the_gradients_of_a_sum(length: int) -> None:
    embeddings = _axial().double()
    x = torch.randn(2, length, 7, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, length, 7, dtype=torch.float64)
    added = embeddings(x, None)
    p = torch.arange(length)
    expected = x + embeddings.at(p)
    torch.testing.assert_close(added, expected, rtol=0, atol=0)
    inputs = (x, *embeddings.weights)
    for found, wanted in zip(
        torch.autograd.grad(added, inputs, grad), torch.autograd.grad(expected, inputs, grad), strict=True
    ):
        torch.testing.assert_close(found, wanted)
    with_transform = torch.func.vmap(lambda row: embeddings(row[None], None)[0])(x)
    torch.testing.assert_close(with_transform, expected, rtol=0, atol=0)


def test_axial_dropout_drops_features_of_whole_rows_and_columns() -> None:
    embeddings = _axial(dropout=0.5)
    found, again, other = (_positions(embeddings, 35, seed) for seed in (1, 1, 2))
    assert torch.equal(found, again)
    assert not torch.equal(found, other)
    grid = found.view(5, 7, 7)
    assert (grid[:, :, :3] == grid[:, :1, :3]).all()
    assert (grid[:, :, 3:] == grid[:1, :, 3:]).all()
    ratio = grid / _positions(embeddings, 35, None).view(5, 7, 7)
    torch.testing.assert_close(ratio, ratio.round())
    assert set(ratio.round().unique().tolist()) == {0.0, 2.0}


def test_too_many_positions_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"36 positions do not fit axial_pos_shape \(5, 7\), which holds 35"):
        _positions(_axial(), 36, None)
    learned = LearnedPositionEmbeddings(4, 3, dropout=0.0)
    with pytest.raises(ValueError, match="5 positions are more than max_position_embeddings=4"):
        _positions(learned, 5, None)


def test_learned_embeddings() -> None:
    learned = LearnedPositionEmbeddings(10, 3, dropout=0.5)
    assert torch.equal(_positions(learned, 6, None), learned.embedding.weight[:6])
    assert torch.equal(_positions(learned, 6, 1), _positions(learned, 6, 1))
    assert (_positions(learned, 6, 1) == 0).any()


class TestRotary:
    def test_scores_depend_on_distance_alone(self) -> None:
        q, k = torch.randn(2, 1, 1, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        q, k = (rotate(x.expand(1, 1, 300, 16).contiguous(), 100.0)[0, 0] for x in (q, k))
        scores = q @ k.T
        for distance in (-250, -1, 0, 3, 100):
            diagonal = scores.diagonal(distance)
            torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-10, atol=1e-10)
        assert not torch.isclose(scores[5, 5], scores[5, 6])

    def test_is_a_rotation_that_begins_with_the_identity(self) -> None:
        x = torch.randn(2, 3, 50, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        turned = rotate(x, 10.0)
        assert torch.equal(turned[:, :, 0], x[:, :, 0])
        torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
        assert not torch.isclose(turned[:, :, 1:], x[:, :, 1:]).all(-1).any()

    def test_angles(self) -> None:
        """Feature i is turned with i + D/2 by p * theta^(-2i/D)."""
        x = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
        x[..., 1] = 1
        turned = rotate(x, 100.0)[0, 0]
        angle = torch.arange(4, dtype=torch.float64) / 10
        torch.testing.assert_close(turned[:, 1], angle.cos())
        torch.testing.assert_close(turned[:, 3], angle.sin())
        assert not turned[:, [0, 2]].any()

    def test_far_positions_are_exact_in_float32(self) -> None:
        x = torch.randn(1, 1, 1 << 17, 8, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(rotate(x, 10000.0), rotate(x.double(), 10000.0).float(), rtol=0, atol=2e-6)

    def test_gradient(self) -> None:
        x = torch.randn(1, 2, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert torch.autograd.gradcheck(lambda x: rotate(x, 50.0), x.requires_grad_())

    def test_keeps_the_layout_of_split_heads(self) -> None:
        x = torch.randn(2, 50, 24).unflatten(-1, (3, 8)).transpose(1, 2)
        assert rotate(x, 10.0).stride() == x.stride()
        torch.testing.assert_close(rotate(x, 10.0), rotate(x.contiguous(), 10.0))

    def test_blocks_of_positions_join(self) -> None:
        x = torch.randn(1, 1, 40_000, 8, dtype=torch.float64)
        shifted = rotate(x[:, :, -30_000:], 100.0)
        scores, again = rotate(x, 100.0)[0, 0, -30_000:], shifted[0, 0]
        products = (scores[:-1] * scores[1:]).sum(-1)
        torch.testing.assert_close(products, (again[:-1] * again[1:]).sum(-1))
