"""The definitions of DESIGN.md, section 2, as loops over Python numbers, one row (head) at a time.

A window is `seen[r][i]`: the positions of the keys that the i-th query sees in round r, a key as often as
it is seen. The queries are the last positions.
"""

import math
from collections import Counter
from collections.abc import Sequence

from torch import Tensor

Seen = list[list[list[int]]]


def hash_products(x: Sequence[float], rotation: Sequence[Sequence[float]]) -> list[float]:
    """`[xR ; -xR]` of a vector x and a matrix R, a row for each feature."""
    products = [sum(a * row[i] for a, row in zip(x, rotation, strict=True)) for i in range(len(rotation[0]))]
    return products + [-p for p in products]


def first_argmax(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda i: (values[i], -i))


def hash_bucket(x: Sequence[float], rotation: Sequence[Sequence[float]], factors: Sequence[int]) -> int:
    """`h_n0 + n0 * h_n1 + ...`, the columns of the rotation shared out among the factors."""
    bucket, stride, column = 0, 1, 0
    for n in factors:
        part = [row[column : column + n // 2] for row in rotation]
        bucket += stride * first_argmax(hash_products(x, part))
        stride, column = stride * n, column + n // 2
    return bucket


def bucket_window(
    q_buckets: Sequence[Sequence[int]],
    k_buckets: Sequence[Sequence[int]],
    real: Sequence[bool],
    *,
    before: int,
    after: int,
    causal: bool,
) -> Seen:
    """Keys of the query's own bucket whose rank is near its own; buckets are `[round][position]`."""
    first_query = len(real) - len(q_buckets[0])
    seen: Seen = []
    for q_round, k_round in zip(q_buckets, k_buckets, strict=True):
        seen.append([])
        for position, bucket in enumerate(q_round, start=first_query):
            members = [j for j, other in enumerate(k_round) if other == bucket and real[j]]
            own_rank = sum(j <= position for j in members) - 1
            near = [
                j
                for rank, j in enumerate(members)
                if -before <= rank - own_rank <= after and not (causal and j > position)
            ]
            seen[-1].append(near if real[position] else [])
    return seen


def chunk_window(
    buckets: Sequence[Sequence[int]],
    real: Sequence[bool],
    *,
    chunk_length: int,
    before: int,
    after: int,
    causal: bool,
) -> Seen:
    """Own and neighbouring chunks of the sorted keys, around the flat list of all rounds' chunks."""
    chunks: list[tuple[int, list[int]]] = []
    for r, of_round in enumerate(buckets):
        order = sorted((of_round[j], j) for j in range(len(real)) if real[j])
        for start in range(0, len(order), chunk_length):
            chunks.append((r, [j for _, j in order[start : start + chunk_length]]))
    seen: Seen = [[[] for _ in real] for _ in buckets]
    for i, (r, members) in enumerate(chunks):
        for neighbour in range(i - before, i + after + 1):
            for j in chunks[neighbour % len(chunks)][1]:
                for position in members:
                    if not (causal and j > position):
                        seen[r][position].append(j)
    return seen


def local_window(
    num_queries: int, real: Sequence[bool], *, chunk_length: int, before: int, after: int, causal: bool
) -> Seen:
    """Chunks of consecutive real tokens, no wrap-around; one round."""
    chunk, num_real = [], 0
    for is_real in real:
        chunk.append(num_real // chunk_length)
        num_real += is_real
    return [
        [
            [
                j
                for j in range(len(real))
                if real[j]
                and real[position]
                and -before <= chunk[j] - chunk[position] <= after
                and not (causal and j > position)
            ]
            for position in range(len(real) - num_queries, len(real))
        ]
    ]


def level_window(
    buckets: Sequence[Sequence[Sequence[int]]], real: Sequence[bool], *, before: int
) -> list[list[list[int]]]:
    """What each query sees at its own level, `[position][round]`; buckets are `[level][round][position]`."""
    seen = []
    for position in range(len(real)):
        level = next(level for level in buckets if position < len(level[0]))
        seen.append([])
        for of_round in level:
            members = [j for j in range(position + 1) if real[j] and of_round[j] == of_round[position]]
            seen[-1].append(members[-(before + 1) :] if real[position] else [])
    return seen


def attention(
    q: Tensor, k: Tensor, v: Tensor, seen: Seen, *, penalize_self: bool, correct_duplicates: bool
) -> list[list[float]]:
    """Attend in each round, then merge the rounds by the logsumexps of their scores.

    Args:
        q: `[Tq, D]`.
        k: `[Tk, D]`.
        v: `[Tk, Dv]`.
        seen: a window.
        penalize_self: the query's own key has the score -1e5.
        correct_duplicates: subtract the log of the number of times that a key is seen.
    """
    queries, keys, values = q.tolist(), k.tolist(), v.tolist()
    output = []
    for i, query in enumerate(queries):
        position = len(keys) - len(queries) + i
        times = Counter(j for of_round in seen for j in of_round[i])

        def score(j: int, query: list[float] = query, position: int = position, times=times) -> float:
            dot = sum(a * b for a, b in zip(query, keys[j], strict=True))
            own = -1e5 if penalize_self and j == position else dot
            return own - (math.log(times[j]) if correct_duplicates else 0.0)

        rounds = [([score(j) for j in of_round[i]], of_round[i]) for of_round in seen if of_round[i]]
        logsumexps = [_logsumexp(scores) for scores, _ in rounds]
        merged = [0.0] * len(values[0])
        for (scores, members), of_round in zip(rounds, logsumexps, strict=True):
            round_weight = math.exp(of_round - _logsumexp(logsumexps))
            for s, j in zip(scores, members, strict=True):
                weight = round_weight * math.exp(s - of_round)
                merged = [m + weight * x for m, x in zip(merged, values[j], strict=True)]
        output.append(merged)
    return output


def _logsumexp(values: Sequence[float]) -> float:
    highest = max(values)
    return highest + math.log(sum(math.exp(x - highest) for x in values))
