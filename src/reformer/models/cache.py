"""What a causal model keeps between calls, as `generate()` hands it on."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Any

from torch import Tensor
from transformers import Cache

from reformer.layers.attention import FullSelfAttention, LocalSelfAttention, LSHSelfAttention, SelfAttention
from reformer.layers.bucket_cache import BucketCache
from reformer.layers.chunk_cache import ChunkCache
from reformer.layers.decoding import FullCache, LayerCache, WindowCache
from reformer.layers.induction import InductionCache, InductionSelfAttention
from reformer.models.replay import Replay

if TYPE_CHECKING:
    from reformer.layers.reversible import ReversibleStack


class ReformerCache(Cache):
    """The decode cache of all layers.

    It grows with what has been read in "full" layers, and in LSH layers with window "chunk"; elsewhere it is
    bounded by the windows, with window "bucket" by `num_hashes` x `max_num_buckets` x window. Decoding then
    gives what the parallel forward gives; not so with window "chunk" (see `layers/chunk_cache.py`).
    `generate()` makes one by itself; one of your
    own goes on where it stands: `model.generate(ids, past_key_values=cache)` with all ids so far, or with new
    ids alone and an attention mask for all.

    Of a decoder that reads an encoder's output, all beams of a source share its keys and values.

    Args:
        stack: the layers.
        replay: how to repeat the operations of a token with the next one, `Replay()` for a CUDA graph; or
            None. Layers that grow with what has been read, "full" ones and those with window "chunk", go
            without.

    Attributes:
        memory: for each layer with cross-attention the keys and values of the source, projected once.
        columns: how many tokens, padding included, were given to the model.
        lengths: how many real tokens each row has read.
    """

    layers: list[LayerCache[Any]]  # type: ignore[assignment]

    def __init__(self, stack: ReversibleStack, replay: Replay | None = None):
        super().__init__(layers=[_layer_cache(layer.attention.self_attention) for layer in stack.layers])  # type: ignore
        self.columns = 0
        self.lengths: list[int] = []
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}
        self.replay = replay

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many tokens, padding included, were given to the model."""
        return self.columns

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """No bound: -1."""
        return -1

    @property
    def batch_size(self) -> int:
        """Rows, or -1 before any token is read."""
        return len(self.lengths) or -1

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors, in bytes."""
        tensors = [x for layer in self.layers for x in layer.state.values()]
        tensors += [x for pair in self.memory.values() for x in pair]
        return sum(x.numel() * x.element_size() for x in tensors)

    def reset(self) -> None:
        """Forget everything."""
        self.columns, self.lengths, self.memory = 0, [], {}
        for layer in self.layers:
            layer.state, layer.numbers = {}, {}

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Let row i go on from row `beam_idx[i]`, int64 `[B]`."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows with these numbers, int64."""
        rows: list[int] = indices.tolist()
        if rows != list(range(len(self.lengths))):
            self._map_rows(lambda x: x.index_select(0, indices.to(x.device)), rows)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Put copies of each row behind it."""
        rows = [b for b in range(len(self.lengths)) for _ in range(repeats)]
        self._map_rows(lambda x: x.repeat_interleave(repeats, 0), rows)

    def forked(self, copies: int) -> ReformerCache:
        """A cache that goes on by itself from here, with so many copies of each row behind one another."""
        fork = copy(self)
        fork.replay = self.replay and Replay(self.replay.record)
        fork.layers = [copy(layer) for layer in self.layers]
        for layer in fork.layers:
            layer.numbers = dict(layer.numbers)
        fork.batch_repeat_interleave(copies)
        return fork

    def crop(self, tokens_to_remove: int) -> None:
        """Do nothing for 0.

        Raises:
            NotImplementedError: tokens are to be removed, which rings cannot do.
        """
        if tokens_to_remove:
            raise NotImplementedError("a ReformerCache cannot forget its last tokens")

    def _map_rows(self, change: Callable[[Tensor], Tensor], rows: list[int]) -> None:
        self.lengths = [self.lengths[b] for b in rows]
        for layer in self.layers:
            layer.map_rows(change)
            if layer.state:
                layer.restored(self.lengths)


def _layer_cache(kind: SelfAttention) -> LayerCache[Any]:
    if isinstance(kind, InductionSelfAttention):
        return InductionCache(kind)
    if isinstance(kind, LSHSelfAttention):
        return BucketCache(kind) if kind.window == "bucket" else ChunkCache(kind)
    if isinstance(kind, LocalSelfAttention):
        return WindowCache(kind)
    assert isinstance(kind, FullSelfAttention)
    return FullCache(kind)
