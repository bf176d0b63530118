// One new token of a row: its key and value are written to the cache, and its query attends to what is there.
#pragma once

#include "attention.h"

namespace reformer {
namespace {

inline float sum_of_lanes(Float x) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

inline float dot(const float* a, const float* b, int64_t D) {
  Float sum{};
  int64_t d = 0;
  for (; d + kLanes <= D; d += kLanes) sum += load<Float>(a + d) * load<Float>(b + d);
  float rest = 0;
  for (; d < D; ++d) rest += a[d] * b[d];
  return sum_of_lanes(sum) + rest;
}

// Turns the pairs (d, d + D/2) of a vector; `sin` has the signs.
inline void turn(float* to, const float* x, const float* cos, const float* sin, int64_t D) {
  for (int64_t d = 0; d < D; ++d) to[d] = cos ? x[d] * cos[d] + x[(d + D / 2) % D] * sin[d] : x[d];
}

// The bucket of a vector by the rotations of one round, [sum(factors) / 2, D].
inline int64_t bucket_of(const DecodeProblem& p, const float* q, const float* rotations) {
  int64_t bucket = 0, stride = 1;
  for (int64_t factor = 0; factor < p.num_factors; ++factor) {
    const int64_t half = p.factors[factor] / 2;
    float highest = 0, lowest = 0;
    int64_t argmax = 0, argmin = 0;
    for (int64_t i = 0; i < half; ++i, rotations += p.D) {
      const float product = dot(q, rotations, p.D);
      if (i == 0 || product > highest) highest = product, argmax = i;
      if (i == 0 || product < lowest) lowest = product, argmin = i;
    }
    bucket += stride * (highest >= -lowest ? argmax : half + argmin);
    stride *= 2 * half;
  }
  return bucket;
}

// Attention of a query over entries of a store [L, 2D], of which it may be one itself (`own`, or -1).
inline void attend_to_entries(const float* q, const float* kv, const int32_t* entries, int64_t count,
                              int32_t own, int64_t D, float* weights, float* out) {
  Float highest = broadcast(kMasked);
  for (int64_t i = 0; i < count; ++i) {
    if (i + 4 < count)
      for (int64_t d = 0; d < 2 * D; d += 16) __builtin_prefetch(kv + entries[i + 4] * 2 * D + d);
    weights[i] = entries[i] == own ? kSelfScore : kLog2E * dot(q, kv + entries[i] * 2 * D, D);
  }
  for (int64_t i = count; i < padded(count); ++i) weights[i] = kMasked;
  for (int64_t i = 0; i < count; i += kLanes) highest = max(load<Float>(weights + i), highest);
  float top = highest[0];
  for (int i = 1; i < kLanes; ++i) top = highest[i] > top ? highest[i] : top;
  Float total{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Float weight = exp2(load<Float>(weights + i) - top);
    total += weight;
    store(weights + i, weight);
  }
  const float scale = 1 / sum_of_lanes(total);
  __builtin_memset(out, 0, D * sizeof(float));
  for (int64_t i = 0; i < count; ++i) {
    const float* value = kv + entries[i] * 2 * D + D;
    const float weight = weights[i] * scale;
    int64_t d = 0;
    for (; d + kLanes <= D; d += kLanes) store(out + d, load<Float>(out + d) + weight * load<Float>(value + d));
    for (; d < D; ++d) out[d] += weight * value[d];
  }
}

inline int64_t decode_scratch_floats(const DecodeProblem& p) {
  return 2 * padded(p.R ? p.R * p.ring_width : p.L) + p.D;
}

// The next token of a row (head of a batch element).
inline void decode(const DecodeProblem& p, int64_t row, float* scratch) {
  const int64_t D = p.D, b = row / p.H, most = padded(p.R ? p.R * p.ring_width : p.L);
  float *weights = scratch, *turned = scratch + 2 * most;
  int32_t* entries = (int32_t*)(scratch + most);
  const float *q = p.q + row * D, *placed = p.placed ? p.placed + row * D : q;
  const float *cos = p.cos ? p.cos + b * D : nullptr, *sin = p.sin ? p.sin + b * D : nullptr;
  float* kv = p.kv + row * p.L * 2 * D;
  const int64_t position = p.positions[b];
  const int64_t own = p.R ? p.free_entries[row * p.L] : position % p.L;
  turn(kv + own * 2 * D, p.k + row * D, cos, sin, D);
  __builtin_memcpy(kv + own * 2 * D + D, p.v + row * D, D * sizeof(float));
  turn(turned, q, cos, sin, D);

  int64_t count = 0, num_rotations = 0;
  for (int64_t i = 0; i < p.num_factors; ++i) num_rotations += p.factors[i] / 2;
  for (int64_t r = 0; r < p.R; ++r) {
    const float* rotations = p.rotations + (row % p.H * p.R + r) * num_rotations * D;
    const int64_t first = (row * p.R + r) * p.num_rings;
    const int64_t bucket = first + bucket_of(p, placed, rotations);
    p.rings[bucket * p.ring_width + p.num_members[bucket]++ % p.ring_width] = (int32_t)own;
    const int64_t seen = p.placed ? first + bucket_of(p, q, rotations) : bucket;
    const int64_t held = p.num_members[seen] < p.ring_width ? p.num_members[seen] : p.ring_width;
    for (int64_t i = 0; i < held; ++i) entries[count++] = p.rings[seen * p.ring_width + i];
  }
  if (p.R) {
    p.born[row * p.L + own] = (int32_t)p.clock;
  } else {
    const int64_t chunk = position / p.chunk_length - p.chunks_before;
    for (int64_t seen = chunk < 0 ? 0 : chunk * p.chunk_length; seen <= position; ++seen)
      entries[count++] = (int32_t)(seen % p.L);
  }
  const int32_t penalized = p.R && !p.placed ? (int32_t)own : -1;
  attend_to_entries(turned, kv, entries, count, penalized, D, weights, p.out + row * D);
}

}  // namespace
}  // namespace reformer
