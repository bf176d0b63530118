#include "plan.h"

#include <algorithm>
#include <climits>

namespace reformer {

namespace {

bool is_real(const Problem& p, int64_t row, int64_t position) {
  return !p.mask.data || p.mask.data[row / p.H * p.mask.batch + position * p.mask.token];
}

int64_t count_real(const Problem& p, int64_t row) {
  int64_t count = 0;
  for (int64_t i = 0; i < p.Tk; ++i) count += is_real(p, row, i);
  return count;
}

}  // namespace

Sorter::Sorter(int64_t size)
    : buckets_(new uint64_t[size]),
      other_buckets_(new uint64_t[size]),
      positions_(new int32_t[size]),
      other_positions_(new int32_t[size]) {}

int64_t Sorter::sort(const Problem& p, const Buckets& buckets, int64_t row, int64_t round, int64_t first,
                     int64_t stop) {
  const int64_t* data = buckets.data + row / p.H * buckets.batch + row % p.H * buckets.head + round * buckets.round;
  int64_t count = 0, lowest = INT64_MAX, highest = INT64_MIN;
  for (int64_t i = first; i < stop; ++i) {
    if (!is_real(p, row, i)) continue;
    const int64_t bucket = data[(i - first) * buckets.token];
    lowest = std::min(lowest, bucket);
    highest = std::max(highest, bucket);
    buckets_[count] = (uint64_t)bucket;
    positions_[count++] = (int32_t)i;
  }
  lowest_ = (uint64_t)lowest;
  for (int64_t i = 0; i < count; ++i) buckets_[i] -= lowest_;
  // Counting sort by 11 bits at a time, from the lowest: one pass for up to 2,048 buckets.
  constexpr int kBits = 11;
  const uint64_t range = count ? (uint64_t)highest - lowest_ : 0;
  for (int shift = 0; shift < 64 && range >> shift; shift += kBits) {
    int64_t place[(1 << kBits) + 1] = {};
    for (int64_t i = 0; i < count; ++i) ++place[((buckets_[i] >> shift) & ((1 << kBits) - 1)) + 1];
    for (int digit = 0; digit < 1 << kBits; ++digit) place[digit + 1] += place[digit];
    for (int64_t i = 0; i < count; ++i) {
      const int64_t to = place[(buckets_[i] >> shift) & ((1 << kBits) - 1)]++;
      other_buckets_[to] = buckets_[i];
      other_positions_[to] = positions_[i];
    }
    buckets_.swap(other_buckets_);
    positions_.swap(other_positions_);
  }
  return count;
}

Plans::Plans(const Problem& p, int64_t row)
    : p_(p),
      row_(row),
      keys_(new int32_t[p.R * p.Tk]),
      queries_(new int32_t[p.R * p.Tq]),
      lo_(new int32_t[p.R * p.Tq]),
      hi_(new int32_t[p.R * p.Tq]),
      plans_(p.R),
      groups_(p.R) {
  if (!p.correct_duplicates) return;
  slot_of_key_.reset(new int32_t[p.R * p.Tk]);
  std::fill_n(slot_of_key_.get(), p.R * p.Tk, -1);
  lo_of_query_.reset(new int32_t[p.R * p.Tq]());
  hi_of_query_.reset(new int32_t[p.R * p.Tq]());
}

void Plans::make(int64_t round, Sorter* keys, Sorter* queries) {
  Plan& plan = plans_[round];
  plan.row = row_;
  plan.round = round;
  plan.keys = keys_.get();
  plan.queries = queries_.get() + round * p_.Tq;
  plan.lo = lo_.get() + round * p_.Tq;
  plan.hi = hi_.get() + round * p_.Tq;
  plan.num_slots = p_.R * count_real(p_, row_);
  plan.slot_of_key = slot_of_key_.get();
  plan.lo_of_query = lo_of_query_.get();
  plan.hi_of_query = hi_of_query_.get();
  const int64_t num_keys = plan.num_slots / p_.R, first_slot = round * num_keys;
  int32_t* slots = keys_.get() + first_slot;
  if (p_.window == kBucket)
    make_bucket(plan, slots, *keys, *queries);
  else if (p_.window == kChunk)
    make_chunk(plan, slots, *keys);
  else
    make_local(plan, slots);
  if (p_.correct_duplicates) note_duplicates(plan, first_slot, num_keys);
  cut_into_groups(plan, groups_[round]);
}

void Plans::make_bucket(Plan& plan, int32_t* keys, Sorter& key_sorter, Sorter& query_sorter) {
  const int64_t index = plan.queries - queries_.get();
  int32_t *queries = queries_.get() + index, *lo = lo_.get() + index, *hi = hi_.get() + index;
  const int64_t num_keys = key_sorter.sort(p_, p_.k_buckets, plan.row, plan.round, 0, p_.Tk);
  std::copy_n(key_sorter.positions(), num_keys, keys);
  const int64_t num_queries =
      &query_sorter == &key_sorter
          ? num_keys
          : query_sorter.sort(p_, p_.q_buckets, plan.row, plan.round, p_.Tk - p_.Tq, p_.Tk);
  const auto key_bucket = [&](int64_t i) { return (int64_t)(key_sorter.buckets()[i] + key_sorter.lowest()); };
  const int64_t base = plan.round * num_keys;
  // Of the query at hand: where its bucket starts and stops, and the key behind the last at or before it.
  int64_t start = 0, stop = 0, behind = 0;
  for (int64_t i = 0; i < num_queries; ++i) {
    const int64_t bucket = (int64_t)(query_sorter.buckets()[i] + query_sorter.lowest());
    const int32_t position = query_sorter.positions()[i];
    while (start < num_keys && key_bucket(start) < bucket) ++start;
    stop = std::max(stop, start);
    while (stop < num_keys && key_bucket(stop) == bucket) ++stop;
    behind = std::max(behind, start);
    while (behind < stop && keys[behind] <= position) ++behind;
    queries[i] = position - (int32_t)(p_.Tk - p_.Tq);
    lo[i] = (int32_t)(base + std::max(start, behind - 1 - p_.before));
    hi[i] = (int32_t)(base + (p_.causal ? behind : std::min(stop, behind + p_.after)));
  }
  plan.num_queries = num_queries;
}

void Plans::make_chunk(Plan& plan, int32_t* keys, Sorter& sorter) {
  const int64_t index = plan.queries - queries_.get(), C = p_.chunk_length;
  int32_t *queries = queries_.get() + index, *lo = lo_.get() + index, *hi = hi_.get() + index;
  const int64_t num_keys = sorter.sort(p_, p_.k_buckets, plan.row, plan.round, 0, p_.Tk);
  std::copy_n(sorter.positions(), num_keys, keys);
  std::copy_n(sorter.positions(), num_keys, queries);
  const int64_t num_chunks = (num_keys + C - 1) / C;
  // Slot where a chunk of the endless, periodic list of all rounds' chunks begins.
  const auto chunk_start = [&](int64_t chunk) {
    int64_t round = chunk / num_chunks;
    if (chunk < round * num_chunks) --round;
    return (int32_t)(round * num_keys + std::min((chunk - round * num_chunks) * C, num_keys));
  };
  for (int64_t first = 0; first < num_keys; first += C) {
    const int64_t chunk = plan.round * num_chunks + first / C;
    const int64_t stop = std::min(first + C, num_keys);
    std::fill(lo + first, lo + stop, chunk_start(chunk - p_.before));
    std::fill(hi + first, hi + stop, chunk_start(chunk + p_.after + 1));
  }
  plan.num_queries = num_keys;
}

void Plans::make_local(Plan& plan, int32_t* keys) {
  const int64_t index = plan.queries - queries_.get(), C = p_.chunk_length;
  int32_t *queries = queries_.get() + index, *lo = lo_.get() + index, *hi = hi_.get() + index;
  const int64_t num_keys = plan.num_slots;
  int64_t num_queries = 0, rank = 0;
  for (int64_t position = 0; position < p_.Tk; ++position) {
    if (!is_real(p_, plan.row, position)) continue;
    if (position >= p_.Tk - p_.Tq) {
      const int64_t chunk = rank / C;
      queries[num_queries] = (int32_t)(position - (p_.Tk - p_.Tq));
      lo[num_queries] = (int32_t)std::max<int64_t>(0, (chunk - p_.before) * C);
      hi[num_queries++] =
          (int32_t)std::min(num_keys, p_.causal ? rank + 1 : (chunk + p_.after + 1) * C);
    }
    keys[rank++] = (int32_t)position;
  }
  plan.num_queries = num_queries;
}

void Plans::note_duplicates(const Plan& plan, int64_t first_slot, int64_t num_keys) {
  for (int64_t i = 0; i < num_keys; ++i)
    slot_of_key_[plan.round * p_.Tk + plan.keys[first_slot + i]] = (int32_t)(first_slot + i);
  for (int64_t i = 0; i < plan.num_queries; ++i) {
    lo_of_query_[plan.round * p_.Tq + plan.queries[i]] = plan.lo[i];
    hi_of_query_[plan.round * p_.Tq + plan.queries[i]] = plan.hi[i];
  }
}

// Groups are long enough that two with one between them never see the same slot: then every other group can
// be worked on at once, even where they add to the gradients of their keys. Those that see other rounds cannot,
// so these are no longer than they must be.
void Plans::cut_into_groups(const Plan& plan, std::vector<Group>& groups) const {
  const int64_t n = plan.num_queries, most = max_run(p_);
  int64_t stop_of_previous = INT_MIN;
  const auto next_tile = [&](int64_t i) { return std::min<int64_t>(i + kTile, n); };
  const auto sees_other_rounds = [&](int64_t i) {  // the tile from i on
    return this->sees_other_rounds(plan, {0, 0, plan.lo[i], plan.hi[next_tile(i) - 1]});
  };
  for (int64_t first = 0, stop; first < n; first = stop) {
    stop = next_tile(first);
    while (stop < n && (plan.lo[stop] < stop_of_previous ||
                        (plan.hi[next_tile(stop) - 1] - plan.lo[first] <= most && stop - first < most &&
                         sees_other_rounds(stop) == sees_other_rounds(first))))
      stop = next_tile(stop);
    groups.push_back({(int32_t)first, (int32_t)stop, plan.lo[first], plan.hi[stop - 1]});
    stop_of_previous = plan.hi[stop - 1];
  }
}

bool Plans::sees_other_rounds(const Plan& plan, const Group& group) const {
  const int64_t num_keys = plan.num_slots / p_.R;
  return group.first_slot < plan.round * num_keys || group.stop_slot > (plan.round + 1) * num_keys;
}

}  // namespace reformer
