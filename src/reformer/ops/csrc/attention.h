// Attention of tiles of queries over gathered keys.
//
// Scores are kept transposed, [keys, queries of the tile], so that queries lie along vector lanes: masks,
// maxima and sums are then vertical, and keys and values are read as they lie in memory.
#pragma once

#include "problem.h"
#include "tiles.h"

namespace reformer {
namespace {

constexpr float kSelfScore = -144269.50408889634f;  // -1e5 in units of log2
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kMasked = -__builtin_inff();
constexpr int kTileVecs = kTile / kLanes;
constexpr int kRunPadding = kHasTiles ? 24 : 0;  // key slots behind a run: products take 32 at a time

inline int64_t padded(int64_t size) { return (size + kLanes - 1) / kLanes * kLanes; }
inline int64_t padded_pairs(int64_t size) { return (size + 2 * kLanes - 1) / (2 * kLanes) * (2 * kLanes); }

inline float from_bfloat16(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float y;
  __builtin_memcpy(&y, &bits, sizeof y);
  return y;
}

// To the nearest, of two that are as near to the even one.
inline uint16_t to_bfloat16(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0;
}

typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef uint16_t ManyHalves __attribute__((vector_size(4 * kLanes)));

// Reads floats from memory of float32 or bfloat16, `at` counting elements.
template <bool kHalf>
inline Float read(const void* data, int64_t at) {
  if (kHalf) return (Float)(__builtin_convertvector(load<Halves>((const uint16_t*)data + at), Uint) << 16);
  return load<Float>((const float*)data + at);
}

// The vectors of one row (head of a batch element) of a tensor.
struct Vectors {
  char* data;
  int64_t step;  // bytes from one to the next
  int64_t size, padded_size;
  bool bfloat16;

  Vectors(const Rows& rows, int64_t H, int64_t row, int64_t size, bool bfloat16)
      : step(rows.token * (bfloat16 ? 2 : 4)), size(size), padded_size(padded(size)), bfloat16(bfloat16) {
    data = (char*)rows.data + (row / H * rows.batch + row % H * rows.head) * (bfloat16 ? 2 : 4);
  }

  float* floats(int64_t position) const { return (float*)(data + position * step); }

  int64_t bytes() const { return size * (bfloat16 ? 2 : 4); }

  // Writes a vector of float32 times a factor.
  void write(int64_t position, const float* from, float factor) const {
    if (bfloat16) {
      uint16_t* to = (uint16_t*)(data + position * step);
      for (int64_t d = 0; d < size; ++d) to[d] = to_bfloat16(from[d] * factor);
    } else {
      float* to = floats(position);
      for (int64_t d = 0; d < size; ++d) to[d] = from[d] * factor;
    }
  }

  void clear(int64_t position) const { __builtin_memset(data + position * step, 0, bytes()); }

  void fetch(Prefetcher& ahead, int64_t position) const { ahead.add(data + position * step, bytes()); }

  // Copies a vector to float32, with zeros behind it. `check` gets bits where an element is NaN or infinite.
  void copy(int64_t position, float* to, Int& check) const {
    const char* from = data + position * step;
    int64_t d = 0;
    for (; d + kLanes <= size; d += kLanes) {
      const Float x = bfloat16 ? read<true>(from, d) : read<false>(from, d);
      check |= (Int)(x - x);
      store(to + d, x);
    }
    if (d == size) return;
    for (int64_t end = padded_size; d < end; ++d)
      to[d] = d >= size ? 0 : bfloat16 ? from_bfloat16(((const uint16_t*)from)[d]) : ((const float*)from)[d];
    const Float last = load<Float>(to + padded_size - kLanes);
    check |= (Int)(last - last);
  }
};

// Rounds vectors [first, stop) of a row, of which `from` [T, size] has the sums, to bfloat16.
inline void round(const Rows& rows, int64_t H, int64_t row, const float* from, int64_t size, int64_t first, int64_t stop) {
  const Vectors to(rows, H, row, size, true);
  for (int64_t i = first; i < stop; ++i) to.write(i, from + i * size, 1);
}

// All that belongs to one row of the problem. The output and the gradients are in float32 while they grow.
struct Row {
  Vectors q, k, v, out, grad_out, grad_q, grad_k, grad_v;
  float *highest, *total, *delta;

