"""The decode cache of LSH attention with window "bucket".

A query sees the last members of its own bucket, in each hash round. So every bucket has a ring of its
last W members, W the window and the query itself: indices into one store of keys and values, one for each
head of each row. Once the resolution no longer grows, a store entry that no ring holds is free, and the
store is bounded by rounds x buckets x W, whatever has been read.

Before that, the next level's buckets are still to come, and their rings will begin with the last members
among all keys so far: C * 2^j of them at most, about as many as the rings hold. All keys are then kept,
with their buckets in every level to come, and the rings of a level are filled when it begins.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from typing_extensions import override

from reformer.layers.attention import LSHSelfAttention
from reformer.layers.decoding import LayerCache, NextToken, longer
from reformer.ops import cpu_decoding, lsh_attention, lsh_hash
from reformer.ops.reference import SELF_SCORE

_PENDING = 256  # tokens that are hashed for the levels to come together
_NONE = -1


class BucketCache(LayerCache[LSHSelfAttention]):
    """Rings of the last members of every bucket, over a store of keys and values.

    Its state, W the width of a ring, N the largest number of buckets in use and L the store's size:
    `kv` `[B, H, L, 2D]`, `ring` int32 `[B, H, R, N, W]` of store entries (-1: none yet), `count` int32
    `[B, H, R, N]` of the members that a bucket has had, `born` int32 `[B, H, L]` when an entry was written,
    `free` int32 `[B, H, L]` entries, of which the first `num_free` may be written next.
    While levels are to come also `pending` `[B, H, P, D]`, queries that are yet to be hashed for them, and
    for each level `ids.LEVEL` int32 `[B, H, R, L]`.

    `numbers` has what changes with every token, and `_cursor` int64 `[3]` the same on the device: which of
    `free` comes next, the clock of `born`, and where in `pending` the next query goes.
    """

    can_replay = True

    def __init__(self, kind: LSHSelfAttention):
        super().__init__(kind)
        self.width = kind.num_chunks_before * kind.chunk_length + 1
        self._rotations: dict[int, Tensor] = {}
        self._columns: dict[int, Tensor] = {}
        self._turned_round: dict[tuple[int, torch.dtype], Tensor] = {}

    # Reading one token.

    @override
    def before_step(self) -> None:
        if self.numbers["next_free"] == self.numbers["num_free"]:
            self._make_room()

    @override
    def step(self, projections: Sequence[Tensor], token: NextToken) -> Tensor:
        q, k, v = projections
        return self._step(q, k, v, q, token)

    def _step(self, q: Tensor, k: Tensor, v: Tensor, placed: Tensor, token: NextToken) -> Tensor:
        """Read one token; what its key's buckets are found by is `placed`: q itself, or like it."""
        if cpu_decoding.runs_on(q):
            compiled = token.compiled(q, k, v, self.kind.shape.rope_theta)
            return self._read_compiled(compiled if placed is q else replace(compiled, placed=placed))
        return self._read_one(q, k, v, placed, token)

    @override
    def after_step(self, lengths: list[int]) -> None:
        self.numbers["next_free"] += 1
        self.numbers["clock"] += 1
        if "pending" in self.state:
            self.numbers["pending"] += 1
            self._advance(lengths)

    @override
    def tensors(self) -> list[Tensor]:
        return [*self.state.values(), self._cursor, self._entry_offset, self._ring_offset]

    def _read_compiled(self, token: cpu_decoding.Token) -> Tensor:
        """What `_read_one` does."""
        state = self.state
        kv, ring, count, born, free = (state[name] for name in ("kv", "ring", "count", "born", "free"))
        if "pending" in state:
            placed = token.q if token.placed is None else token.placed
            state["pending"][:, :, self.numbers["pending"]] = placed

        def read(rows: slice, level: int) -> Tensor:
            return cpu_decoding.bucket_step(
                token.of(rows),
                kv[rows],
                ring[rows],
                count[rows],
                born[rows],
                free[rows],
                next_free=self.numbers["next_free"],
                clock=self.numbers["clock"],
                rotations=self._columns_of(level),
                factors=self.kind.factors_of(level),
            )

        if len(set(self._levels)) == 1:
            return read(slice(None), self._levels[0])
        return torch.cat([read(slice(b, b + 1), level) for b, level in enumerate(self._levels)])

    def _read_one(self, q: Tensor, k: Tensor, v: Tensor, placed: Tensor, token: NextToken) -> Tensor:
        """Put the key of a token `[B, H, D]` into the rings, and attend to those of the query's bucket."""
        (B, H, D), R, W = q.shape, self.kind.num_hashes, self.width
        next_free, clock, pending = self._cursor.split(1)
        if "pending" in self.state:
            self.state["pending"].index_copy_(2, pending, placed[:, :, None])
        slot = self.state["free"].index_select(2, next_free).view(-1)
        bucket = of_query = self._ring_of(q)
        if placed is not q:
            bucket = self._ring_of(placed)
        q, k = token.rotate(q, k, self.kind.shape.rope_theta)
        kv, ring, count = self.state["kv"], self.state["ring"], self.state["count"].view(-1)
        entry = slot + self._entry_offset
        kv.view(-1, 2 * D).index_copy_(0, entry, torch.cat([k, v], dim=-1).view(B * H, 2 * D))
        self.state["born"].view(-1).index_copy_(0, entry, clock.int().expand(B * H))
        members = count.index_select(0, bucket)
        ring.view(-1).index_copy_(0, bucket * W + members % W, slot.repeat_interleave(R))
        count.index_copy_(0, bucket, members + 1)
        seen = ring.view(-1, W).index_select(0, of_query).view(B * H, R * W)
        self._cursor.add_(1)
        own = slot if self.kind.penalize_self else None
        return self._attend_one(q.reshape(B * H, D), seen, own).view(B, H, D)

    def _attend_one(self, q: Tensor, seen: Tensor, own: Tensor | None) -> Tensor:
        """Attention `[B * H, D]` of a query a row over entries `[B * H, R * W]`, one of them its `own`."""
        dtype, D = torch.promote_types(q.dtype, torch.float32), q.shape[-1]
        entries = (seen.clamp(min=0) + self._entry_offset[:, None]).view(-1)
        kv = self.state["kv"].view(-1, 2 * D).index_select(0, entries).view(*seen.shape, 2 * D).to(dtype)
        bias = torch.zeros(seen.shape, dtype=dtype, device=q.device)
        if own is not None:
            # Beside other scores the token's own vanishes, and alone it has all the weight.
            bias.masked_fill_(seen == own[:, None], SELF_SCORE)
        is_empty = seen == _NONE
        bias.masked_fill_(is_empty, torch.finfo(dtype).min)
        scores = torch.baddbmm(bias[:, None], q.to(dtype)[:, None], kv[..., :D].mT)
        weights = scores.softmax(-1).masked_fill(is_empty[:, None], 0)  # all are where nothing is seen
        return torch.bmm(weights, kv[..., D:]).squeeze(1).to(q.dtype)

    def _ring_of(self, x: Tensor) -> Tensor:
        """Numbers int64 `[B * H * R]`, among all rings, of the buckets of one vector `[B, H, D]` a head."""
        ids = self._hash_one(x).reshape(-1, self.kind.num_hashes)
        return (ids + self._ring_offset).view(-1)

    def _hash_one(self, q: Tensor) -> Tensor:
        """Buckets int64 `[B, H, R]` of one query `[B, H, D]` a head, each row in its own level."""
        levels = self._levels
        if len(set(levels)) == 1:
            return self._hash_one_at(q, levels[0])
        return torch.cat([self._hash_one_at(q[b : b + 1], level) for b, level in enumerate(levels)])

    def _hash_one_at(self, q: Tensor, level: int) -> Tensor:
        """What `lsh_hash` does, without what it costs to begin."""
        (B, H, _), R = q.shape, self.kind.num_hashes
        factors = self.kind.factors_of(level)
        if factors == (1,):
            return torch.zeros(B, H, R, dtype=torch.int64, device=q.device)
        dtype = torch.promote_types(q.dtype, torch.float32)
        products = torch.bmm(q.to(dtype).transpose(0, 1), self._both_ways(level, q.device, dtype))
        ids: Tensor | None = None
        stride = 1
        for product, n in zip(products.split([R * n for n in factors], dim=-1), factors, strict=True):
            factor_ids = product.unflatten(-1, (R, n)).argmax(-1)
            ids = factor_ids if ids is None else ids.add_(factor_ids, alpha=stride)
            stride *= n
        assert ids is not None
        return ids.transpose(0, 1)

    def _both_ways(self, level: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """`[H, D, sum of R * n]`, whose largest product is the bucket.

        For each factor n and round these are the columns of a level's rotations, and those turned round.
        """
        if (level, dtype) not in self._turned_round:
            columns = self._rotations_of(level, device).to(dtype)
            halves = columns.split([n // 2 for n in self.kind.factors_of(level)], dim=-1)
            both = [torch.cat([half, -half], dim=-1).flatten(2) for half in halves]
            self._turned_round[level, dtype] = torch.cat(both, dim=-1)
        return self._turned_round[level, dtype]

    def _columns_of(self, level: int) -> Tensor:
        """A level's rotations as the compiled kernel reads them, `[H, R, sum(factors) / 2, D]`."""
        if level not in self._columns:
            columns = self._rotations_of(level, torch.device("cpu")).permute(0, 2, 3, 1)
            self._columns[level] = columns.float().contiguous()
        return self._columns[level]

    def _hash_many(self, q: Tensor, level: int, mask: Tensor | None) -> Tensor:
        """Buckets int32 `[B, H, R, S]` of queries `[B, H, S, D]`."""
        rotations = self._rotations_of(level, q.device)
        return lsh_hash(q, rotations, self.kind.factors_of(level), padding_mask=mask).int()

    def _rotations_of(self, level: int, device: torch.device) -> Tensor:
        """Rotations of a level, which take long to make."""
        if level not in self._rotations:
            self._rotations[level] = self.kind.rotations_of(level).to(device)
        return self._rotations[level]

    # Reading many tokens.

    @override
    def extend(self, projections: Sequence[Tensor], mask: Tensor | None, lengths: list[int]) -> Tensor:
        q, k, v = projections
        return self._extend(q, k, v, q, mask, lengths)

    def _extend(
        self, q: Tensor, k: Tensor, v: Tensor, placed: Tensor, mask: Tensor | None, lengths: list[int]
    ) -> Tensor:
        """Read new tokens; what the keys' buckets are found by is `placed`: q itself, or like it."""
        kind, S = self.kind, q.shape[2]
        new_lengths = [n + S for n in lengths]
        if mask is not None:
            new_lengths = [n + m for n, m in zip(lengths, mask.sum(1).tolist(), strict=True)]
        first = min(kind.level_of(n) for n in (lengths if self.state else new_lengths))
        levels = range(first, kind.last_level + 1)
        ids = {level: self._hash_many(placed, level, mask) for level in levels}
        if not self.state:
            mixed = LSHSelfAttention.attend(kind, [q, k, v], None, mask)  # a subclass makes these of others
            self._fill(self._rotated(k, lengths), v, ids, new_lengths)
            return mixed
        of_queries = ids
        if placed is not q:
            of_queries = {level: self._hash_many(q, level, mask) for level in levels}
        old_k, old_v, old_ids = self._unfilled()
        ids = {level: torch.cat([old_ids[level], new], dim=-1) for level, new in ids.items()}
        k = torch.cat([old_k, self._rotated(k, lengths)], dim=2)
        v = torch.cat([old_v, v], dim=2)
        mixed = self._attend_many(self._rotated(q, lengths), k, v, of_queries, ids, mask, lengths)
        self._fill(k, v, ids, new_lengths)
        return mixed

    def _attend_many(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        of_queries: dict[int, Tensor],
        of_keys: dict[int, Tensor],
        mask: Tensor | None,
        lengths: list[int],
    ) -> Tensor:
        """Attention `[B, H, S, D]` of the last S tokens, level by level, rows of one length together."""
        kind, S = self.kind, q.shape[2]
        old = k.shape[2] - S
        mixed = torch.empty_like(q)
        for length in sorted(set(lengths)):
            rows = [b for b, n in enumerate(lengths) if n == length]
            start = 0
            while start < S:
                level = kind.level_of(length + start)
                stop = S
                if level < kind.last_level:
                    stop = min(S, (kind.chunk_length << level) - length)
                padding = None
                if mask is not None:
                    padding = torch.nn.functional.pad(mask[rows, :stop], (old, 0), value=True)
                mixed[rows, :, start:stop] = lsh_attention(
                    q[rows, :, start:stop],
                    k[rows, :, : old + stop],
                    v[rows, :, : old + stop],
                    of_queries[level][rows][..., start:stop],
                    of_keys[level][rows][..., : old + stop],
                    chunk_length=kind.chunk_length,
                    num_chunks_before=kind.num_chunks_before,
                    penalize_self=kind.penalize_self,
                    key_padding_mask=padding,
                )
                start = stop
        return mixed

    def _fill(self, k: Tensor, v: Tensor, ids: dict[int, Tensor], lengths: list[int]) -> None:
        """Make the state from all keys, rotated, and values `[B, H, T, D]` in the order of positions.

        Args:
            k: keys.
            v: values.
            ids: buckets `[B, H, R, T]` in each level from that of the first row to come to the last; as many
                as there are buckets, or more, where a key is in none.
            lengths: tokens that each row has now read.
        """
        kind, (B, H, T, D) = self.kind, k.shape
        self.numbers = {"next_free": 0, "clock": T, "pending": 0, "columns": T}
        levels = [kind.level_of(n) for n in lengths]
        ring, count = self._rings(ids, levels, T)
        self.state = {"ring": ring, "count": count}
        if min(levels) == kind.last_level:
            self._fill_with_members(k, v)
        else:
            self.state["pending"] = k.new_zeros(B, H, _PENDING, D)
            size = self._size_for(T)
            kv = k.new_zeros(B, H, size, 2 * D)
            kv[:, :, :T, :D], kv[:, :, :T, D:] = k, v
            self.state |= {
                "kv": kv,
                "born": torch.arange(size, dtype=torch.int32, device=k.device).repeat(B, H, 1),
                "free": torch.arange(size, dtype=torch.int32, device=k.device).roll(-T).repeat(B, H, 1),
            }
            self.numbers["num_free"] = size - T
            for level in range(min(levels), kind.last_level + 1):
                self.state[f"ids.{level}"] = longer(ids[level], 3, size)
        self.restored(lengths)

    def _rings(self, ids: dict[int, Tensor], levels: list[int], T: int) -> tuple[Tensor, Tensor]:
        """Rings and counts of every row in its level, from the buckets of the first T keys."""
        B, H, R, _ = ids[max(levels)].shape
        device = ids[max(levels)].device
        N = max(math.prod(self.kind.factors_of(level)) for level in levels)
        ring = torch.full((B, H, R, N, self.width), _NONE, dtype=torch.int32, device=device)
        count = torch.zeros(B, H, R, N, dtype=torch.int32, device=device)
        for b, level in enumerate(levels):
            num_buckets = math.prod(self.kind.factors_of(level))
            for h in range(H):
                for r in range(R):
                    members = count[b, h, r, :num_buckets]
                    _fill_rings(ids[level][b, h, r, :T], ring[b, h, r, :num_buckets], members)
        return ring, count

    def _fill_with_members(self, k: Tensor, v: Tensor) -> None:
        """Keep the keys that a ring holds, `ring` having their numbers."""
        ring, (B, H, T, D) = self.state["ring"], k.shape
        held = _held(ring, T)
        most = int(held.sum(-1).max())
        size = self._size_for(most)
        kv = k.new_zeros(B, H, size, 2 * D)
        born = torch.full((B, H, size), _NONE, dtype=torch.int32, device=k.device)
        for b in range(B):
            for h in range(H):
                columns = held[b, h].nonzero().squeeze(-1)
                kv[b, h, : len(columns), :D], kv[b, h, : len(columns), D:] = (
                    k[b, h, columns],
                    v[b, h, columns],
                )
                born[b, h, : len(columns)] = columns
                entry = (held[b, h].cumsum(0, dtype=torch.int32) - 1)[ring[b, h].clamp(min=0)]
                ring[b, h] = torch.where(ring[b, h] == _NONE, _NONE, entry)
        free = torch.arange(size, dtype=torch.int32, device=k.device).roll(-most).repeat(B, H, 1)
        self.state |= {"kv": kv, "born": born, "free": free}
        self.numbers["num_free"] = size - most

    def _unfilled(self) -> tuple[Tensor, Tensor, dict[int, Tensor]]:
        """Keys, values and buckets of what is in the store, in the order of positions: undoes `_fill`."""
        kind, kv, ring = self.kind, self.state["kv"], self.state["ring"]
        (B, H, L, _), (R, N, W) = kv.shape, ring.shape[2:]
        if "pending" in self.state:
            self._hash_pending()
            T = self.numbers["columns"]
            k, v = kv[:, :, :T].chunk(2, dim=-1)
            return (
                k,
                v,
                {
                    level: self.state[f"ids.{level}"][..., :T]
                    for level in range(min(self._levels), kind.last_level + 1)
                },
            )
        order = self.state["born"].argsort(dim=-1)
        bucket = (
            torch.arange(N, dtype=torch.int32, device=ring.device)[:, None].expand(N, W).reshape(1, 1, 1, -1)
        )
        ids = torch.full((B, H, R, L + 1), N, dtype=torch.int32, device=ring.device)
        where = ring.view(B, H, R, -1).long()
        ids.scatter_(3, where.masked_fill(where == _NONE, L), bucket.expand_as(where))
        ids = ids[..., :L].gather(3, order[:, :, None].expand(-1, -1, R, -1))
        k, v = kv.gather(2, order[..., None].expand_as(kv)).chunk(2, dim=-1)
        return k, v, {kind.last_level: ids}

    # Levels.

    def _advance(self, lengths: list[int]) -> None:
        """Go on to the next level where a row has come to its end."""
        self.numbers["columns"] += 1
        self._tokens_to_level -= 1
        if self.numbers["pending"] == _PENDING or self._tokens_to_level == 0:
            self._hash_pending()
        if self._tokens_to_level:
            return
        T = self.numbers["columns"]
        levels = [self.kind.level_of(n) for n in lengths]
        ids = {level: self.state[f"ids.{level}"] for level in set(levels)}
        self.state["ring"], self.state["count"] = self._rings(ids, levels, T)
        for level in range(min(self._levels), min(levels)):
            self.state.pop(f"ids.{level}", None)
        if min(levels) == self.kind.last_level:
            for name in ("pending", f"ids.{self.kind.last_level}"):
                del self.state[name]
        self.restored(lengths)

    def _hash_pending(self) -> None:
        """Hash what has come since the last time for all levels to come."""
        stop = self.numbers["columns"]
        start = stop - self.numbers["pending"]
        if start == stop:
            return
        q = self.state["pending"][:, :, : stop - start]
        for level in range(min(self._levels), self.kind.last_level + 1):
            self.state[f"ids.{level}"][..., start:stop] = self._hash_many(q, level, None)
        self.numbers["pending"] = 0
        self._place_cursor()

    @override
    def restored(self, lengths: list[int]) -> None:
        kind, (B, H, R, N, _) = self.kind, self.state["ring"].shape
        device = self.state["ring"].device
        self._levels = [kind.level_of(n) for n in lengths]
        ends = [
            (kind.chunk_length << level) - n
            for n, level in zip(lengths, self._levels, strict=True)
            if level < kind.last_level
        ]
        self._tokens_to_level = min(ends, default=0)
        self._entry_offset = torch.arange(B * H, device=device) * self.state["kv"].shape[2]
        self._ring_offset = (torch.arange(B * H * R, device=device) * N).view(B * H, R)
        self._cursor = torch.empty(3, dtype=torch.int64, device=device)
        self._place_cursor()

    def _place_cursor(self) -> None:
        self._cursor.copy_(torch.tensor([self.numbers[name] for name in ("next_free", "clock", "pending")]))

    # The store.

    @property
    def _full_size(self) -> int:
        """As large a store as the rings of the last level can need, and some entries to be free."""
        num_buckets = math.prod(self.kind.factors_of(self.kind.last_level))
        most = self.kind.num_hashes * num_buckets * self.width
        return most + max(256, most // 8)

    def _size_for(self, num_entries: int) -> int:
        """How large a store to make for some entries and those to come."""
        size = num_entries + max(256, num_entries // 2)
        if "pending" in self.state:
            return size
        # From about a quarter on at its full size, so that it does not creep up to it.
        return self._full_size if 4 * size > self._full_size else size

    def _make_room(self) -> None:
        """Find entries that no ring holds, and make the store larger where these are few.

        When no level is to come it gets its full size at once, not at whatever token the entries run short.
        """
        kv = self.state["kv"]
        L = kv.shape[2]
        held = torch.ones(*kv.shape[:2], L, dtype=torch.bool, device=kv.device)
        if "pending" not in self.state:
            held = _held(self.state["ring"], L)
        num_free = L - int(held.sum(-1).max())
        wanted = self._size_for(L)
        size = max(wanted, L) if num_free < L // 8 or wanted == self._full_size else L
        if size > L:
            self.state["kv"] = longer(kv, 2, size)
            self.state["born"] = longer(self.state["born"], 2, size, _NONE)
            for name in [name for name in self.state if name.startswith("ids.")]:
                self.state[name] = longer(self.state[name], 3, size)
            self._entry_offset = torch.arange(len(self._entry_offset), device=kv.device) * size
            held = longer(held, 2, size)
        free = held.to(torch.uint8).argsort(dim=-1, stable=True).int()
        self.state["free"] = self.state["free"].copy_(free) if size == L else free
        self.numbers |= {"next_free": 0, "num_free": num_free + size - L}
        self._place_cursor()


def _fill_rings(ids: Tensor, ring: Tensor, count: Tensor) -> None:
    """Write the last members of each bucket.

    Args:
        ids: the bucket `[T]` of each key; one beyond the last for none.
        ring: `[N, W]`, gets the numbers of keys: the i-th member of a bucket, if among the last W, at i % W.
        count: `[N]`, gets how many members each bucket has.
    """
    num_buckets, width = ring.shape
    ids, order = ids.sort(stable=True)
    all_counts = torch.bincount(ids, minlength=num_buckets)[:num_buckets]
    count.copy_(all_counts)
    number = int(all_counts.sum())
    ids, order = ids[:number].long(), order[:number]
    start = all_counts.cumsum(0) - all_counts
    rank = torch.arange(number, device=ids.device) - start[ids]
    last = rank >= all_counts[ids] - width
    ring[ids[last], rank[last] % width] = order[last].int()


def _held(ring: Tensor, num_entries: int) -> Tensor:
    """Which entries the rings `[B, H, R, N, W]` hold: bool `[B, H, L]`."""
    where = ring.flatten(2)
    held = torch.zeros(*where.shape[:2], num_entries + 1, dtype=torch.bool, device=ring.device)
    for b in range(where.shape[0]):
        for h in range(where.shape[1]):
            held[b, h, where[b, h].long()] = True  # -1 is the last, which is cut off
    return held[..., :num_entries]
