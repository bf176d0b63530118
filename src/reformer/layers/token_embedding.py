"""Vectors of tokens, in memory that suits long sequences."""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from reformer.ops.large_tensors import new_empty
from reformer.ops.transforms import inside_transform


class TokenEmbedding(nn.Embedding):
    """`nn.Embedding` whose result lies in large pages: see `reformer.ops.large_tensors`.

    With options that `nn.Embedding` has beyond two sizes, it is `nn.Embedding`.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        options = (self.padding_idx, self.max_norm) != (None, None) or self.scale_grad_by_freq or self.sparse
        if options or torch.compiler.is_compiling() or inside_transform():
            return super().forward(input)
        return _Lookup.apply(self.weight, input)  # type: ignore[no-any-return]


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.num_embeddings = len(weight)
        vectors = new_empty(weight.detach(), (ids.numel(), weight.shape[1]))
        torch.index_select(weight, 0, ids.reshape(-1), out=vectors)
        return vectors.view(*ids.shape, -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (ids,) = ctx.saved_tensors
        return torch.ops.aten.embedding_dense_backward(grad, ids, ctx.num_embeddings, -1, False), None
