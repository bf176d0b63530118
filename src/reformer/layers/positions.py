"""Where a token stands: axial, learned or rotary positions, at any length."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from reformer.layers.randomness import derive, dropout
from reformer.ops.large_tensors import new_empty
from reformer.ops.transforms import inside_transform
from reformer.ops.windows import Layout

_POSITIONS_AT_ONCE = 1 << 14  # whose angles are computed, in float64


class AxialPositionEmbeddings(nn.Module):
    """Position p of a grid is the row embedding of p // columns beside the column embedding of p % columns.

    n0 + n1 vectors serve n0 * n1 positions (Kitaev et al. 2020, appendix; Ho et al. 2019). Any length up
    to the product is served: the grid is sliced.

    Args:
        shape: numbers of rows and columns (n0, n1).
        dims: features of the two embeddings; together the model's.
        dropout: probability with which a row's or column's feature is dropped, for all its positions.
    """

    def __init__(self, shape: Sequence[int], dims: Sequence[int], *, dropout: float):
        super().__init__()
        (n0, n1), (d0, d1) = shape, dims
        self.shape = (n0, n1)
        self.dropout = dropout
        self.weights = nn.ParameterList(
            [nn.Parameter(torch.ones(n0, 1, d0)), nn.Parameter(torch.ones(1, n1, d1))]
        )

    def forward(self, x: Tensor, seed: int | None) -> Tensor:
        """Add to vectors `[B, T, d]` what they get for their positions.

        Raises:
            ValueError: the grid has fewer positions.
        """
        n0, n1 = self.shape
        length = x.shape[1]
        if length > n0 * n1:
            raise ValueError(
                f"{length} positions do not fit axial_pos_shape {self.shape}, which holds {n0 * n1}; "
                'give it a larger shape, or position_embedding_type "rotary" or "none"'
            )
        rows, columns = self.weights[0][: math.ceil(length / n1)], self.weights[1]
        rows = dropout(rows, self.dropout, None if seed is None else derive(seed, 0))[:, 0]
        columns = dropout(columns, self.dropout, None if seed is None else derive(seed, 1))[0]
        if torch.compiler.is_compiling() or inside_transform():
            grid = torch.cat([rows[:, None].expand(-1, n1, -1), columns.expand(len(rows), -1, -1)], dim=-1)
            return x + grid.flatten(0, 1)[:length]
        return _AddGrid.apply(x, rows, columns)  # type: ignore[no-any-return]

    def at(self, positions: Tensor) -> Tensor:
        """Embeddings `[..., d]` of positions int64 `[...]` below n0 * n1, in evaluation."""
        n1 = self.shape[1]
        rows, columns = self.weights[0][:, 0], self.weights[1][0]
        return torch.cat([rows[positions // n1], columns[positions % n1]], dim=-1)


class _AddGrid(torch.autograd.Function):
    """x `[B, T, d]` plus rows `[n, d0]` beside columns `[n1, d1]` of a grid, which is never made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.x_dtype, ctx.sizes = x.dtype, (rows.shape, columns.shape)
        out = new_empty(x, x.shape, torch.promote_types(x.dtype, rows.dtype))
        d0 = rows.shape[1]
        for tokens, of_rows, width in _whole_rows_and_rest(x.shape[1], len(columns)):
            of_x, of_out = (t[:, tokens].unflatten(1, (-1, width)) for t in (x, out))
            torch.add(of_x[..., :d0], rows[of_rows, None], out=of_out[..., :d0])
            torch.add(of_x[..., d0:], columns[:width], out=of_out[..., d0:])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grad_rows, grad_columns = (grad.new_zeros(size) for size in ctx.sizes)
        d0 = grad_rows.shape[1]
        for tokens, of_rows, width in _whole_rows_and_rest(grad.shape[1], len(grad_columns)):
            of_grad = grad[:, tokens].unflatten(1, (-1, width))
            grad_rows[of_rows] += of_grad[..., :d0].sum((0, 2))
            grad_columns[:width] += of_grad[..., d0:].sum((0, 1))
        return grad.to(ctx.x_dtype), grad_rows, grad_columns


