// Groups of tiles: what is gathered and added up for several tiles at once.
#pragma once

#include "pairs.h"

namespace reformer {
namespace {

inline void forward(const Problem& p, const Plan& plan, const Group& group, const Group* next, float* scratch) {
  Workspace w;
  layout_workspace(w, p, scratch);
  const Row row(p, plan.row);
  const PairedWorkspace pairs(w, p);
  const TileRegisters registers(p.bfloat16);
  const int32_t step = (int32_t)max_run(p);
  int32_t first = group.first_slot;
  do {
    const int32_t stop = group.stop_slot - first > step ? first + step : group.stop_slot;
    const bool last = stop == group.stop_slot, finish = last && plan.round == p.R - 1;
    bool paired = kHasPairs && p.bfloat16;
    start_run(w.run, plan, first, stop);
    for (int64_t query = group.first_query; query < group.stop_query; query += kTile) {
      const int64_t stop_query = query + kTile < group.stop_query ? query + kTile : group.stop_query;
      const int32_t stop_slot = plan.hi[stop_query - 1];
      if (!last && (plan.lo[query] >= stop || stop_slot <= first)) continue;
      place_tile(w.tile, p, plan, query, stop_query);
      if (paired) {
        paired = fill_paired_run(pairs, w.run, row, stop_slot);
        look_ahead(w.ahead, plan, row, w.run, stop_query, group, next, false);
        if (paired && paired_forward_tile(w, p, plan, row, finish)) continue;
        paired = false;  // from here on
        start_run(w.run, plan, first, stop);
      }
      fill_run(w.run, row, stop_slot);
      look_ahead(w.ahead, plan, row, w.run, stop_query, group, next, false);
      forward_tile(w, p, plan, row, finish);
    }
    first = stop;
  } while (first < group.stop_slot);
}

// Adds the gradients of slots [first, stop) of a run to those of their keys.
inline void flush_gradients(const Run& run, const Row& row, int first, int stop) {
  for (int i = first; i < stop; ++i) {
    add_row(row.grad_k.floats(run.position[i]), run.grad_k + i * row.k.padded_size, row.k.size);
    add_row(row.grad_v.floats(run.position[i]), run.grad_v + i * row.v.padded_size, row.v.size);
  }
}

inline void backward(const Problem& p, const Plan& plan, const Group& group, const Group* next, float* scratch) {
  Workspace w;
  layout_workspace(w, p, scratch);
  const Row row(p, plan.row);
  const PairedWorkspace pairs(w, p);
  const TileRegisters registers(p.bfloat16);
  const int32_t step = (int32_t)max_run(p);
  int32_t first = group.first_slot;
  do {
    const int32_t stop = group.stop_slot - first > step ? first + step : group.stop_slot;
    const bool is_only = stop - first == group.stop_slot - group.first_slot;
    bool paired = kHasPairs && p.bfloat16;
    start_run(w.run, plan, first, stop);
    const int num_slots = (w.run.length + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
    __builtin_memset(w.run.grad_k, 0, num_slots * row.k.padded_size * sizeof(float));
    __builtin_memset(w.run.grad_v, 0, num_slots * row.v.padded_size * sizeof(float));
    int num_flushed = 0;
    for (int64_t query = group.first_query; query < group.stop_query; query += kTile) {
      const int64_t stop_query = query + kTile < group.stop_query ? query + kTile : group.stop_query;
      const int32_t stop_slot = plan.hi[stop_query - 1];
      if (!is_only && (plan.lo[query] >= stop || stop_slot <= first)) continue;
      place_tile(w.tile, p, plan, query, stop_query);
      if (paired && !fill_paired_run(pairs, w.run, row, stop_slot)) {
        paired = false;  // from here on
        start_run(w.run, plan, first, stop);
      }
      if (!paired) fill_run(w.run, row, stop_slot);
      look_ahead(w.ahead, plan, row, w.run, stop_query, group, next, true);
      // Slots that no later tile sees are done with.
      int num_done = stop_query < group.stop_query ? plan.lo[stop_query] - first : w.run.length;
      num_done = num_done > w.run.num_filled ? w.run.num_filled : num_done;
      for (int i = num_flushed; i < num_done; ++i) {
        row.grad_k.fetch(w.ahead, w.run.position[i]);
        row.grad_v.fetch(w.ahead, w.run.position[i]);
      }
      if (paired && !paired_backward_tile(w, p, plan, row)) {
        paired = false;
        start_run(w.run, plan, first, stop);
        fill_run(w.run, row, stop_slot);
      }
      if (!paired) backward_tile(w, p, plan, row);
      if (num_done > num_flushed) {
        flush_gradients(w.run, row, num_flushed, num_done);
        num_flushed = num_done;
      }
    }
    flush_gradients(w.run, row, num_flushed, w.run.num_filled);
    first = stop;
  } while (first < group.stop_slot);
}

}  // namespace
}  // namespace reformer
