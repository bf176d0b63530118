// What the kernels are asked for. Mirrored by the ctypes structures of ops/cpu.py.
#pragma once

#include <cstdint>

namespace reformer {

// Vectors of a tensor [B, H, T, D]: strides count elements, the elements of a vector are contiguous.
struct Rows {
  void* data;
  int64_t batch, head, token;
};

// int64 bucket ids [B, H, R, T], strides in elements.
struct Buckets {
  const int64_t* data;
  int64_t batch, head, round, token;
};

// bool [B, Tk], true where a real token is; data is null where all are.
struct Mask {
  const uint8_t* data;
  int64_t batch, token;
};

enum Window : int64_t { kBucket = 0, kChunk = 1, kLocal = 2 };

struct Problem {
  int64_t B, H, R, Tq, Tk, D, Dv;  // the queries are the last Tq positions
  int64_t bfloat16;                // all vectors are; everything else is float32
  int64_t window, chunk_length;
  int64_t before, after;  // keys (window "bucket") or chunks
  int64_t causal, penalize_self, correct_duplicates;
  int64_t dropout_seed;
  int64_t dropout_threshold;  // a weight is kept where its random int32 is at least this
  double dropout_scale;       // 1 / (1 - rate); 0 where there is no dropout
  Rows q, k, v;
  Rows out;                // written by the forward, read by the backward
  float *highest, *total;  // [B, H, Tq]: of the scores (log2 units) and of their exponentials
  Rows grad_out, grad_q, grad_k, grad_v;
  float* delta;  // [B, H, Tq]: work space of the backward
  Buckets q_buckets, k_buckets;
  Mask mask;
};

// The queries of one row (head of a batch element) in one round, sorted, and the keys that they see.
struct Plan {
  int64_t row;
  int64_t round;
  const int32_t* keys;     // position of the key in each slot, for all rounds of the row
  int64_t num_slots;       // slot s + num_slots is slot s again
  const int32_t* queries;  // index of each query, 0 to Tq - 1
  const int32_t *lo, *hi;  // each query sees slots lo to hi - 1; both grow with the queries
  int64_t num_queries;
  // For the duplicate correction, null otherwise: of all rounds,
  const int32_t* slot_of_key;                    // [R, Tk], -1 where there is none
  const int32_t *lo_of_query, *hi_of_query;  // [R, Tq]
};

// Consecutive queries of a plan that are worked on together, and the slots that they see.
struct Group {
  int32_t first_query, stop_query;
  int32_t first_slot, stop_slot;
};

struct HashProblem {
  int64_t B, H, R, T, D, num_factors;
  int64_t bfloat16;
  Rows x;
  const float* rotations;  // [H, R, sum(factors) / 2, D]
  const int64_t* factors;
  Mask mask;
  int64_t* buckets;  // [B, H, R, T]
};

// The next token of every row, and the cache of those before: see ops/cpu_decoding.py.
struct DecodeProblem {
  int64_t B, H, D, L;           // L entries in the store of a row
  const int64_t* positions;     // [B]
  const float *q, *k, *v;       // [B, H, D]
  const float* placed;          // [B, H, D], what the bucket of the key is found by; null for the query
  const float *cos, *sin;       // [B, D], of rotary positions; null for none
  float* kv;                    // [B, H, L, 2D]
  float* out;                   // [B, H, D]
  // Sliding window, where R is 0: the key at position p is entry p % L.
  int64_t chunk_length, chunks_before;
  // Buckets otherwise, each of which has a ring of the entries of its last members.
  int64_t R, num_rings, ring_width, clock;
  const int32_t* free_entries;  // of row i at i * L: where its key goes
  int32_t* rings;               // [B, H, R, num_rings, ring_width]
  int32_t* num_members;         // [B, H, R, num_rings], that a bucket has had
  int32_t* born;                // [B, H, L], when an entry was written
  const float* rotations;       // [H, R, sum(factors) / 2, D]
  int64_t num_factors;
  const int64_t* factors;
};

// Layer normalisation of vectors, `features` numbers each: see ops/position_wise.py.
struct NormProblem {
  int64_t rows, features;
  int64_t bfloat16;  // `out` and `grad` are
  double epsilon;
  const float *x, *weight, *bias;
  void* out;
  float* moments;    // [rows, 2]: written by the forward, read by the backward
  const void* grad;  // of the result; from here on, of the backward
  float *grad_x, *grad_parameters;  // [rows, features] and [2, features]: of weight and bias
};

// Adds `update` to a stream, or takes it off.
struct AddProblem {
  int64_t count;     // elements
  int64_t bfloat16;  // the update is
  int64_t subtract;
  double unit;  // of an int32 stream: how many make 1; 0 for one of float32
  void* stream;
  const void* update;
  int64_t is_within;  // result: all sums are finite and in the range
};

constexpr int kMaxHeadSize = 256;
constexpr int kTile = 32;       // queries in a tile
constexpr int kKeyGroup = 8;    // keys that are computed or skipped together
constexpr int kMaxRun = 512;    // key slots gathered at once, at most

// Gathered keys and values, and in the backward their gradients, stay within the L2 cache.
inline int64_t max_run(const Problem& p) {
  const int64_t run = (1 << 16) / (p.D + p.Dv);
  return run < 256 ? 256 : run > kMaxRun ? kMaxRun : run / kKeyGroup * kKeyGroup;
}

// Whether queries and keys are the same tokens, in the same buckets.
inline bool same_buckets(const Problem& p) { return p.Tq == p.Tk && p.q_buckets.data == p.k_buckets.data; }

// Whether the results of queries are written as bfloat16 at once, and not kept as sums in float32: a query is done
// with once a tile has had it where there is one round and no group has more than one run. With `reach` as the slots
// that a query sees, a group's last tile begins at most `reach` behind its first (see Plans::cut_into_groups), moves
// on by that and a tile, and sees `reach` in the end.
inline bool writes_queries_once(const Problem& p) {
  const bool is_bucket = p.window == kBucket;
  const int64_t reach = (p.before + p.after + 1) * (is_bucket ? 1 : p.chunk_length);
  return p.bfloat16 && p.R == 1 && (!is_bucket || same_buckets(p)) && 3 * reach + kTile <= max_run(p);
}

// Kernels of one instruction set.
struct Kernels {
  const char* name;
  int64_t (*scratch_floats)(const Problem&);
  void (*forward)(const Problem&, const Plan&, const Group&, const Group* next, float* scratch);
  void (*backward)(const Problem&, const Plan&, const Group&, const Group* next, float* scratch);
  void (*delta)(const Problem&, int64_t row, int64_t first_query, int64_t stop_query);
  void (*round)(const Rows& to, int64_t H, int64_t row, const float* from, int64_t size, int64_t first, int64_t stop);
  int64_t (*hash_scratch_floats)(const HashProblem&);
  void (*hash)(const HashProblem&, int64_t row, int64_t first_token, int64_t stop_token, float* scratch);
  int64_t (*decode_scratch_floats)(const DecodeProblem&);
  void (*decode)(const DecodeProblem&, int64_t row, float* scratch);
  void (*layer_norm)(const NormProblem&, int64_t first, int64_t stop);
  void (*layer_norm_backward)(const NormProblem&, int64_t first, int64_t stop, float* grad_parameters);
  bool (*add)(const AddProblem&, int64_t first, int64_t stop);
};

}  // namespace reformer