def _whole_rows_and_rest(length: int, width: int) -> Iterator[tuple[slice, slice, int]]:
    """Positions of the whole rows of a grid, those rows, their width; then of a last one that is shorter."""
    whole, rest = divmod(length, width)
    if whole:
        yield slice(0, whole * width), slice(0, whole), width
    if rest:
        yield slice(whole * width, length), slice(whole, whole + 1), rest


class LearnedPositionEmbeddings(nn.Module):
    """A vector for each position.

    Args:
        max_positions: how many.
        hidden_size: features d.
        dropout: probability of dropping a feature.
    """

    def __init__(self, max_positions: int, hidden_size: int, *, dropout: float):
        super().__init__()
        self.embedding = nn.Embedding(max_positions, hidden_size)
        self.dropout = dropout

    def forward(self, x: Tensor, seed: int | None) -> Tensor:
        """Add to vectors `[B, T, d]` those of their positions.

        Raises:
            ValueError: there are fewer.
        """
        length = x.shape[1]
        if length > self.embedding.num_embeddings:
            raise ValueError(
                f"{length} positions are more than max_position_embeddings={self.embedding.num_embeddings}"
            )
        return x + dropout(self.embedding.weight[:length], self.dropout, seed)

    def at(self, positions: Tensor) -> Tensor:
        """Embeddings `[..., d]` of positions int64 `[...]` below max_positions, in evaluation."""
        return self.embedding(positions)


def rotate(x: Tensor, theta: float) -> Tensor:
    """Turn pairs of features by angles that grow with position (rotary embeddings: Su et al. 2021).

    Feature i is paired with i + D/2 and turned by `position * theta^(-2i/D)`.

    Args:
        x: `[B, H, T, D]`, D even.
        theta: the slowest pair turns once in about 2 pi theta positions.

    Returns:
        `[B, H, T, D]`.
    """
    return _Rotate.apply(x, theta, 1)


def rotation_at(positions: Tensor, head_size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[..., D/2]` of the angles of `rotate` at positions `[...]`."""
    angle = angles_at(positions, head_size, theta)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def angles_at(positions: Tensor, head_size: int, theta: float) -> Tensor:
    """The angles of `rotate` at positions `[...]`: float64 `[..., D/2]`."""
    return positions[..., None] * _frequencies(head_size // 2, theta, positions.device)


@lru_cache(maxsize=8)
def _frequencies(half: int, theta: float, device: torch.device) -> Tensor:
    return theta ** (-torch.arange(half, device=device, dtype=torch.float64) / half)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """What `rotate` does to `[..., D]`, with angles from `rotation_at`."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class _Rotate(torch.autograd.Function):
    """Turn by the angles times `direction`; the gradient is turned back. Keeps nothing."""

    @staticmethod
    def forward(x: Tensor, theta: float, direction: int) -> Tensor:
        is_ordinary = type(x) is Tensor and not torch.compiler.is_compiling()
        turns = _cached_turns if is_ordinary else _turns
        turned = Layout.like(x, x.shape[3], new_empty) if is_ordinary else torch.empty_like(x)
        for start in range(0, x.shape[-2], _POSITIONS_AT_ONCE):
            block = slice(start, min(start + _POSITIONS_AT_ONCE, x.shape[-2]))
            length = block.stop - start
            # Lengths are rounded up so that many share a table.
            cos, sin = turns(start, 1 << (length - 1).bit_length(), x.shape[-1], theta, x.dtype, x.device)
            of_x, of_turned = x[..., block, :], turned[..., block, :]
            first, second = of_x.chunk(2, dim=-1)
            torch.cat([second, first], dim=-1, out=of_turned)
            of_turned.mul_(sin[:length] if direction > 0 else -sin[:length]).addcmul_(of_x, cos[:length])
        return turned

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.theta, ctx.direction = inputs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Rotate.apply(grad, ctx.theta, -ctx.direction), None, None


def _turns(
    start: int, length: int, head_size: int, theta: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """What features, and those that they are paired with, are multiplied by at positions from `start` on."""
    half = head_size // 2
    frequency = theta ** (-torch.arange(half, device=device, dtype=torch.float64) / half)
    angle = torch.arange(start, start + length, device=device, dtype=torch.float64)[:, None] * frequency
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)
    return torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)


_cached_turns = lru_cache(maxsize=2)(_turns)  # of up to _POSITIONS_AT_ONCE positions each
