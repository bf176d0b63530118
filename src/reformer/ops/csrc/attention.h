// Attention of tiles of queries over gathered keys.
//
// Scores are kept transposed, [keys, queries of the tile], so that queries lie along vector lanes: masks,
// maxima and sums are then vertical, and keys and values are read as they lie in memory.
#pragma once

#include "problem.h"
#include "product.h"

namespace reformer {
namespace {

constexpr float kSelfScore = -144269.50408889634f;  // -1e5 in units of log2
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kMasked = -__builtin_inff();
constexpr int kTileVecs = kTile / kLanes;

inline int64_t padded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }

inline int64_t offset(const Rows& rows, int64_t H, int64_t row, int64_t position) {
  return row / H * rows.batch + row % H * rows.head + position * rows.token;
}

inline float from_bfloat16(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float y;
  __builtin_memcpy(&y, &bits, sizeof y);
  return y;
}

// Copies a vector to float32, with zeros behind it; false where an element is NaN or infinite.
inline bool copy_row(float* to, const void* data, int64_t start, int64_t size, int64_t padded_size, bool bfloat16) {
  if (bfloat16) {
    const uint16_t* from = (const uint16_t*)data + start;
    for (int64_t d = 0; d < size; ++d) to[d] = from_bfloat16(from[d]);
  } else {
    __builtin_memcpy(to, (const float*)data + start, size * sizeof(float));
  }
  for (int64_t d = size; d < padded_size; ++d) to[d] = 0;
  Float zero{};
  for (int64_t d = 0; d < padded_size; d += kLanes) zero += load<Float>(to + d) * Float{};
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += zero[i];
  return sum == 0;
}

inline void prefetch_row(const void* data, int64_t start, int64_t size, bool bfloat16) {
  const char* from = (const char*)data + start * (bfloat16 ? 2 : 4);
  for (int64_t byte = 0; byte < size * (bfloat16 ? 2 : 4); byte += 64) __builtin_prefetch(from + byte);
}

// to [size, kTile] = transpose of from [kTile, size], times a factor.
inline void transpose_tile(float* to, const float* from, int64_t size, float factor) {
  for (int64_t d = 0; d < size; d += kLanes)
    for (int i = 0; i < kTile; i += kLanes) {
      Float x[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) x[lane] = load<Float>(from + (i + lane) * size + d);
      transpose(x);
      for (int lane = 0; lane < kLanes; ++lane) store(to + (d + lane) * kTile + i, x[lane] * factor);
    }
}

// Scratch memory handed out piece by piece, each aligned to a cache line.
struct Arena {
  float* next;
  float* take(int64_t count) {
    float* taken = next;
    next += (count + 15) / 16 * 16;
    return taken;
  }
};

// The key slots [first, first + length) of a group, gathered.
struct Run {
  int32_t first, length;
  int32_t* position;  // of each key
  float *k, *v;       // [length, padded D or Dv]
  float *grad_k, *grad_v;
  bool finite_k, finite_v;
};

// Queries of a tile, in lanes. A lane without a query sees nothing.
struct Tile {
  int count;
  int32_t query[kTile];     // index among the queries of the row
  int32_t position[kTile];  // among the keys of the row
  int32_t lo[kTile], hi[kTile];
  uint32_t dropout_seed[kTile];
  float *q, *q_transposed;        // [kTile, padded D] and [padded D, kTile], the latter in units of log2
  float *grad, *grad_transposed;  // of the output, likewise, padded Dv
  bool finite_q, finite_grad;
};

// Keys of a run that follow each other and of which the tile sees some.
struct Stretch {
  int32_t first_key;  // in the run
  int32_t first_row;  // in the score matrix
  int32_t length;
};

inline void fill_tile(Tile& tile, const Problem& p, const Plan& plan, int64_t first, int64_t stop) {
  const int64_t size = padded(p.D), query_offset = p.Tk - p.Tq;
  tile.count = (int)(stop - first < kTile ? stop - first : kTile);
  tile.finite_q = true;
  const uint32_t row_seed =
      ((uint32_t)plan.row * 1000003u + (uint32_t)plan.round) * 0x27D4EB2Fu + (uint32_t)p.dropout_seed;
  for (int i = 0; i < kTile; ++i) {
    const bool filled = i < tile.count;
    const int64_t place = filled ? first + i : first;
    tile.query[i] = plan.queries[place];
    tile.position[i] = filled ? (int32_t)(tile.query[i] + query_offset) : -1;
    tile.lo[i] = plan.lo[place];
    tile.hi[i] = filled ? plan.hi[place] : tile.lo[i];
    tile.dropout_seed[i] = (row_seed ^ ((uint32_t)tile.position[i] * 0x165667B1u)) * 0x2545F491u;
    if (filled) {
      if (place + 8 < stop) {
        prefetch_row(p.q.data, offset(p.q, p.H, plan.row, plan.queries[place + 8]), p.D, p.bfloat16);
      }
      tile.finite_q &= copy_row(tile.q + i * size, p.q.data, offset(p.q, p.H, plan.row, tile.query[i]), p.D,
                                size, p.bfloat16);
    } else {
      __builtin_memset(tile.q + i * size, 0, size * sizeof(float));
    }
  }
  transpose_tile(tile.q_transposed, tile.q, size, kLog2E);
}

inline void fill_run(Run& run, const Problem& p, const Plan& plan, int32_t first, int32_t stop) {
  const int64_t k_size = padded(p.D), v_size = padded(p.Dv);
  run.first = first;
  run.length = (stop - first + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
  run.finite_k = run.finite_v = true;
  int64_t slot = first % plan.num_slots;
  if (slot < 0) slot += plan.num_slots;
  for (int i = 0; i < run.length; ++i) {
    run.position[i] = plan.keys[slot];
    if (++slot == plan.num_slots) slot = 0;
  }
  for (int i = 0; i < stop - first; ++i) {
    const int ahead = i + 8;
    if (ahead < stop - first) {
      prefetch_row(p.k.data, offset(p.k, p.H, plan.row, run.position[ahead]), p.D, p.bfloat16);
      prefetch_row(p.v.data, offset(p.v, p.H, plan.row, run.position[ahead]), p.Dv, p.bfloat16);
    }
    run.finite_k &= copy_row(run.k + i * k_size, p.k.data, offset(p.k, p.H, plan.row, run.position[i]), p.D,
                             k_size, p.bfloat16);
    run.finite_v &= copy_row(run.v + i * v_size, p.v.data, offset(p.v, p.H, plan.row, run.position[i]), p.Dv,
                             v_size, p.bfloat16);
  }
  for (int i = stop - first; i < run.length; ++i) {
    __builtin_memset(run.k + i * k_size, 0, k_size * sizeof(float));
    __builtin_memset(run.v + i * v_size, 0, v_size * sizeof(float));
  }
}

// Groups of keys that the tile sees, as few stretches as possible.
inline int find_stretches(Stretch* stretches, const Tile& tile, const Run& run) {
  int count = 0, num_rows = 0;
  int from = tile.lo[0] - run.first, to = tile.hi[tile.count - 1] - run.first;
  from = from < 0 ? 0 : from / kKeyGroup * kKeyGroup;
  to = to > run.length ? run.length : to;
  for (int key = from; key < to; key += kKeyGroup) {
    const Int first = broadcast(run.first + key);
    Int seen{};
    for (int j = 0; j < kTileVecs; ++j)
      seen |= (load<Int>(tile.lo + j * kLanes) < first + kKeyGroup) & (load<Int>(tile.hi + j * kLanes) > first) &
              (load<Int>(tile.hi + j * kLanes) > load<Int>(tile.lo + j * kLanes));
    int32_t any = 0;
    for (int i = 0; i < kLanes; ++i) any |= seen[i];
    if (!any) continue;
    if (count && stretches[count - 1].first_key + stretches[count - 1].length == key)
      stretches[count - 1].length += kKeyGroup;
    else
      stretches[count++] = {key, num_rows, kKeyGroup};
    num_rows += kKeyGroup;
  }
  return count;
}

// How often the queries of a tile see the keys of a slot, over all rounds: log2 of it.
inline Float log2_count(const Problem& p, const Plan& plan, const Tile& tile, int32_t key, int first_lane) {
  Float result;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int32_t query = tile.query[first_lane + lane];
    int64_t count = 0;
    for (int64_t r = 0; r < p.R; ++r) {
      const int64_t lo = plan.lo_of_query[r * p.Tq + query], hi = plan.hi_of_query[r * p.Tq + query];
      for (int64_t s = p.window == kChunk ? 0 : r; s < (p.window == kChunk ? p.R : r + 1); ++s) {
        int64_t slot = plan.slot_of_key[s * p.Tk + key];
        if (slot < 0) continue;
        slot += (lo - slot) / plan.num_slots * plan.num_slots;  // one period off at most
        for (slot -= plan.num_slots; slot < hi; slot += plan.num_slots) count += slot >= lo;
      }
    }
    result[lane] = count > 1 ? __builtin_log2f((float)count) : 0.0f;
  }
  return result;
}

// What the elementwise passes need to know of one key and kLanes queries.
struct Sight {
  Int seen;
  Int own;  // the query's own key, where that is penalised
};

inline Sight sight(const Problem& p, const Tile& tile, const Run& run, int key, int first_lane) {
  const Int slot = broadcast(run.first + key), k_position = broadcast(run.position[key]);
  const Int q_position = load<Int>(tile.position + first_lane);
  Int seen = (slot >= load<Int>(tile.lo + first_lane)) & (slot < load<Int>(tile.hi + first_lane));
  if (p.causal) seen &= k_position <= q_position;
  return {seen, p.penalize_self ? k_position == q_position : Int{}};
}

inline Float masked_score(const Problem& p, const Plan& plan, const Tile& tile, const Run& run, int key,
                          int first_lane, Float score, const Sight& sight) {
  score = select(sight.own, broadcast(kSelfScore), score);
  if (plan.slot_of_key) score -= log2_count(p, plan, tile, run.position[key], first_lane);
  return select(sight.seen, score, broadcast(kMasked));
}

// Dropout decides by position: see ops/dropout.py.
inline Float dropped(const Problem& p, const Tile& tile, int32_t k_position, int first_lane, Float weight) {
  Uint x = load<Uint>(tile.dropout_seed + first_lane) ^ broadcast((uint32_t)k_position * 0x9E3779B1u);
  x = (x ^ (x >> 16)) * 0x7FEB352Du;
  x = (x ^ (x >> 15)) * 0x846CA68Bu;
  x ^= x >> 16;
  return select((Int)x >= broadcast((int32_t)p.dropout_threshold), weight * (float)p.dropout_scale, Float{});
}

struct Workspace {
  Tile tile;
  Run run;
  Stretch stretches[kMaxRun / kKeyGroup];
  float *scores, *grad_scores;  // [keys, kTile]
  float* rows;                  // [kTile, padded D or Dv]
};

inline int64_t layout_workspace(Workspace& w, const Problem& p, float* scratch) {
  Arena arena{scratch};
  const int64_t D = padded(p.D), Dv = padded(p.Dv), run = max_run(p), widest = D > Dv ? D : Dv;
  w.tile.q = arena.take(kTile * D);
  w.tile.q_transposed = arena.take(kTile * D);
  w.tile.grad = arena.take(kTile * Dv);
  w.tile.grad_transposed = arena.take(kTile * Dv);
  w.scores = arena.take(run * kTile);
  w.grad_scores = arena.take(run * kTile);
  w.rows = arena.take(kTile * widest);
  w.run.position = (int32_t*)arena.take(run);
  w.run.k = arena.take(run * D);
  w.run.v = arena.take(run * Dv);
  w.run.grad_k = arena.take(run * D);
  w.run.grad_v = arena.take(run * Dv);
  return arena.next - scratch;
}

inline int64_t scratch_floats(const Problem& p) {
  Workspace w;
  static float nothing;
  return layout_workspace(w, p, &nothing);
}

template <Order order, bool Add>
inline void careful_product(bool finite, float* C, int64_t ldc, const float* A, int64_t lda, const float* B,
                            int64_t ldb, int64_t m, int64_t n, int64_t depth) {
  if (finite)
    product<order, Add, Zeros::kMultiply>(C, ldc, A, lda, B, ldb, m, n, depth);
  else
    product<order, Add, Zeros::kSkip>(C, ldc, A, lda, B, ldb, m, n, depth);
}

// rows [kTile, size] = sum over the keys of a run of weights [keys, kTile] times vectors [keys, size].
inline void weighted_sum(float* rows, const float* weights, const float* vectors, int64_t size, bool finite,
                         const Stretch* stretches, int count) {
  for (int s = 0; s < count; ++s) {
    const float* A = weights + stretches[s].first_row * kTile;
    const float* B = vectors + stretches[s].first_key * size;
    const int64_t depth = stretches[s].length;
    if (s == 0)
      careful_product<Order::kByStep, false>(finite, rows, size, A, kTile, B, size, kTile, size, depth);
    else
      careful_product<Order::kByStep, true>(finite, rows, size, A, kTile, B, size, kTile, size, depth);
  }
}

inline void compute_scores(float* scores, const float* keys, const float* queries_transposed, int64_t size,
                           const Stretch* stretches, int count) {
  for (int s = 0; s < count; ++s)
    product<Order::kByRow, false>(scores + stretches[s].first_row * kTile, kTile,
                                  keys + stretches[s].first_key * size, size, queries_transposed, kTile,
                                  stretches[s].length, kTile, size);
}

inline void forward_tile(Workspace& w, const Problem& p, const Plan& plan, bool finish) {
  Tile& tile = w.tile;
  const int count = find_stretches(w.stretches, tile, w.run);
  const int64_t first_query = plan.row * p.Tq;
  for (int i = 0; i < tile.count; ++i)
    prefetch_row(p.out.data, offset(p.out, p.H, plan.row, tile.query[i]), p.Dv, false);
  compute_scores(w.scores, w.run.k, tile.q_transposed, padded(p.D), w.stretches, count);

  alignas(64) float highest[kTile], total[kTile], old_weight[kTile];
  for (int i = 0; i < kTile; ++i) {
    highest[i] = i < tile.count ? p.highest[first_query + tile.query[i]] : kMasked;
    total[i] = i < tile.count ? p.total[first_query + tile.query[i]] : 0;
  }
  for (int lane = 0; lane < kTile; lane += kLanes) {
    const Float old = load<Float>(highest + lane);
    Float best = old;
    for (int s = 0; s < count; ++s)
      for (int i = 0; i < w.stretches[s].length; ++i) {
        float* score = w.scores + (w.stretches[s].first_row + i) * kTile + lane;
        const int key = w.stretches[s].first_key + i;
        const Float x = masked_score(p, plan, tile, w.run, key, lane, load<Float>(score),
                                     sight(p, tile, w.run, key, lane));
        store(score, x);
        best = max(x, best);
      }
    const Float reference = select(best > broadcast(kMasked), best, Float{});
    const Float weight_of_old = exp2(old - reference);
    Float sum = load<Float>(total + lane) * weight_of_old;
    for (int s = 0; s < count; ++s)
      for (int i = 0; i < w.stretches[s].length; ++i) {
        float* score = w.scores + (w.stretches[s].first_row + i) * kTile + lane;
        Float x = exp2(load<Float>(score) - reference);
        sum += x;
        if (p.dropout_scale)
          x = dropped(p, tile, w.run.position[w.stretches[s].first_key + i], lane, x);
        store(score, x);
      }
    store(highest + lane, best);
    store(total + lane, sum);
    store(old_weight + lane, weight_of_old);
  }
  const int64_t size = padded(p.Dv);
  if (count) weighted_sum(w.rows, w.scores, w.run.v, size, w.run.finite_v, w.stretches, count);
  for (int i = 0; i < tile.count; ++i) {
    float* out = (float*)p.out.data + offset(p.out, p.H, plan.row, tile.query[i]);
    const float* row = w.rows + i * size;
    const float factor = finish && total[i] != 0 ? 1 / total[i] : 1, old = old_weight[i] * factor;
    if (old_weight[i] == 0 && count) {  // the first to be seen; what is there was never written
      for (int64_t d = 0; d < p.Dv; ++d) out[d] = row[d] * factor;
    } else if (count) {
      for (int64_t d = 0; d < p.Dv; ++d) out[d] = out[d] * old + row[d] * factor;
    } else if (factor != 1) {
      for (int64_t d = 0; d < p.Dv; ++d) out[d] *= factor;
    }
    p.highest[first_query + tile.query[i]] = highest[i];
    p.total[first_query + tile.query[i]] = total[i];
  }
}

inline void forward(const Problem& p, const Plan& plan, const Group& group, float* scratch) {
  Workspace w;
  layout_workspace(w, p, scratch);
  const int32_t step = (int32_t)max_run(p);
  int32_t first = group.first_slot;
  do {
    const int32_t stop = group.stop_slot - first > step ? first + step : group.stop_slot;
    fill_run(w.run, p, plan, first, stop);
    const bool last = stop == group.stop_slot;
    for (int64_t query = group.first_query; query < group.stop_query; query += kTile) {
      fill_tile(w.tile, p, plan, query, group.stop_query);
      forward_tile(w, p, plan, last && plan.round == p.R - 1);
    }
    first = stop;
  } while (first < group.stop_slot);
}

}  // namespace
}  // namespace reformer
