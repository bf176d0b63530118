// The same tiles with bfloat16 products, where the processor has them: one instruction multiplies pairs of
// neighbours along the depth of a product and adds them up in float32. Vectors are gathered as they are stored,
// and a second time with the elements of two vectors in turn, for products whose depth runs over vectors.
//
// A product with a weight of 0 cannot be skipped here, so what is not finite is left to the other path.
#pragma once

#include "backward.h"

namespace reformer {
namespace {

constexpr uint16_t kExponent = 0x7f80;  // of NaN and infinity

// Vectors as bfloat16 [count, size], and as pairs [count / 2, size] of float places.
struct PairedVectors {
  uint16_t* plain;
  float* pairs;
  int64_t size;

  PairedVectors(float* memory, int64_t count, int64_t size)
      : plain((uint16_t*)memory), pairs(memory + count * size / 2), size(size) {}

  // Stores vector i and, where it is the second of two, the pairs of both. `check` gets bits where an element is NaN
  // or infinite.
  void gather(const Vectors& from, int32_t position, int i, ManyHalves& check) const {
    const uint16_t* data = (const uint16_t*)(from.data + position * from.step);
    uint16_t* to = plain + i * size;
    for (int64_t d = 0; d < size; d += 2 * kLanes) {
      ManyHalves x{};
      if (d + 2 * kLanes <= from.size)
        x = load<ManyHalves>(data + d);
      else if (d < from.size)
        __builtin_memcpy(&x, data + d, (from.size - d) * sizeof(uint16_t));
      store(to + d, x);
      check |= (ManyHalves)((x & kExponent) == kExponent);
    }
    if (i % 2) pair(i);
  }

  void clear(int i) const {
    __builtin_memset(plain + i * size, 0, size * sizeof(uint16_t));
    if (i % 2) pair(i);
  }

  void pair(int i) const {
    constexpr auto lanes = std::make_integer_sequence<int, 2 * kLanes>{};
    const uint16_t *first = plain + (i - 1) * size, *second = first + size;
    float* to = pairs + i / 2 * size;
    for (int64_t d = 0; d < size; d += 2 * kLanes) {
      const ManyHalves x = load<ManyHalves>(first + d), y = load<ManyHalves>(second + d);
      store(to + d, interleave<false>(x, y, lanes));
      store(to + d + kLanes, interleave<true>(x, y, lanes));
    }
  }
};

struct PairedWorkspace {
  PairedVectors k, v, q, grad;

