"""What causal attention keeps of the tokens it has read, so that each new token costs the same.

B rows of a batch, H heads, D head size, S new tokens. Rows may have read different numbers of tokens;
a position counts the tokens of its own row.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import torch
from torch import Tensor
from typing_extensions import override

from reformer.layers.attention import FullSelfAttention, LocalSelfAttention, SelfAttention
from reformer.layers.positions import rotation_at, turn
from reformer.ops import local_attention

Kind = TypeVar("Kind", bound=SelfAttention)


class NextToken:
    """Where the next token of each row stands; what layers share of it is worked out once.

    Args:
        lengths: tokens that each row has read, which is the position of the next one.
        device: of the model.
    """

    def __init__(self, lengths: list[int], device: torch.device):
        self.lengths = lengths
        self.device = device
        self._rotations: dict[tuple[int, float, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._windows: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @cached_property
    def positions(self) -> Tensor:
        """int64 `[B]`."""
        return torch.tensor(self.lengths, device=self.device)

    def rotate(self, x: Tensor, theta: float | None) -> Tensor:
        """Rotary positions of `[B, H, D]`; none without theta."""
        if theta is None:
            return x
        key = (x.shape[-1], theta, x.dtype)
        if key not in self._rotations:
            self._rotations[key] = rotation_at(self.positions[:, None], *key)
        return turn(x, *self._rotations[key])

    def window(self, chunk_length: int, num_chunks_before: int) -> tuple[Tensor, Tensor]:
        """The place `[B]` of the token in a ring of chunks, and the places `[B, 1, M]` that it cannot see."""
        key = (chunk_length, num_chunks_before)
        if key not in self._windows:
            size = (num_chunks_before + 1) * chunk_length
            p = self.positions[:, None]
            held = p - (p - torch.arange(size, device=self.device)) % size
            first = (p // chunk_length - num_chunks_before).clamp_(min=0) * chunk_length
            self._windows[key] = self.positions % size, (held < first)[:, None]
        return self._windows[key]


class LayerCache(ABC, Generic[Kind]):
    """What one layer keeps: in `state` tensors, whose first dimension is the batch, in `numbers` the rest.

    Args:
        kind: the attention of the layer.
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, kind: Kind):
        self.kind = kind
        self.state: dict[str, Tensor] = {}
        self.numbers: dict[str, int] = {}

    @abstractmethod
    def extend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: list[int]) -> Tensor:
        """Read S new tokens at once.

        Args:
            q: queries `[B, H, S, D]`, as `SelfAttention.project` gives them.
            k: keys.
            v: values.
            mask: bool `[B, S]`, True where a real token is; real tokens come first.
            lengths: tokens that each row had read before.

        Returns:
            `[B, H, S, D]`: what the parallel forward over all tokens gives for the new ones.
        """

    @abstractmethod
    def step(self, q: Tensor, k: Tensor, v: Tensor, token: NextToken) -> Tensor:
        """Read one token of each row: `[B, H, D]` each; see `extend`."""

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
    """A ring of the last chunks: the key at position p is at place p % M, M the longest that is visible."""

    @override
    def extend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: list[int]) -> Tensor:
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
    def step(self, q: Tensor, k: Tensor, v: Tensor, token: NextToken) -> Tensor:
        kind, kv = self.kind, self.state["kv"]
        theta, D = kind.shape.rope_theta, q.shape[-1]
        place, hidden = token.window(kind.chunk_length, kind.num_chunks_before)
        new = torch.cat([token.rotate(k, theta), v], dim=-1)
        if len(place) == 1:
            kv[:, :, token.lengths[0] % kv.shape[2]] = new
        else:
            kv[torch.arange(len(place), device=kv.device), :, place] = new
        return attend_one(token.rotate(q, theta), kv[..., :D], kv[..., D:], hidden)


class FullCache(LayerCache[FullSelfAttention]):
    """All keys and values, in the order in which they came; it grows with every token."""

    @override
    def extend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, lengths: list[int]) -> Tensor:
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
    def step(self, q: Tensor, k: Tensor, v: Tensor, token: NextToken) -> Tensor:
        column, theta, D = self.numbers["columns"], self.kind.shape.rope_theta, q.shape[-1]
        if column == self.state["kv"].shape[2]:
            self.state = {
                "kv": longer(self.state["kv"], 2, column + max(256, column // 2)),
                "real": longer(self.state["real"], 1, column + max(256, column // 2)),
            }
        kv, real = self.state["kv"], self.state["real"]
        kv[:, :, column] = torch.cat([token.rotate(k, theta), v], dim=-1)
        real[:, column] = True
        self.numbers["columns"] = column + 1
        kv, hidden = kv[:, :, : column + 1], ~real[:, None, : column + 1]
        return attend_one(token.rotate(q, theta), kv[..., :D], kv[..., D:], hidden)


def attend_one(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """Attention of one query `[B, H, D]` a head over `[B, H, M, D]`, but for `hidden` `[B, 1, M]`."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    scores = (k.to(dtype) @ q.to(dtype)[..., None]).squeeze(-1).masked_fill_(hidden, -torch.inf)
    return (scores.softmax(-1)[..., None, :] @ v.to(dtype)).squeeze(-2).to(q.dtype)


def longer(x: Tensor, dim: int, size: int, fill: int = 0) -> Tensor:
    """A copy with a larger dimension, zeros or another number behind what was there."""
    shape = list(x.shape)
    shape[dim] = size
    # Zeros come without a page being touched; a store much of which stays empty then takes no memory.
    whole = x.new_zeros(shape) if fill == 0 else x.new_full(shape, fill)
    whole.narrow(dim, 0, x.shape[dim]).copy_(x)
    return whole
