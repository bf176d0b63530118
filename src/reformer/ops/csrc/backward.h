// Gradients of attention. The weights are rebuilt from the maximum and the sum that the forward left.
#pragma once

#include "attention.h"

namespace reformer {
namespace {

// delta = grad_out . out, for each query: what the softmax subtracts from the gradient of its weights.
inline void delta(const Problem& p, int64_t row_index, int64_t first_query, int64_t stop_query) {
  const Row row(p, row_index);
  const Vectors outputs(p.out, p.H, row_index, p.Dv, p.bfloat16);
  alignas(64) float grad[kMaxHeadSize], out[kMaxHeadSize];
  for (int64_t query = first_query; query < stop_query; ++query) {
    Float sums{};
    Int unused{};
    row.grad_out.copy(query, grad, unused);
    outputs.copy(query, out, unused);
    for (int64_t d = 0; d < outputs.padded_size; d += kLanes) sums += load<Float>(grad + d) * load<Float>(out + d);
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += sums[i];
    row.delta[query] = sum;
  }
}

inline void add_row(float* to, const float* from, int64_t size) {
  for (int64_t d = 0; d < size; ++d) to[d] += from[d];
}

// The weight of a key and the gradient of its score.
struct WeightAndGradient {
  Float weight, grad_score;
};

// Turns scores into weights, and gradients of weights into gradients of scores: in place, or, as bfloat16, the
// former and latter along queries into w.scores and w.halves, and the latter in pairs of keys in place.
template <Element element, bool dropout>
inline void weights_and_gradients(Workspace& w, const Problem& p, const Plan& plan, const Row& row, int count) {
  const Tile& tile = w.tile;
  alignas(64) float highest[kTile], inverse_total[kTile], delta[kTile];
  for (int i = 0; i < kTile; ++i) {
    const int32_t query = tile.query[i];
    const bool filled = i < tile.count;
    highest[i] = filled && row.highest[query] > kMasked ? row.highest[query] : 0;
    inverse_total[i] = filled && row.total[query] != 0 ? 1 / row.total[query] : 0;
    delta[i] = filled ? row.delta[query] : 0;
  }
  correct_duplicates(w, p, plan, count);
  for (int lane = 0; lane < kTile; lane += kLanes) {
    const Lanes lanes(p, tile, lane);
    const Float reference = load<Float>(highest + lane), factor = load<Float>(inverse_total + lane);
    const Float mean = load<Float>(delta + lane);
    const auto of_key = [&](const float* score, const float* grad_weight, int32_t slot, int32_t position) {
      const Int own = lanes.own(position), seen = lanes.sees(slot, position);
      const Float x = select(own, broadcast(kSelfScore), load<Float>(score) * kLog2E);
      Float weight = exp2(select(seen, x, broadcast(kMasked)) - reference) * factor;
      Float grad = load<Float>(grad_weight);
      if (dropout) grad = lanes.drop(position, grad);
      grad = select(seen & ~own, weight * (grad - mean), Float{});
      if (dropout) weight = lanes.drop(position, weight);
      return WeightAndGradient{weight, grad};
    };
    for (int s = 0; s < count; ++s) {
      const Stretch part = w.stretches[s];
      float* score = w.scores + part.first_row * kTile + lane;
      float* grad_score = w.grad_scores + part.first_row * kTile + lane;
      const int32_t* position = w.run.position + part.first_key;
      const int32_t slot = w.run.first + part.first_key;
      for (int i = 0; i < part.length; i += 2, score += 2 * kTile, grad_score += 2 * kTile) {
        const auto a = of_key(score, grad_score, slot + i, position[i]);
        const auto b = of_key(score + kTile, grad_score + kTile, slot + i + 1, position[i + 1]);
        w.ahead.fetch(kSoftmaxGradientWork);
        if (element == Element::kPair) {
          uint16_t* weights = (uint16_t*)(score - lane) + lane;
          uint16_t* gradients = (uint16_t*)(w.halves + (part.first_row + i) * kTile / 2) + lane;
          const TwoHalves weight(a.weight, b.weight), grad(a.grad_score, b.grad_score);
          store(weights, weight.of(0));
          store(weights + 2 * kTile, weight.of(1));
          store(gradients, grad.of(0));
          store(gradients + kTile, grad.of(1));
          store(grad_score, grad.pairs());
        } else {
          store(score, a.weight);
          store(score + kTile, b.weight);
          store(grad_score, a.grad_score);
          store(grad_score + kTile, b.grad_score);
        }
      }
    }
  }
}

template <Element element>
inline void weights_and_gradients(Workspace& w, const Problem& p, const Plan& plan, const Row& row, int count) {
  (p.dropout_scale != 0 ? weights_and_gradients<element, true>
                        : weights_and_gradients<element, false>)(w, p, plan, row, count);
}

// Of queries that see nothing; sums are zeros as it is.
inline void clear_query_gradients(const Tile& tile, const Row& row) {
  if (!row.grad_q.bfloat16) return;
  for (int i = 0; i < tile.count; ++i) row.grad_q.clear(tile.query[i]);
}

// Adds what is in w.rows [kTile, size] to the gradients of a tile's queries, or writes it where it is all.
inline void add_query_gradients(const Workspace& w, const Row& row, int64_t size) {
  for (int i = 0; i < w.tile.count; ++i) {
    const int32_t query = w.tile.query[i];
    if (row.grad_q.bfloat16)
      row.grad_q.write(query, w.rows + i * size, 1);
    else
      add_row(row.grad_q.floats(query), w.rows + i * size, row.q.size);
  }
}

inline void backward_tile(Workspace& w, const Problem& p, const Plan& plan, const Row& row) {
  Tile& tile = w.tile;
  Run& run = w.run;
  const int count = find_stretches(w.stretches, tile, run);
  if (!count) {
    clear_query_gradients(tile, row);
    return;
  }
  const int64_t D = row.q.padded_size, Dv = row.v.padded_size;
  tile.finite_q = fill_tile(tile.q, tile.q_transposed, tile, row.q);
  tile.finite_grad = fill_tile(tile.grad, tile.grad_transposed, tile, row.grad_out);
  const int num_keys = count_keys(w.stretches, count);
  w.ahead.spread(2 * (product_work(num_keys, kTile, D) + product_work(num_keys, kTile, Dv)) +
                 product_work(kTile, D, num_keys) + num_keys * kTileVecs * kSoftmaxGradientWork / 2);
  compute_scores(w.scores, run.k, tile.q_transposed, D, w.stretches, count, w.ahead);
  compute_scores(w.grad_scores, run.v, tile.grad_transposed, Dv, w.stretches, count, w.ahead);
  weights_and_gradients<Element::kFloat>(w, p, plan, row, count);
  for (int s = 0; s < count; ++s) {
    const Stretch& part = w.stretches[s];
    careful_product<Order::kByRow, true>(tile.finite_grad, run.grad_v + part.first_key * Dv, Dv,
                                         w.scores + part.first_row * kTile, kTile, tile.grad, Dv, part.length,
                                         Dv, kTile, w.ahead);
    careful_product<Order::kByRow, true>(tile.finite_q, run.grad_k + part.first_key * D, D,
                                         w.grad_scores + part.first_row * kTile, kTile, tile.q, D, part.length,
                                         D, kTile, w.ahead);
  }
  weighted_sum(w.rows, w.grad_scores, run.k, D, run.finite_k, w.stretches, count, w.ahead);
  add_query_gradients(w, row, D);
}

}  // namespace
}  // namespace reformer