  PairedWorkspace(const Workspace& w, const Problem& p)
      : k(w.run.k, max_run(p) + kRunPadding, padded_pairs(p.D)),
        v(w.run.v, max_run(p) + kRunPadding, padded_pairs(p.Dv)),
        q(w.tile.q, kTile, padded_pairs(p.D)),
        grad(w.tile.grad, kTile, padded_pairs(p.Dv)) {}
};

// As fill_run; false where something is not finite.
inline bool fill_paired_run(const PairedWorkspace& pairs, Run& run, const Row& row, int32_t stop_slot) {
  const int stop = stop_slot - run.first < run.length ? stop_slot - run.first : run.length;
  if (stop <= run.num_filled) return true;
  ManyHalves check{};
  for (int i = run.num_filled; i < stop; ++i) {
    pairs.k.gather(row.k, run.position[i], i, check);
    pairs.v.gather(row.v, run.position[i], i, check);
  }
  run.num_filled = stop;
  const int stop_group = (stop + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  for (int i = stop; i < stop_group + kRunPadding; ++i) {
    pairs.k.clear(i);
    pairs.v.clear(i);
    if (i >= run.length) run.position[i] = run.position[0];
  }
  return is_zero((Int)check);
}

// The vectors of a tile's queries, gathered, and transposed to [size / 2, kTile] pairs.
inline bool fill_paired_tile(const PairedVectors& to, float* transposed, const Tile& tile, const Vectors& from) {
  ManyHalves check{};
  for (int i = 0; i < tile.count; ++i) to.gather(from, tile.query[i], i, check);
  for (int i = tile.count; i < kTile; ++i) to.clear(i);
  transpose_tile(transposed, (const float*)to.plain, to.size / 2);
  return is_zero((Int)check);
}

// C [m, n] = A [m, depth] @ B [depth, n], or added to C: A as vectors are stored, B in pairs along the depth.
template <bool Add>
inline void paired_product(float* C, int64_t ldc, const void* A, int64_t lda, const float* B, int64_t ldb, int64_t m,
                           int64_t n, int64_t depth, Prefetcher& ahead) {
#ifdef REFORMER_AMX
  tile_product<Add>(C, ldc, (const float*)A, lda, B, ldb, m, n, depth / 2, ahead);
#else
  product<Order::kByRow, Add, Zeros::kMultiply, Element::kPair>(C, ldc, (const float*)A, lda, B, ldb, m, n, depth / 2,
                                                                &ahead);
#endif
}

inline int64_t paired_work(int64_t m, int64_t n, int64_t depth) {
#ifdef REFORMER_AMX
  return tile_work(m, n, depth / 2);
#else
  return product_work(m, n, depth / 2);
#endif
}

#ifdef REFORMER_AMX
// Weights of some pairs of keys, query by query: [kTile, pairs], with zeros up to a multiple of kLanes; returns how many
// there are then.
inline int64_t weights_by_query(Workspace& w, int64_t pitch, const float* weights, int64_t pairs) {
  int64_t first = 0;
  for (; first < pairs; first += kLanes)
    for (int lane = 0; lane < kTile; lane += kLanes) {
      Float x[kLanes];
      for (int i = 0; i < kLanes; ++i)
        x[i] = first + i < pairs ? load<Float>(weights + (first + i) * 2 * kTile + lane) : Float{};
      transpose(x);
      for (int i = 0; i < kLanes; ++i) store(w.weights_by_query + (lane + i) * pitch + first, x[i]);
    }
  return first;
}
#endif

// w.rows [kTile, n] = sum over the keys of weights, in pairs of keys, times vectors.
inline void paired_sum(Workspace& w, const Problem& p, int64_t n, const float* weights, const PairedVectors& vectors,
                       int count) {
  for (int s = 0; s < count; ++s) {
    const Stretch& part = w.stretches[s];
    const float* A = weights + part.first_row * kTile;
    const float* B = vectors.pairs + part.first_key / 2 * vectors.size;
#ifdef REFORMER_AMX
    const int64_t pitch = weights_pitch(p), pairs = weights_by_query(w, pitch, A, part.length / 2);
    (s ? tile_product<true> : tile_product<false>)(w.rows, n, w.weights_by_query, pitch, B, vectors.size, kTile, n,
                                                   pairs, w.ahead);
#else
    (s ? product<Order::kByStep, true, Zeros::kMultiply, Element::kPair>
       : product<Order::kByStep, false, Zeros::kMultiply, Element::kPair>)(w.rows, n, A, 2 * kTile, B, vectors.size,
                                                                           kTile, n, part.length / 2, &w.ahead);
#endif
  }
}

inline void paired_scores(float* scores, const PairedVectors& keys, const float* queries_transposed, Workspace& w,
                          int count) {
  for (int s = 0; s < count; ++s)
    paired_product<false>(scores + w.stretches[s].first_row * kTile, kTile,
                          keys.plain + w.stretches[s].first_key * keys.size, keys.size / 2, queries_transposed, kTile,
                          w.stretches[s].length, kTile, keys.size, w.ahead);
}

inline bool paired_forward_tile(Workspace& w, const Problem& p, const Plan& plan, const Row& row, bool finish) {
  const PairedWorkspace pairs(w, p);
  const int64_t size = row.v.padded_size;
  if (!fill_paired_tile(pairs.q, w.tile.q_transposed, w.tile, row.q)) return false;
  const int count = find_stretches(w.stretches, w.tile, w.run), num_keys = count_keys(w.stretches, count);
  Merge merge;
  w.ahead.spread(paired_work(num_keys, kTile, pairs.q.size) + paired_work(kTile, size, num_keys) +
                 num_keys * kTileVecs * kSoftmaxWork / 2);
  paired_scores(w.scores, pairs.k, w.tile.q_transposed, w, count);
  softmax<Element::kPair>(w, p, plan, row, count, merge);
  paired_sum(w, p, size, w.scores, pairs.v, count);
  merge_tile(w, row, merge, size, count, finish);
  return true;
}

inline bool paired_backward_tile(Workspace& w, const Problem& p, const Plan& plan, const Row& row) {
  const PairedWorkspace pairs(w, p);
  Tile& tile = w.tile;
  const int count = find_stretches(w.stretches, tile, w.run);
  if (!count) {
    clear_query_gradients(tile, row);
    return true;
  }
  if (!fill_paired_tile(pairs.q, tile.q_transposed, tile, row.q)) return false;
  if (!fill_paired_tile(pairs.grad, tile.grad_transposed, tile, row.grad_out)) return false;
  const int64_t D = row.k.padded_size, Dv = row.v.padded_size;
  const int num_keys = count_keys(w.stretches, count);
  w.ahead.spread(2 * (paired_work(num_keys, kTile, D) + paired_work(num_keys, kTile, Dv)) +
                 paired_work(kTile, D, num_keys) + num_keys * kTileVecs * kSoftmaxGradientWork / 2);
  paired_scores(w.scores, pairs.k, tile.q_transposed, w, count);
  paired_scores(w.grad_scores, pairs.v, tile.grad_transposed, w, count);
  weights_and_gradients<Element::kPair>(w, p, plan, row, count);
  for (int s = 0; s < count; ++s) {
    const Stretch& part = w.stretches[s];
    paired_product<true>(w.run.grad_v + part.first_key * Dv, Dv, w.scores + part.first_row * kTile, kTile,
                         pairs.grad.pairs, pairs.grad.size, part.length, Dv, kTile, w.ahead);
    paired_product<true>(w.run.grad_k + part.first_key * D, D, w.halves + part.first_row * kTile / 2, kTile / 2,
                         pairs.q.pairs, pairs.q.size, part.length, D, kTile, w.ahead);
  }
  paired_sum(w, p, D, w.grad_scores, pairs.k, count);
  add_query_gradients(w, row, D);
  return true;
}

}  // namespace
}  // namespace reformer
