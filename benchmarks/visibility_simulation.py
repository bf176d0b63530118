"""The simulation behind `benchmarks.visibility`: which queries see their nearest earlier match.

Unit vectors of dimension 64: each direction comes 8 times, at random places of the sequence, and any
two of its repeats have exactly the given cosine; directions are independent. The vectors are hashed in
4 rounds by `LSHSelfAttention`, and what a query sees is read off the plans of `reformer.ops.windows`.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reformer.layers.attention import AttentionShape, LSHSelfAttention, factors
from reformer.layers.randomness import derive, generator
from reformer.ops.windows import Layout, Plan, bucket_plan, chunk_plans

HEAD_SIZE = 64
CHUNK_LENGTH = 64
NUM_ROUNDS = 4
NUM_REPEATS = 8
MAX_NUM_BUCKETS = 16384  # the default of ReformerConfig

FactorRule = Callable[[int], tuple[int, ...]]


def layer_factors(num_buckets: int) -> tuple[int, ...]:
    """How models factorise a number of buckets."""
    return factors(num_buckets, HEAD_SIZE)


@dataclass(frozen=True)
class Level:
    """Queries behind the previous level and before `end`, hashed with these factors as all keys are."""

    end: int
    factors: tuple[int, ...]


@dataclass(frozen=True)
class Scheme:
    """A window ("chunk" or "bucket") and its levels; "chunk" has one level."""

    window: str
    levels: Sequence[Level]

    @property
    def products_per_token(self) -> float:
        """Dot products that hashing takes, for each token and round."""
        products = sum(level.end * sum(level.factors) // 2 for level in self.levels if level.factors != (1,))
        return products / self.levels[-1].end


@dataclass(frozen=True)
class Visibility:
    """Shares, in [0, 1], of the queries that have an earlier match."""

    cosine: float
    num_keys: int
    scheme: str
    num_queries: int  # of all trials
    seen: float  # see the nearest earlier match in at least one round
    standard_error: float  # of `seen`
    same_bucket: float  # share a bucket with it in at least one round, inside the window or outside
    trials: list[float]  # `seen` of each trial
    products_per_token: float  # dot products for hashing, for each token and round
    hash_seconds: float  # of one trial


class Trial:
    """One sequence of vectors, and which of its queries see their nearest earlier match.

    Args:
        num_keys: T, a multiple of NUM_REPEATS.
        cosine: of any two repeats of a direction, in [0, 1].
        seed: of the vectors, their places and the rotations.
    """

    def __init__(self, num_keys: int, cosine: float, seed: int):
        self.x, self.match = repeated_directions(num_keys, cosine, generator(derive(seed, 0)))
        self.num_keys, self.seed = num_keys, derive(seed, 1)
        self.is_query = self.match >= 0

    def look(self, scheme: Scheme) -> None:
        """Find out what is `seen` and what is in the `same_bucket`, bool `[T]` each."""
        self.seen = torch.zeros(self.num_keys, dtype=torch.bool)
        self.same_bucket = torch.zeros(self.num_keys, dtype=torch.bool)
        self.hash_seconds = 0.0
        layer = attention_layer(scheme.window)
        start = 0
        for number, level in enumerate(scheme.levels):
            begin = time.perf_counter()
            buckets = layer._hash(self.x[:, :, : level.end], level.factors, number, self.seed, None)[0]
            self.hash_seconds += time.perf_counter() - begin
            make_plans = _chunk_plans if scheme.window == "chunk" else _bucket_plans
            for plan in make_plans(buckets, start):
                self._mark_seen(plan, start)
            self._mark_same_bucket(buckets[0], start)
            start = level.end

    def _mark_seen(self, plan: Plan, start: int) -> None:
        """Mark the queries whose match has a slot in their range; a key may have several slots."""
        num_slots = len(plan.keys)
        order = plan.keys.argsort(stable=True)
        key_and_slot = plan.keys[order] * num_slots + order
        query = plan.queries + start
        match = self.match[query]
        below_lo = torch.searchsorted(key_and_slot, match * num_slots + plan.lo)
        below_hi = torch.searchsorted(key_and_slot, match * num_slots + plan.hi)
        self.seen[query[(match >= 0) & (below_hi > below_lo)]] = True

    def _mark_same_bucket(self, buckets: Tensor, start: int) -> None:
        queries = slice(start, buckets.shape[-1])
        match = self.match[queries]
        self.same_bucket[queries] = (buckets[:, queries] == buckets[:, match]).any(0) & (match >= 0)


def repeated_directions(num_keys: int, cosine: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Unit vectors `[1, 1, T, D]`, and for each the position `[T]` of its nearest earlier match, or -1.

    A repeat is `sqrt(c) d + sqrt(1 - c) u`, with the direction d and the u of all its repeats orthonormal.
    """
    drawn = torch.randn(num_keys // NUM_REPEATS, 1 + NUM_REPEATS, HEAD_SIZE, generator=random)
    triangle = torch.linalg.cholesky(drawn @ drawn.mT)
    orthonormal = torch.linalg.solve_triangular(triangle, drawn, upper=False)
    repeats = math.sqrt(cosine) * orthonormal[:, :1] + math.sqrt(1 - cosine) * orthonormal[:, 1:]
    places = torch.randperm(num_keys, generator=random).view(-1, NUM_REPEATS).sort(dim=1).values
    x = torch.empty(num_keys, HEAD_SIZE)
    x[places.flatten()] = repeats.flatten(0, 1)
    match = torch.full((num_keys,), -1)
    match[places[:, 1:]] = places[:, :-1]
    return x[None, None], match


def attention_layer(window: str) -> LSHSelfAttention:
    """A causal layer with one head: it says how models hash."""
    return LSHSelfAttention(
        AttentionShape(HEAD_SIZE, num_heads=1, head_size=HEAD_SIZE, causal=True, dropout=0.0),
        window=window,
        chunk_length=CHUNK_LENGTH,
        num_chunks_before=1,
        num_chunks_after=0,
        num_hashes=NUM_ROUNDS,
        num_buckets=None,
        max_num_buckets=MAX_NUM_BUCKETS,
        hash_seed=0,
    )


def growing(num_keys: int, rule: FactorRule = layer_factors) -> Scheme:
    """Bucket window with the levels of causal models, whose numbers of buckets a rule factorises."""
    levels = attention_layer("bucket").levels(num_keys)
    return Scheme("bucket", [Level(end, rule(num_buckets)) for end, num_buckets in levels])


def schemes(num_keys: int) -> dict[str, Scheme]:
    """The schemes that are compared."""
    chunks = num_keys // CHUNK_LENGTH
    return {
        "chunks": Scheme("chunk", [Level(num_keys, balanced_factors(2 * chunks, 2))]),
        "bucket T/C": Scheme("bucket", [Level(num_keys, layer_factors(chunks))]),
        "bucket fixed": Scheme("bucket", [Level(num_keys, layer_factors((1 << 20) // CHUNK_LENGTH))]),
        "bucket growing": growing(num_keys),
    }


def factor_schemes(num_keys: int) -> dict[str, Scheme]:
    """The growing resolution with several ways to factorise a number of buckets."""
    rules: dict[str, FactorRule] = {
        "one": lambda n: (n,),
        "one to 256, then two": lambda n: balanced_factors(n, 1 if n <= 256 else 2),
        "the layer's": layer_factors,
        "three": lambda n: balanced_factors(n, 3),
    }
    return {name: growing(num_keys, rule) for name, rule in rules.items()}


def balanced_factors(num_buckets: int, num_factors: int) -> tuple[int, ...]:
    """At most `num_factors` factors of a power of two, as equal as can be."""
    bits = num_buckets.bit_length() - 1
    num_factors = max(1, min(num_factors, bits))
    return tuple(1 << (bits + i) // num_factors for i in range(num_factors))


def num_trials(num_keys: int) -> int:
    """Sequences that are drawn: tens of thousands of keys where they are short, and two at least."""
    return max(2, min(16, (1 << 16) // num_keys))


def measure(
    cosine: float, num_keys: int, compared: Mapping[str, Scheme], advance: Callable[[int], None]
) -> list[Visibility]:
    """Try schemes on the same sequences.

    Args:
        cosine: of any two repeats, in [0, 1].
        num_keys: T, a power of two.
        compared: the schemes by name.
        advance: told how many keys are done, after each scheme of each trial.
    """
    looks: dict[str, list[tuple[float, float, float]]] = {name: [] for name in compared}
    num_queries = 0
    for number in range(num_trials(num_keys)):
        trial = Trial(num_keys, cosine, derive(number, num_keys))
        num_queries += int(trial.is_query.sum())
        for name, scheme in compared.items():
            trial.look(scheme)
            shares = (_share(found, trial.is_query) for found in (trial.seen, trial.same_bucket))
            looks[name].append((*shares, trial.hash_seconds))  # type: ignore[arg-type]
            advance(num_keys)
    results = []
    for name, scheme in compared.items():
        seen, same_bucket, seconds = (list(column) for column in zip(*looks[name], strict=True))
        results.append(
            Visibility(
                cosine=cosine,
                num_keys=num_keys,
                scheme=name,
                num_queries=num_queries,
                seen=_mean(seen),
                standard_error=max(_error_of_mean(seen), _binomial_error(_mean(seen), num_queries)),
                same_bucket=_mean(same_bucket),
                trials=seen,
                products_per_token=scheme.products_per_token,
                hash_seconds=min(seconds),
            )
        )
    return results


def advantage(better: Visibility, worse: Visibility) -> tuple[float, float]:
    """How much more of the same trials is seen, and the standard error of that.

    The error is that over the trials, but no less than that of independent queries: where trials are
    few, they may agree by chance.
    """
    differences = [b - w for b, w in zip(better.trials, worse.trials, strict=True)]
    independent = math.hypot(*(_binomial_error(v.seen, v.num_queries) for v in (better, worse)))
    return _mean(differences), max(_error_of_mean(differences), independent)


def _share(found: Tensor, of: Tensor) -> float:
    return float(found[of].double().mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _error_of_mean(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def _binomial_error(share: float, num_queries: int) -> float:
    return math.sqrt(share * (1 - share) / num_queries)


def _chunk_plans(buckets: Tensor, start: int) -> list[Plan]:
    """Plans of the paper's chunks, one chunk back, for buckets `[1, R, T]`."""
    num_keys = buckets.shape[-1]
    return chunk_plans(
        buckets,
        None,
        first_row=0,
        layout=Layout(1, num_keys, False),
        chunk_length=CHUNK_LENGTH,
        chunks_before=1,
        chunks_after=0,
        causal=True,
        correct_duplicates=False,
        num_vectors=num_keys,
    )


def _bucket_plans(buckets: Tensor, start: int) -> list[Plan]:
    """Plans of the bucket window, one chunk back, for the queries of buckets `[1, R, T]` from `start` on."""
    num_keys = buckets.shape[-1]
    return [
        bucket_plan(
            buckets[:, r, start:],
            buckets[:, r],
            None,
            first_row=0,
            q_layout=Layout(1, num_keys - start, False),
            k_layout=Layout(1, num_keys, False),
            q_offset=start,
            round_index=r,
            before=CHUNK_LENGTH,
            after=0,
            causal=True,
        )
        for r in range(NUM_ROUNDS)
    ]