  Row(const Problem& p, int64_t row)
      : q(p.q, p.H, row, p.D, p.bfloat16),
        k(p.k, p.H, row, p.D, p.bfloat16),
        v(p.v, p.H, row, p.Dv, p.bfloat16),
        out(p.out, p.H, row, p.Dv, writes_queries_once(p)),
        grad_out(p.grad_out, p.H, row, p.Dv, p.bfloat16),
        grad_q(p.grad_q, p.H, row, p.D, writes_queries_once(p)),
        grad_k(p.grad_k, p.H, row, p.D, false),
        grad_v(p.grad_v, p.H, row, p.Dv, false),
        highest(p.highest + row * p.Tq),
        total(p.total + row * p.Tq),
        delta(p.delta ? p.delta + row * p.Tq : nullptr) {}
};

// to [size, kTile] = transpose of from [kTile, size].
inline void transpose_tile(float* to, const float* from, int64_t size) {
  for (int64_t d = 0; d < size; d += kLanes)
    for (int i = 0; i < kTile; i += kLanes) {
      Float x[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) x[lane] = load<Float>(from + (i + lane) * size + d);
      transpose(x);
      for (int lane = 0; lane < kLanes; ++lane) store(to + (d + lane) * kTile + i, x[lane]);
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

// The key slots [first, first + length) of a group, of which the first `num_filled` have been gathered.
struct Run {
  int32_t first, length, num_filled;
  int32_t* position;  // of each key
  float *k, *v;       // [length, padded D or Dv]
  float *grad_k, *grad_v;
  Int check_k, check_v;
  bool finite_k, finite_v;
};

// Queries of a tile, in lanes. A lane without a query sees nothing.
struct Tile {
  int count;
  int32_t query[kTile];     // index among the queries of the row
  int32_t position[kTile];  // among the keys of the row
  int32_t lo[kTile], hi[kTile];
  uint32_t dropout_seed[kTile];
  float *q, *q_transposed;        // [kTile, padded D] and [padded D, kTile]
  float *grad, *grad_transposed;  // of the output, likewise, padded Dv
  bool finite_q, finite_grad;
};

// Keys of a run that follow each other and of which the tile sees some.
struct Stretch {
  int32_t first_key;  // in the run
  int32_t first_row;  // in the score matrix
  int32_t length;
};

inline void place_tile(Tile& tile, const Problem& p, const Plan& plan, int64_t first, int64_t stop) {
  const int64_t query_offset = p.Tk - p.Tq;
  tile.count = (int)(stop - first < kTile ? stop - first : kTile);
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
  }
}

// Gathers and transposes the vectors of a tile's queries; whether all are finite.
inline bool fill_tile(float* to, float* transposed, const Tile& tile, const Vectors& from) {
  const int64_t size = from.padded_size;
  Int check{};
  for (int i = 0; i < tile.count; ++i) from.copy(tile.query[i], to + i * size, check);
  __builtin_memset(to + tile.count * size, 0, (kTile - tile.count) * size * sizeof(float));
  transpose_tile(transposed, to, size);
  return is_zero(check);
}

// Where the key of a slot is in plan.keys.
inline int64_t place_of_slot(const Plan& plan, int32_t slot) {
  const int64_t place = slot % plan.num_slots;
  return place < 0 ? place + plan.num_slots : place;
}

inline void start_run(Run& run, const Plan& plan, int32_t first, int32_t stop) {
  run.first = first;
  run.length = stop - first;
  run.num_filled = 0;
  run.check_k = run.check_v = Int{};
  int64_t at = place_of_slot(plan, first);
  for (int i = 0; i < run.length; ++i) {
    run.position[i] = plan.keys[at];
    if (++at == plan.num_slots) at = 0;
  }
}

// Gathers the slots before `stop_slot`, and zeros up to a whole group of keys.
inline void fill_run(Run& run, const Row& row, int32_t stop_slot) {
  const int64_t k_size = row.k.padded_size, v_size = row.v.padded_size;
  const int stop = stop_slot - run.first < run.length ? stop_slot - run.first : run.length;
  if (stop <= run.num_filled) return;
  Int check_k = run.check_k, check_v = run.check_v;
  for (int i = run.num_filled; i < stop; ++i) {
    row.k.copy(run.position[i], run.k + i * k_size, check_k);
    row.v.copy(run.position[i], run.v + i * v_size, check_v);
  }
  run.check_k = check_k;
  run.check_v = check_v;
  run.num_filled = stop;
  const int num_empty = (kKeyGroup - stop % kKeyGroup) % kKeyGroup;
  __builtin_memset(run.k + stop * k_size, 0, num_empty * k_size * sizeof(float));
  __builtin_memset(run.v + stop * v_size, 0, num_empty * v_size * sizeof(float));
  for (int i = run.length; i < stop + num_empty; ++i) run.position[i] = run.position[0];
  run.finite_k = is_zero(run.check_k);
  run.finite_v = is_zero(run.check_v);
}

// Groups of keys that the tile sees, as few stretches as possible.
inline int find_stretches(Stretch* stretches, const Tile& tile, const Run& run) {
  int count = 0, num_rows = 0;
  int from = tile.lo[0] - run.first, to = tile.hi[tile.count - 1] - run.first;
  from = from < 0 ? 0 : from / kKeyGroup * kKeyGroup;
  to = to > run.num_filled ? run.num_filled : to;
  for (int key = from; key < to; key += kKeyGroup) {
    const Int first = broadcast(run.first + key);
    Int seen{};
    for (int j = 0; j < kTileVecs; ++j)
      seen |= (load<Int>(tile.lo + j * kLanes) < first + kKeyGroup) & (load<Int>(tile.hi + j * kLanes) > first) &
              (load<Int>(tile.hi + j * kLanes) > load<Int>(tile.lo + j * kLanes));
    if (is_zero(seen)) continue;
    if (count && stretches[count - 1].first_key + stretches[count - 1].length == key)
      stretches[count - 1].length += kKeyGroup;
    else
      stretches[count++] = {key, num_rows, kKeyGroup};
    num_rows += kKeyGroup;
  }
  return count;
}

// How often the queries of a tile see the keys of a slot, over all rounds: the logarithm of it.
inline Float log_count(const Problem& p, const Plan& plan, const Tile& tile, int32_t key, int first_lane) {
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
    result[lane] = count > 1 ? __builtin_logf((float)count) : 0.0f;
  }
  return result;
}

// What kLanes queries of a tile see of a run, and how their scores become weights.
struct Lanes {
  Int lo, last, self;  // the last position that is seen, and the one whose score is replaced
  Uint width, dropout_seed;
  Int dropout_threshold;
  float dropout_scale;

