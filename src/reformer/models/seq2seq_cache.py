"""What a decoder that reads an encoder's output keeps from one new token to the next."""

import torch
from torch import Tensor
from transformers import DynamicCache

from reformer.layers.attention import Attention
from reformer.layers.cross_attention import CrossAttention
from reformer.models.modeling import _real_tokens_first, _reordered


class Seq2SeqCache(DynamicCache):
    """Projections of the target tokens so far, and the keys and values of the source, projected once.

    Those of the source are no part of what beams reorder: all beams of a source read the same.
    """

    is_compileable = False

    def __init__(self) -> None:
        super().__init__()
        self.memory: dict[int, tuple[Tensor, Tensor]] = {}

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.memory = {}

    def mix_memory(
        self, layer: int, branch: CrossAttention, x: Tensor, memory: Tensor, memory_mask: Tensor | None
    ) -> Tensor:
        """What cross-attention makes of new tokens `[B, S, d]`: `[B, S, H * D]`."""
        if layer not in self.memory:
            self.memory[layer] = branch.project_memory(memory, None)
        return branch.attend(*branch.project_in(x, None), *self.memory[layer], None, memory_mask)

    def mix(self, layer: int, branch: Attention, x: Tensor, mask: Tensor | None) -> Tensor:
        """What self-attention makes of new tokens `[B, S, d]`: `[B, S, H * D]`.

        All tokens attend again, since what hashing shows to a token depends on all before it; only the
        projections are kept. That is little beside cross-attention over a long source.

        Args:
            layer: number of the layer.
            branch: of the layer.
            x: what the branch reads.
            mask: bool `[B, T]`, True where a real token is, of the tokens so far and the new ones.
        """
        q, k, v = (p[:, None] for p in branch.project_in(x, None))
        kept, v = self.update(torch.cat([q, k], dim=-1), v, layer)
        q, k = kept.chunk(2, dim=-1)
        q, k, v = (p.squeeze(1) for p in (q, k, v))
        order = None if mask is None else _real_tokens_first(mask)
        if mask is None or order is None:
            return branch.attend(q, k, v, None, mask)[:, -x.shape[1] :]
        q, k, v = (_reordered(p, order) for p in (q, k, v))
        mixed = branch.attend(q, k, v, None, mask.gather(1, order))
        return _reordered(mixed, order.argsort(dim=1))[:, -x.shape[1] :]
