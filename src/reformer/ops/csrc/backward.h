// Gradients of attention. The weights are rebuilt from the maximum and the sum that the forward left.
#pragma once

#include "attention.h"

namespace reformer {
namespace {

// delta = grad_out . out, for each query: what the softmax subtracts from the gradient of its weights.
inline void delta(const Problem& p, int64_t row, int64_t first_query, int64_t stop_query) {
  for (int64_t query = first_query; query < stop_query; ++query) {
    const float* out = (const float*)p.out.data + offset(p.out, p.H, row, query);
    const int64_t start = offset(p.grad_out, p.H, row, query);
    Float sums{};
    for (int64_t d = 0; d < p.Dv; d += 8)
      for (int i = 0; i < 8; ++i) {
        const float grad = p.bfloat16 ? from_bfloat16(((const uint16_t*)p.grad_out.data)[start + d + i])
                                      : ((const float*)p.grad_out.data)[start + d + i];
        sums[i % kLanes] += grad * out[d + i];
      }
    float sum = 0;
    for (int i = 0; i < (kLanes < 8 ? kLanes : 8); ++i) sum += sums[i];
    p.delta[row * p.Tq + query] = sum;
  }
}

inline void fill_tile_gradient(Tile& tile, const Problem& p, const Plan& plan) {
  const int64_t size = padded(p.Dv);
  tile.finite_grad = true;
  for (int i = 0; i < kTile; ++i) {
    if (i < tile.count) {
      if (i + 8 < tile.count)
        prefetch_row(p.grad_out.data, offset(p.grad_out, p.H, plan.row, tile.query[i + 8]), p.Dv, p.bfloat16);
      tile.finite_grad &=
          copy_row(tile.grad + i * size, p.grad_out.data, offset(p.grad_out, p.H, plan.row, tile.query[i]), p.Dv,
                   size, p.bfloat16);
    } else {
      __builtin_memset(tile.grad + i * size, 0, size * sizeof(float));
    }
  }
  transpose_tile(tile.grad_transposed, tile.grad, size, 1);
}

inline void add_row(float* to, const float* from, int64_t size) {
  for (int64_t d = 0; d < size; ++d) to[d] += from[d];
}

// Turns scores into weights, and gradients of weights into gradients of scores, in place.
inline void weights_and_gradients(Workspace& w, const Problem& p, const Plan& plan, int count) {
  const Tile& tile = w.tile;
  alignas(64) float highest[kTile], inverse_total[kTile], delta[kTile];
  for (int i = 0; i < kTile; ++i) {
    const bool filled = i < tile.count;
    const int64_t query = plan.row * p.Tq + tile.query[i];
    highest[i] = filled && p.highest[query] > kMasked ? p.highest[query] : 0;
    inverse_total[i] = filled && p.total[query] != 0 ? 1 / p.total[query] : 0;
    delta[i] = filled ? p.delta[query] : 0;
  }
  for (int lane = 0; lane < kTile; lane += kLanes) {
    const Float reference = load<Float>(highest + lane), factor = load<Float>(inverse_total + lane);
    const Float mean = load<Float>(delta + lane);
    for (int s = 0; s < count; ++s)
      for (int i = 0; i < w.stretches[s].length; ++i) {
        const int key = w.stretches[s].first_key + i;
        const int64_t place = (w.stretches[s].first_row + i) * kTile + lane;
        const Sight of_key = sight(p, tile, w.run, key, lane);
        const Float score =
            masked_score(p, plan, tile, w.run, key, lane, load<Float>(w.scores + place), of_key);
        const Float weight = exp2(score - reference) * factor;
        Float grad_weight = load<Float>(w.grad_scores + place), kept = weight;
        if (p.dropout_scale) {
          grad_weight = dropped(p, tile, w.run.position[key], lane, grad_weight);
          kept = dropped(p, tile, w.run.position[key], lane, weight);
        }
        store(w.scores + place, kept);
        store(w.grad_scores + place,
              select(of_key.seen & ~of_key.own, weight * (grad_weight - mean), Float{}));
      }
  }
}

inline void backward_tile(Workspace& w, const Problem& p, const Plan& plan) {
  Tile& tile = w.tile;
  Run& run = w.run;
  const int count = find_stretches(w.stretches, tile, run);
  if (!count) return;
  const int64_t D = padded(p.D), Dv = padded(p.Dv);
  fill_tile_gradient(tile, p, plan);
  for (int i = 0; i < tile.count; ++i)
    prefetch_row(p.grad_q.data, offset(p.grad_q, p.H, plan.row, tile.query[i]), p.D, false);
  compute_scores(w.scores, run.k, tile.q_transposed, D, w.stretches, count);
  compute_scores(w.grad_scores, run.v, tile.grad_transposed, Dv, w.stretches, count);
  weights_and_gradients(w, p, plan, count);
  for (int s = 0; s < count; ++s) {
    const Stretch& part = w.stretches[s];
    careful_product<Order::kByRow, true>(tile.finite_grad, run.grad_v + part.first_key * Dv, Dv,
                                         w.scores + part.first_row * kTile, kTile, tile.grad, Dv, part.length,
                                         Dv, kTile);
    careful_product<Order::kByRow, true>(tile.finite_q, run.grad_k + part.first_key * D, D,
                                         w.grad_scores + part.first_row * kTile, kTile, tile.q, D, part.length,
                                         D, kTile);
  }
  weighted_sum(w.rows, w.grad_scores, run.k, D, run.finite_k, w.stretches, count);
  for (int i = 0; i < tile.count; ++i)
    add_row((float*)p.grad_q.data + offset(p.grad_q, p.H, plan.row, tile.query[i]), w.rows + i * D, p.D);
}

inline void backward(const Problem& p, const Plan& plan, const Group& group, float* scratch) {
  Workspace w;
  layout_workspace(w, p, scratch);
  const int64_t D = padded(p.D), Dv = padded(p.Dv);
  const int32_t step = (int32_t)max_run(p);
  for (int32_t first = group.first_slot; first < group.stop_slot; first += step) {
    const int32_t stop = group.stop_slot - first > step ? first + step : group.stop_slot;
    fill_run(w.run, p, plan, first, stop);
    __builtin_memset(w.run.grad_k, 0, w.run.length * D * sizeof(float));
    __builtin_memset(w.run.grad_v, 0, w.run.length * Dv * sizeof(float));
    for (int64_t query = group.first_query; query < group.stop_query; query += kTile) {
      fill_tile(w.tile, p, plan, query, group.stop_query);
      backward_tile(w, p, plan);
    }
    for (int i = 0; i < stop - first; ++i) {
      const int32_t key = w.run.position[i];
      if (i + 8 < stop - first) {
        prefetch_row(p.grad_k.data, offset(p.grad_k, p.H, plan.row, w.run.position[i + 8]), p.D, false);
        prefetch_row(p.grad_v.data, offset(p.grad_v, p.H, plan.row, w.run.position[i + 8]), p.Dv, false);
      }
      add_row((float*)p.grad_k.data + offset(p.grad_k, p.H, plan.row, key), w.run.grad_k + i * D, p.D);
      add_row((float*)p.grad_v.data + offset(p.grad_v, p.H, plan.row, key), w.run.grad_v + i * Dv, p.Dv);
    }
  }
}

}  // namespace
}  // namespace reformer