  Lanes(const Problem& p, const Tile& tile, int first_lane)
      : lo(load<Int>(tile.lo + first_lane)),
        last(p.causal ? load<Int>(tile.position + first_lane) : broadcast(INT32_MAX)),
        self(p.penalize_self ? load<Int>(tile.position + first_lane) : broadcast(-1)),
        width((Uint)(load<Int>(tile.hi + first_lane) - lo)),
        dropout_seed(load<Uint>(tile.dropout_seed + first_lane)),
        dropout_threshold(broadcast((int32_t)p.dropout_threshold)),
        dropout_scale((float)p.dropout_scale) {}

  Int sees(int32_t slot, int32_t k_position) const {
    return ((Uint)(broadcast(slot) - lo) < width) & (broadcast(k_position) <= last);
  }

  // The query's own key, where that is penalised.
  Int own(int32_t k_position) const { return broadcast(k_position) == self; }

  // Dropout decides by position: see ops/dropout.py.
  Float drop(int32_t k_position, Float weight) const {
    Uint x = dropout_seed ^ broadcast((uint32_t)k_position * 0x9E3779B1u);
    x = (x ^ (x >> 16)) * 0x7FEB352Du;
    x = (x ^ (x >> 15)) * 0x846CA68Bu;
    x ^= x >> 16;
    return select((Int)x >= dropout_threshold, weight * dropout_scale, Float{});
  }
};

// Two vectors as bfloat16, one behind the other.
struct TwoHalves {
  ManyHalves both;

