// Cross-polytope hashing: rotation products of a tile of tokens and their argmax, never stored.
#pragma once

#include "attention.h"

namespace reformer {
namespace {

constexpr int kRotations = 32;  // products of a tile at once

inline int64_t hash_scratch_floats(const HashProblem& p) {
  const int64_t D = padded(p.D);
  return 2 * kTile * D + 2 * kRotations * kTile + kRotations * D;
}

// Buckets of tokens [first_token, stop_token) of a row, in all rounds.
inline void hash(const HashProblem& p, int64_t row, int64_t first_token, int64_t stop_token, float* scratch) {
  const int64_t D = padded(p.D), h = row % p.H;
  float *x = scratch, *x_transposed = x + kTile * D, *products = x_transposed + kTile * D;
  float* last_rotations = products + kRotations * kTile;
  const Vectors vectors(p.x, p.H, row, p.D, p.bfloat16);
  int64_t num_rotations = 0;
  for (int64_t i = 0; i < p.num_factors; ++i) num_rotations += p.factors[i] / 2;
  for (int64_t token = first_token; token < stop_token; token += kTile) {
    const int count = (int)(stop_token - token < kTile ? stop_token - token : kTile);
    __builtin_memset(x, 0, kTile * D * sizeof(float));
    Int unused{};
    for (int i = 0; i < count; ++i) vectors.copy(token + i, x + i * D, unused);
    transpose_tile(x_transposed, x, D);
    for (int64_t r = 0; r < p.R; ++r) {
      const float* rotation = p.rotations + (h * p.R + r) * num_rotations * p.D;
      int64_t stride = 1;
      Int bucket[kTileVecs] = {};
      for (int64_t factor = 0; factor < p.num_factors; ++factor) {
        const int64_t half = p.factors[factor] / 2;
        Float highest[kTileVecs], lowest[kTileVecs];
        Int argmax[kTileVecs] = {}, argmin[kTileVecs] = {};
        for (int64_t first = 0; first < half; first += kRotations) {
          const int64_t here = half - first < kRotations ? half - first : kRotations;
          const float* rows = rotation + first * p.D;
          if (here % kKeyGroup) {  // fewer than the product takes at once
            __builtin_memcpy(last_rotations, rows, here * p.D * sizeof(float));
            rows = last_rotations;
          }
          product<Order::kByRow, false>(products, kTile, rows, p.D, x_transposed, kTile,
                                        (here + kKeyGroup - 1) / kKeyGroup * kKeyGroup, kTile, p.D);
          for (int j = 0; j < kTileVecs; ++j) {
            for (int64_t i = 0; i < here; ++i) {
              const Float value = load<Float>(products + i * kTile + j * kLanes);
              const Int index = broadcast((int32_t)(first + i));
              if (first + i == 0) highest[j] = lowest[j] = value;
              const Int above = value > highest[j], below = value < lowest[j];
              highest[j] = above ? value : highest[j];
              argmax[j] = above ? index : argmax[j];
              lowest[j] = below ? value : lowest[j];
              argmin[j] = below ? index : argmin[j];
            }
          }
        }
        for (int j = 0; j < kTileVecs; ++j)
          bucket[j] += (int32_t)stride * (highest[j] >= -lowest[j] ? argmax[j] : argmin[j] + (int32_t)half);
        rotation += half * p.D;
        stride *= 2 * half;
      }
      alignas(64) int32_t buckets[kTile];
      for (int j = 0; j < kTileVecs; ++j) store(buckets + j * kLanes, bucket[j]);
      for (int i = 0; i < count; ++i) {
        const bool real =
            !p.mask.data || p.mask.data[row / p.H * p.mask.batch + (token + i) * p.mask.token];
        p.buckets[(row * p.R + r) * p.T + token + i] = real ? buckets[i] : stride;
      }
    }
  }
}

}  // namespace
}  // namespace reformer
