"""One token against a decode cache, by the compiled kernel (csrc/decode.h).

What `reformer.layers.decoding` and `bucket_cache` do in some thirty small operations, in one call. B rows,
H heads, D head size, L entries in the store of keys and values of a head.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.ops import cpu
from reformer.ops.cpu import DecodeProblem, library


@dataclass(frozen=True)
class Token:
    """What the layers project of a token, and where it stands.

    Attributes:
        q: queries float32 `[B, H, D]`, before rotary positions.
        k: keys.
        v: values.
        positions: int64 `[B]`.
        turn: cosines and signed sines float32 `[B, 1, D]` of rotary positions, or None for none.
        placed: what the buckets of the keys are found by, like q; None for the queries themselves, whose own
            keys then have the score -1e5.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    positions: Tensor
    turn: tuple[Tensor, Tensor] | None
    placed: Tensor | None = None

    def of(self, rows: slice) -> "Token":
        """Some rows of it."""
        turn = None if self.turn is None else (self.turn[0][rows], self.turn[1][rows])
        placed = None if self.placed is None else self.placed[rows]
        return Token(self.q[rows], self.k[rows], self.v[rows], self.positions[rows], turn, placed)


def runs_on(q: Tensor) -> bool:
    """Whether the kernel takes queries `[B, H, D]`."""
    return q.dtype == torch.float32 and cpu.unsupported(q) is None


def window_step(token: Token, kv: Tensor, *, chunk_length: int, chunks_before: int) -> Tensor:
    """Attention `[B, H, D]` to the chunk of the token so far and some chunks before it.

    Args:
        token: written to the store.
        kv: float32 `[B, H, L, 2D]`; the key at position p is entry p % L.
        chunk_length: tokens in a chunk.
        chunks_before: chunks seen, `L = (chunks_before + 1) * chunk_length`.
    """
    return _run(token, kv, chunk_length=chunk_length, chunks_before=chunks_before)


def bucket_step(
    token: Token,
    kv: Tensor,
    rings: Tensor,
    num_members: Tensor,
    born: Tensor,
    free: Tensor,
    *,
    next_free: int,
    clock: int,
    rotations: Tensor,
    factors: Sequence[int],
) -> Tensor:
    """Attention `[B, H, D]` to the last members of the query's bucket in each round.

    Args:
        token: its key is first written to the store, and to the ring of the key's bucket in each round.
        kv: float32 `[B, H, L, 2D]`.
        rings: int32 `[B, H, R, N, W]` of entries; member i of a bucket is at i % W.
        num_members: int32 `[B, H, R, N]` that each bucket has had.
        born: int32 `[B, H, L]`, when each entry was written.
        free: int32 `[B, H, L]` of entries.
        next_free: which of them the token gets.
        clock: what `born` becomes.
        rotations: float32 `[H, R, sum(factors) / 2, D]`.
        factors: 1, or even numbers.
    """
    R, N, W = rings.shape[2:]
    return _run(
        token,
        kv,
        R=R,
        num_rings=N,
        ring_width=W,
        clock=clock,
        free_entries=free.data_ptr() + next_free * free.element_size(),
        rings=rings.data_ptr(),
        num_members=num_members.data_ptr(),
        born=born.data_ptr(),
        rotations=rotations.data_ptr(),
        num_factors=len(factors),
        factors=ctypes.cast((ctypes.c_int64 * len(factors))(*factors), ctypes.c_void_p),
    )


def _run(token: Token, kv: Tensor, **others: int | ctypes.c_void_p) -> Tensor:
    q, k, v = token.q.contiguous(), token.k.contiguous(), token.v.contiguous()
    (B, H, D), out = q.shape, torch.empty_like(q)
    cos, sin = token.turn or (None, None)
    placed = None if token.placed is None else token.placed.contiguous()
    problem = DecodeProblem(
        B, H, D, kv.shape[2],
        positions=token.positions.data_ptr(),
        q=q.data_ptr(),
        k=k.data_ptr(),
        v=v.data_ptr(),
        placed=None if placed is None else placed.data_ptr(),
        cos=None if cos is None else cos.data_ptr(),
        sin=None if sin is None else sin.data_ptr(),
        kv=kv.data_ptr(),
        out=out.data_ptr(),
        **others,
    )  # fmt: skip
    library.run("decode", ctypes.byref(problem))
    return out