  TwoHalves(Float x, Float y) {
#ifdef REFORMER_BF16
    const __m512bh rounded = _mm512_cvtne2ps_pbh((__m512)y, (__m512)x);
    __builtin_memcpy(&both, &rounded, sizeof both);
#else
    (void)x, (void)y;  // never called
    both = ManyHalves{};
#endif
  }

  Halves of(int vector) const {
    Halves x;
    __builtin_memcpy(&x, (const char*)&both + vector * sizeof x, sizeof x);
    return x;
  }

  // Two bfloat16 in the place of a float, that of the first vector in its lower half.
  template <int... I>
  Float pairs(std::integer_sequence<int, I...>) const {
    return (Float)__builtin_shufflevector(both, both, (I / 2 + I % 2 * kLanes)...);
  }
  Float pairs() const { return pairs(std::make_integer_sequence<int, 2 * kLanes>{}); }
};

struct Workspace {
  Tile tile;
  Run run;
  Prefetcher ahead;
  Stretch stretches[kMaxRun / kKeyGroup];
  float *scores, *grad_scores;  // [keys, kTile]
  float* rows;                  // [kTile, padded D or Dv]
  float* halves;                // bfloat16 [keys, kTile]
  float* weights_by_query;      // bfloat16 [kTile, keys], where there are tile registers
};

// Floats from one query to the next in weights_by_query: an odd number of cache lines, which then share no place in
// the cache.
inline int64_t weights_pitch(const Problem& p) { return padded_pairs(max_run(p) / 2) + kLanes; }

inline int64_t layout_workspace(Workspace& w, const Problem& p, float* scratch) {
  Arena arena{scratch};
  const int64_t D = padded_pairs(p.D), Dv = padded_pairs(p.Dv), widest = D > Dv ? D : Dv;
  const int64_t run = max_run(p) + kRunPadding;
  w.tile.q = arena.take(kTile * D);
  w.tile.q_transposed = arena.take(kTile * D);
  w.tile.grad = arena.take(kTile * Dv);
  w.tile.grad_transposed = arena.take(kTile * Dv);
  w.scores = arena.take(run * kTile);
  w.grad_scores = arena.take(run * kTile);
  w.rows = arena.take(kTile * widest);
  w.halves = arena.take(run * kTile / 2);
  w.weights_by_query = arena.take(kHasTiles ? kTile * weights_pitch(p) : 0);
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
                            int64_t ldb, int64_t m, int64_t n, int64_t depth, Prefetcher& ahead) {
  if (finite)
    product<order, Add, Zeros::kMultiply>(C, ldc, A, lda, B, ldb, m, n, depth, &ahead);
  else
    product<order, Add, Zeros::kSkip>(C, ldc, A, lda, B, ldb, m, n, depth, &ahead);
}

// rows [kTile, size] = sum over the keys of a run of weights [keys, kTile] times vectors [keys, size].
inline void weighted_sum(float* rows, const float* weights, const float* vectors, int64_t size, bool finite,
                         const Stretch* stretches, int count, Prefetcher& ahead) {
  for (int s = 0; s < count; ++s) {
    const float* A = weights + stretches[s].first_row * kTile;
    const float* B = vectors + stretches[s].first_key * size;
    const int64_t depth = stretches[s].length;
    if (s == 0)
      careful_product<Order::kByStep, false>(finite, rows, size, A, kTile, B, size, kTile, size, depth, ahead);
    else
      careful_product<Order::kByStep, true>(finite, rows, size, A, kTile, B, size, kTile, size, depth, ahead);
  }
}

inline void compute_scores(float* scores, const float* keys, const float* queries_transposed, int64_t size,
                           const Stretch* stretches, int count, Prefetcher& ahead) {
  for (int s = 0; s < count; ++s)
    product<Order::kByRow, false>(scores + stretches[s].first_row * kTile, kTile,
                                  keys + stretches[s].first_key * size, size, queries_transposed, kTile,
                                  stretches[s].length, kTile, size, &ahead);
}

inline int count_keys(const Stretch* stretches, int count) {
  return count ? stretches[count - 1].first_row + stretches[count - 1].length : 0;
}

// Queues what the tile after that of queries before `first` will need: of the same group, or of the next one.
inline void look_ahead(Prefetcher& ahead, const Plan& plan, const Row& row, const Run& run, int64_t first,
                       const Group& group, const Group* next, bool backward) {
  ahead.clear();
  int32_t slot = run.first + run.num_filled, stop_slot = run.first + run.length;
  int64_t stop = group.stop_query;
  if (first >= stop) {
    if (!next || stop_slot < group.stop_slot) return;
    first = next->first_query;
    stop = next->stop_query;
    slot = next->first_slot;
    stop_slot = next->stop_slot;
  }
  if (stop > first + kTile) stop = first + kTile;
  for (int64_t i = first; i < stop; ++i) {
    row.q.fetch(ahead, plan.queries[i]);
    (backward ? row.grad_q : row.out).fetch(ahead, plan.queries[i]);
    if (backward) row.grad_out.fetch(ahead, plan.queries[i]);
  }
  for (const int32_t* numbers : {plan.queries, plan.lo, plan.hi})  // of the tile behind
    ahead.add((const char*)(numbers + stop), kTile * sizeof(int32_t));
  if (stop_slot > plan.hi[stop - 1]) stop_slot = plan.hi[stop - 1];
  for (int64_t at = place_of_slot(plan, slot); slot < stop_slot; ++slot) {
    row.k.fetch(ahead, plan.keys[at]);
    row.v.fetch(ahead, plan.keys[at]);
    if (++at == plan.num_slots) at = 0;
  }
}

// Subtracts from each score the logarithm of how often the query sees the key, where that was counted.
inline void correct_duplicates(Workspace& w, const Problem& p, const Plan& plan, int count) {
  if (!plan.slot_of_key) return;
  for (int s = 0; s < count; ++s) {
    const Stretch part = w.stretches[s];
    for (int i = 0; i < part.length; ++i)
      for (int lane = 0; lane < kTile; lane += kLanes) {
        float* score = w.scores + (part.first_row + i) * kTile + lane;
        store(score, load<Float>(score) - log_count(p, plan, w.tile, w.run.position[part.first_key + i], lane));
      }
  }
}

// Masks scores in place, in units of log2; returns the highest of each query, or `highest` where that is more.
inline Float mask_scores(Workspace& w, const Lanes& lanes, int count, int lane, Float highest) {
  for (int s = 0; s < count; ++s) {
    const Stretch part = w.stretches[s];
    float* score = w.scores + part.first_row * kTile + lane;
    const int32_t* position = w.run.position + part.first_key;
    const int32_t first_slot = w.run.first + part.first_key;
    for (int i = 0; i < part.length; ++i, score += kTile) {
      Float x = select(lanes.own(position[i]), broadcast(kSelfScore), load<Float>(score) * kLog2E);
      x = select(lanes.sees(first_slot + i, position[i]), x, broadcast(kMasked));
      store(score, x);
      highest = max(x, highest);
    }
  }
  return highest;
}

constexpr int kSoftmaxWork = 2, kSoftmaxGradientWork = 4;  // of two keys and kLanes queries; see `product_work`

// What the forward keeps of each query of a tile while it merges.
struct Merge {
  alignas(64) float highest[kTile], total[kTile], old_weight[kTile];
};

// Scores to exponentials: two rows at once, since two keys make a pair where pairs are stored.
template <Element element, bool dropout>
inline void softmax(Workspace& w, const Problem& p, const Plan& plan, const Row& row, int count, Merge& merge) {
  const Tile& tile = w.tile;
  correct_duplicates(w, p, plan, count);
  for (int i = 0; i < kTile; ++i) {
    merge.highest[i] = i < tile.count ? row.highest[tile.query[i]] : kMasked;
    merge.total[i] = i < tile.count ? row.total[tile.query[i]] : 0;
  }
  for (int lane = 0; lane < kTile; lane += kLanes) {
    const Lanes lanes(p, tile, lane);
    const Float old = load<Float>(merge.highest + lane);
    const Float best = mask_scores(w, lanes, count, lane, old);
    const Float reference = select(best > broadcast(kMasked), best, Float{});
    const Float weight_of_old = exp2(old - reference);
    Float sum = load<Float>(merge.total + lane) * weight_of_old;
    for (int s = 0; s < count; ++s) {
      const Stretch part = w.stretches[s];
      const int32_t* position = w.run.position + part.first_key;
      float* score = w.scores + part.first_row * kTile + lane;
      for (int i = 0; i < part.length; i += 2, score += 2 * kTile) {
        Float x = exp2(load<Float>(score) - reference), y = exp2(load<Float>(score + kTile) - reference);
        w.ahead.fetch(kSoftmaxWork);
        sum = sum + x + y;  // key by key: in pairs, later tokens could change a bit of it
        if (dropout) {
          x = lanes.drop(position[i], x);
          y = lanes.drop(position[i + 1], y);
        }
        if (element == Element::kPair) {
          store(score, TwoHalves(x, y).pairs());
        } else {
          store(score, x);
          store(score + kTile, y);
        }
      }
    }
    store(merge.highest + lane, best);
    store(merge.total + lane, sum);
    store(merge.old_weight + lane, weight_of_old);
  }
}

template <Element element>
inline void softmax(Workspace& w, const Problem& p, const Plan& plan, const Row& row, int count, Merge& merge) {
  (p.dropout_scale != 0 ? softmax<element, true> : softmax<element, false>)(w, p, plan, row, count, merge);
}

// Adds the weighted values of a tile, in w.rows [kTile, size], to what other runs and rounds gave.
inline void merge_tile(const Workspace& w, const Row& row, const Merge& merge, int64_t size, bool seen, bool finish) {
  const Tile& tile = w.tile;
  for (int i = 0; i < tile.count; ++i) {
    float* out = row.out.floats(tile.query[i]);
    const float* sum = w.rows + i * size;
    const float total = merge.total[i];
    const float factor = finish && total != 0 ? 1 / total : 1, old = merge.old_weight[i] * factor;
    if (merge.old_weight[i] == 0) {  // nothing was seen before; what is there was never written
      if (seen)
        row.out.write(tile.query[i], sum, factor);
      else
        row.out.clear(tile.query[i]);
    } else if (seen) {
      for (int64_t d = 0; d < row.v.size; ++d) out[d] = out[d] * old + sum[d] * factor;
    } else if (factor != 1) {
      for (int64_t d = 0; d < row.v.size; ++d) out[d] *= factor;
    }
    row.highest[tile.query[i]] = merge.highest[i];
    row.total[tile.query[i]] = total;
  }
}

inline void forward_tile(Workspace& w, const Problem& p, const Plan& plan, const Row& row, bool finish) {
  w.tile.finite_q = fill_tile(w.tile.q, w.tile.q_transposed, w.tile, row.q);
  const int count = find_stretches(w.stretches, w.tile, w.run), num_keys = count_keys(w.stretches, count);
  const int64_t size = row.v.padded_size;
  Merge merge;
  w.ahead.spread(product_work(num_keys, kTile, row.k.padded_size) + product_work(kTile, size, num_keys) +
                 num_keys * kTileVecs * kSoftmaxWork / 2);
  compute_scores(w.scores, w.run.k, w.tile.q_transposed, row.k.padded_size, w.stretches, count, w.ahead);
  softmax<Element::kFloat>(w, p, plan, row, count, merge);
  if (count) weighted_sum(w.rows, w.scores, w.run.v, size, w.run.finite_v, w.stretches, count, w.ahead);
  merge_tile(w, row, merge, size, count, finish);
}

}  // namespace
}  // namespace reformer
