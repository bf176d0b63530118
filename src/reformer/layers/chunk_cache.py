"""The decode cache of LSH attention with window "chunk", the paper's and transformers' checkpoints'.

Where the sorted keys are cut into chunks depends on all of them, so that a token changes what earlier ones
see: the outputs of the parallel forward over T + 1 tokens are not those over T with one more. A cached
decode keeps what earlier tokens were when they were read; a new one sees what the last token of the parallel
attention over all cached keys sees, with the rotations and the number of buckets that the prompt was
hashed with. For one layer the new output is that of the parallel forward; for several it is not, and nothing
could make it so but reading everything again (`use_cache=False`).

All keys are kept, and a step costs as much as attention over all of them: for long texts use window "bucket".
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from reformer.layers.attention import LSHSelfAttention, factors
from reformer.layers.decoding import LayerCache, NextToken
from reformer.ops import lsh_attention


class ChunkCache(LayerCache[LSHSelfAttention]):
    """All keys, values `kv` `[B, H, T, 2D]` and buckets `ids` `[B, H, R, T]`, in the order of positions."""

    @override
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        q, k, v = projections
        kind, (B, _, S, D) = self.kind, q.shape
        real = torch.ones(B, S, dtype=torch.bool, device=q.device) if mask is None else mask
        new = torch.cat([self._rotated(k, lengths), v], dim=-1)
        if not self.state:
            wanted = [kind._choose_num_buckets(length) for length in real.sum(1).tolist()]
            self.numbers["prompt_length"] = S
            self.state = {
                "num_buckets": torch.tensor(wanted, device=q.device),
                "kv": new,
                "ids": kind._buckets(q, None, mask),
                "real": real,
            }
            return kind.attend(projections, None, mask)
        kv = torch.cat([self.state["kv"], new], dim=2)
        ids = torch.cat([self.state["ids"], self._hash(q, mask)], dim=3)
        real = torch.cat([self.state["real"], real], dim=1)
        self.state |= {"kv": kv, "ids": ids, "real": real}
        return lsh_attention(
            torch.nn.functional.pad(self._rotated(q, lengths), (0, 0, kv.shape[2] - S, 0)),
            kv[..., :D].contiguous(),
            kv[..., D:].contiguous(),
            ids,
            chunk_length=kind.chunk_length,
            num_chunks_before=kind.num_chunks_before,
            num_chunks_after=kind.num_chunks_after,
            window="chunk",
            num_chunks=kind._num_chunks(kv.shape[2]),
            key_padding_mask=None if bool(real.all()) else real,
        )[:, :, -S:]

    @override
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        return self.extend([p[:, :, None] for p in projections], None, token.lengths).squeeze(2)

    def _hash(self, q: Tensor, mask: Tensor | None) -> Tensor:
        """Buckets `[B, H, R, S]` with as many buckets as at the beginning."""
        kind, given = self.kind, self.kind.num_buckets
        if given is None and kind.shape.layout is not None:
            given = kind.shape.layout.bucket_factors(self.numbers["prompt_length"], kind.chunk_length)
        if given is not None:
            return kind._hash(q, (given,) if isinstance(given, int) else tuple(given), 0, None, mask)
        ids = [
            kind._hash(
                q[b : b + 1], factors(n, kind.head_size), 0, None, None if mask is None else mask[b : b + 1]
            )
            for b, n in enumerate(self.state["num_buckets"].tolist())
        ]
        return torch.cat(ids)
