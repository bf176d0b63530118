"""What causal attention keeps of the tokens it has read, so that each new token costs the same.

B rows of a batch, H heads, D head size, S new tokens. Rows may have read different numbers of tokens;
a position counts the tokens of its own row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from reformer.layers.attention import FullSelfAttention, LocalSelfAttention, SelfAttention
from reformer.layers.positions import angles_at, rotation_at, turn
from reformer.ops import cpu_decoding, local_attention

Kind = TypeVar("Kind", bound=SelfAttention)


class NextToken:
    """Where the next token of each row stands; what layers share of it is worked out once.

    Args:
        lengths: tokens that each row has read, which is the position of the next one.
        device: of the model.
        positions: the same as a tensor int64 `[B]`, where one is there.
    """

    def __init__(self, lengths: list[int], device: torch.device, positions: Tensor | None = None):
        self.lengths = lengths
        self.device = device
        if positions is not None:
            self.positions = positions
        self._rotations: dict[tuple[int, float, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._windows: dict[tuple[int, int, torch.dtype], tuple[Tensor, Tensor]] = {}

    @cached_property
    def positions(self) -> Tensor:
        """int64 `[B]`."""
        return torch.tensor(self.lengths, device=self.device)

    def turn(self, D: int, theta: float | None, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Cosines and signed sines `[B, 1, D]` of rotary positions; None without theta."""
        if theta is None:
            return None
        key = (D, theta, dtype)
        if key not in self._rotations:
            angle = angles_at(self.positions[:, None], D, theta)
            sin = angle.sin()
            self._rotations[key] = (
                torch.cat([angle, angle], dim=-1).cos_().to(dtype),
                torch.cat([-sin, sin], dim=-1).to(dtype),
            )
        return self._rotations[key]

    def compiled(self, q: Tensor, k: Tensor, v: Tensor, theta: float | None) -> cpu_decoding.Token:
        """Queries, keys and values `[B, H, D]` of a layer, for the compiled kernel."""
        return cpu_decoding.Token(q, k, v, self.positions, self.turn(q.shape[-1], theta, q.dtype))

    def rotate(self, q: Tensor, k: Tensor, theta: float | None) -> tuple[Tensor, Tensor]:
        """Rotary positions of queries and keys `[B, H, D]`, both at once; none without theta."""
        turn = self.turn(q.shape[-1], theta, q.dtype)
        if turn is None:
            return q, k
        D, (cos, sin) = q.shape[-1], turn
        both = torch.stack([q, k])
        q, k = torch.addcmul(both * cos, both.roll(D // 2, -1), sin).unbind()
        return q, k

    def window(self, chunk_length: int, num_chunks_before: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The place `[B]` of the token in a ring of M places, and what to add to scores `[B, 1, 1, M]`."""
        key = (chunk_length, num_chunks_before, dtype)
        if key not in self._windows:
            size = (num_chunks_before + 1) * chunk_length
            place = self.positions % size
            rows = torch.where(self.positions < size, place, size + place)
            biases = _window_biases(chunk_length, num_chunks_before, dtype, self.device)
            self._windows[key] = place, biases.index_select(0, rows)[:, None, None]
        return self._windows[key]


class LayerCache(ABC, Generic[Kind]):
    """What one layer keeps: in `state` tensors, whose first dimension is the batch, in `numbers` the rest.

    Args:
        kind: the attention of the layer.
    """

    is_compileable = False
    is_croppable = False
    can_replay = False  # whether the operations of `step` are the same for each token

    def __init__(self, kind: Kind):
        self.kind = kind
        self.state: dict[str, Tensor] = {}
        self.numbers: dict[str, int] = {}

    @abstractmethod
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        """Read S new tokens at once.

        Args:
            projections: `[B, H, S, D]` each, as `SelfAttention.project` gives them.
            mask: bool `[B, S]`, True where a real token is; real tokens come first.
            lengths: tokens that each row had read before.

        Returns:
            `[B, H, S, D]`: what the parallel forward over all tokens gives for the new ones.
        """

    def before_step(self) -> None:
        """What the next token asks for now and then, such as more memory."""

    @abstractmethod
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        """Read one token of each row: `[B, H, D]` each; see `extend`."""

    def after_step(self, lengths: list[int]) -> None:
        """Count the token, now that it is among those that each row has read."""

    def tensors(self) -> list[Tensor]:
        """All that `step` reads or writes; while they are the same, so are its operations."""
        return list(self.state.values())

    def restored(self, lengths: list[int]) -> None:
        """Called when rows or the whole state have been replaced: work out what follows from them."""

    def map_rows(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor by what a function makes of it."""
        self.state = {name: change(x) for name, x in self.state.items()}

    def _rotated(self, x: Tensor, lengths: list[int]) -> Tensor:
        """Rotary positions of new tokens `[B, H, S, D]`."""
        theta = self.kind.shape.rope_theta
        if theta is None:
            return x
        start = torch.tensor(lengths, device=x.device)[:, None, None]
        positions = start + torch.arange(x.shape[2], device=x.device)
        return turn(x, *rotation_at(positions, x.shape[-1], theta, x.dtype))


class WindowCache(LayerCache[LocalSelfAttention]):
    """A ring of the last chunks: the key at position p is at place p % M, M the longest that is visible.

    Where chunks are cut as transformers cuts them (`as_transformers`), the parallel forward over fewer chunks
    than the window looks back sees some of them twice; here each is seen once.
    """

    can_replay = True

    @override
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        q, k, v = projections
        kind, (B, _, S, D) = self.kind, q.shape
        C, device = kind.chunk_length, q.device
        size = (kind.num_chunks_before + 1) * C
        q, k = self._rotated(q, lengths), self._rotated(k, lengths)
        kv = torch.cat([k, v], dim=-1)
        real = torch.ones(B, S, dtype=torch.bool, device=device) if mask is None else mask
        read = torch.tensor(lengths, device=device)[:, None]
        first = torch.zeros_like(read)
        if self.state:
            # In the order of positions, beginning with a chunk, so that chunks are those of the whole.
            first = (read // C - kind.num_chunks_before).clamp(min=0) * C
            position = read - size + torch.arange(size, device=device)
            place = (position % size)[:, None, :, None].expand(-1, kv.shape[1], -1, 2 * D)
            kv = torch.cat([self.state["kv"].gather(2, place), kv], dim=2)
            real = torch.cat([position >= first, real], dim=1)
        mixed = local_attention(
            q,
            kv[..., :D].contiguous(),
            kv[..., D:].contiguous(),
            chunk_length=C,
            num_chunks_before=kind.num_chunks_before,
            key_padding_mask=None if bool(real.all()) else real,
        )
        count = real.sum(1, keepdim=True)
        last = first + count - 1
        held = last - (last - torch.arange(size, device=device)) % size  # the position that each place gets
        column = (~real).to(torch.uint8).argsort(dim=1, stable=True)
        column = column.gather(1, (held - first).clamp(0, real.shape[1] - 1))
        self.state["kv"] = kv.gather(2, column[:, None, :, None].expand(-1, kv.shape[1], -1, 2 * D))
        return mixed

    @override
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        q, k, v = projections
        kind, kv = self.kind, self.state["kv"]
        theta, D = kind.shape.rope_theta, q.shape[-1]
        if cpu_decoding.runs_on(q):
            return cpu_decoding.window_step(
                token.compiled(q, k, v, theta),
                kv,
                chunk_length=kind.chunk_length,
                chunks_before=kind.num_chunks_before,
            )
        place, bias = token.window(kind.chunk_length, kind.num_chunks_before, _wide(q.dtype))
        q, k = token.rotate(q, k, theta)
        new = torch.cat([k, v], dim=-1)
        if len(place) == 1:
            kv.index_copy_(2, place, new[:, :, None])
        else:
            kv[torch.arange(len(place), device=kv.device), :, place] = new
        return _attend_one(q, kv[..., :D], kv[..., D:], bias)


class FullCache(LayerCache[FullSelfAttention]):
    """All keys and values, in the order in which they came; it grows with every token."""

    @override
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        q, k, v = projections
        (B, _, S, D), device = q.shape, q.device
        q, k = self._rotated(q, lengths), self._rotated(k, lengths)
        old = self.numbers.get("columns", 0)
        real = torch.ones(B, S, dtype=torch.bool, device=device) if mask is None else mask
        kv = torch.cat([k, v], dim=-1)
        if self.state:
            kv = torch.cat([self.state["kv"][:, :, :old], kv], dim=2)
            real = torch.cat([self.state["real"][:, :old], real], dim=1)
        mixed = local_attention(
            q,
            kv[..., :D].contiguous(),
            kv[..., D:].contiguous(),
            chunk_length=old + S,
            num_chunks_before=0,
            key_padding_mask=None if bool(real.all()) else real,
        )
        self.numbers["columns"] = old + S
        self.state = {"kv": kv, "real": real}
        return mixed

    @override
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        q, k, v = projections
        column, theta, D = self.numbers["columns"], self.kind.shape.rope_theta, q.shape[-1]
        if column == self.state["kv"].shape[2]:
            self.state = {
                "kv": longer(self.state["kv"], 2, column + max(256, column // 2)),
                "real": longer(self.state["real"], 1, column + max(256, column // 2)),
            }
        kv, real = self.state["kv"], self.state["real"]
        q, k = token.rotate(q, k, theta)
        kv[:, :, column] = torch.cat([k, v], dim=-1)
        real[:, column] = True
        self.numbers["columns"] = column + 1
        kv, bias = kv[:, :, : column + 1], _excluding(~real[:, : column + 1], _wide(q.dtype))
        return _attend_one(q, kv[..., :D], kv[..., D:], bias)


def _attend_one(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Attention of one query `[B, H, D]` a head over `[B, H, M, D]`, with `bias` `[B, 1, 1, M]` on scores."""
    dtype = bias.dtype
    mixed = F.scaled_dot_product_attention(
        q.to(dtype)[:, :, None], k.to(dtype), v.to(dtype), attn_mask=bias, scale=1.0
    )
    return mixed.squeeze(2).to(q.dtype)


@lru_cache(maxsize=8)
def _window_biases(
    chunk_length: int, num_chunks_before: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """What to add to scores of a ring of M places: `[2M, M]`, of positions below M, then of later ones."""
    size = (num_chunks_before + 1) * chunk_length
    p = torch.arange(2 * size, device=device)[:, None]
    held = p - (p - torch.arange(size, device=device)) % size  # the position that each place holds
    first = (p // chunk_length - num_chunks_before).clamp_(min=0) * chunk_length
    return _excluding(held < first, dtype).flatten(0, 2)


def _excluding(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What keeps keys bool `[B, M]` from being seen when added to scores: `[B, 1, 1, M]`."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)[
        :, None, None
    ]


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def longer(x: Tensor, dim: int, size: int, fill: int = 0) -> Tensor:
    """A copy with a larger dimension, zeros or another number behind what was there."""
    shape = list(x.shape)
    shape[dim] = size
    whole = x.new_zeros(shape) if fill == 0 else x.new_full(shape, fill)
    whole.narrow(dim, 0, x.shape[dim]).copy_(x)
    return whole
