"""Decoding a token by replaying the operations of another one, as CUDA graphs do.

A token takes hundreds of small operations, and on a GPU launching them takes longer than they do. They are
the same for every token, on the same tensors, until a cache makes room or goes on to its next level.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from reformer.layers.decoding import NextToken

Step = Callable[[Tensor, NextToken], Tensor]
Recorder = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def cuda_graph(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record what a function does on a GPU, without doing it; a call of the result does it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class Replay:
    """Steps that are recorded when two tokens in a row have had the same tensors, and replayed from then on.

    Args:
        record: makes of a function without arguments one that repeats its operations, on the same tensors; it
            leaves them as they were.
    """

    def __init__(self, record: Recorder = cuda_graph):
        self.record = record
        self.num_recorded = 0
        self._tensors: list[Tensor] = []  # kept, so that no other takes their place in memory
        self._x, self._positions = torch.empty(0), torch.empty(0)
        self._replay: Callable[[], Tensor] | None = None

    def __call__(self, step: Step, x: Tensor, lengths: list[int], tensors: list[Tensor]) -> Tensor:
        """What `step(x, token)` gives; x and the result are `[B, ...]`.

        Args:
            step: does the same with every token but for x, the positions and what is in `tensors`.
            x: of the token of each row.
            lengths: tokens that each row has read.
            tensors: all that the step reads and writes.
        """
        if not self._are_held(tensors) or x.shape != self._x.shape:
            self._tensors, self._replay = tensors, None
            self._x, self._positions = x.clone(), torch.tensor(lengths, device=x.device)
            return step(x, NextToken(lengths, x.device))
        self._x.copy_(x)
        self._positions.copy_(torch.tensor(lengths))
        if self._replay is None:
            token = NextToken(lengths, x.device, self._positions)
            self._replay = self.record(lambda: step(self._x, token))
            self.num_recorded += 1
        return self._replay()

    def _are_held(self, tensors: list[Tensor]) -> bool:
        return len(tensors) == len(self._tensors) and all(
            a is b for a, b in zip(tensors, self._tensors, strict=True)
        )
