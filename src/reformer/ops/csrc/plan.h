// What each query sees, as a range of sorted keys: the C++ counterpart of ops/windows.py.
#pragma once

#include <memory>
#include <vector>

#include "problem.h"

namespace reformer {

// Work space of a thread that plans.
class Sorter {
 public:
  explicit Sorter(int64_t size);

  // Sorts positions by bucket, stably, leaving out padding. Returns how many there are.
  int64_t sort(const Problem& p, const Buckets& buckets, int64_t row, int64_t round, int64_t first, int64_t stop);

  // The result, up to the next call: bucket ids (less some constant) and positions.
  const uint64_t* buckets() const { return buckets_.get(); }
  const int32_t* positions() const { return positions_.get(); }
  uint64_t lowest() const { return lowest_; }

 private:
  std::unique_ptr<uint64_t[]> buckets_, other_buckets_;
  std::unique_ptr<int32_t[]> positions_, other_positions_;
  uint64_t lowest_ = 0;
};

// The plans of a row, in all rounds.
class Plans {
 public:
  Plans(const Problem& p, int64_t row);

  // Plans one round. The sorters may be one where queries and keys have the same buckets, and null for local
  // windows.
  void make(int64_t round, Sorter* keys, Sorter* queries);

  const Plan& plan(int64_t round) const { return plans_[round]; }
  const std::vector<Group>& groups(int64_t round) const { return groups_[round]; }

  // Whether a group sees slots that belong to another round: such a slot may hold any key.
  bool sees_other_rounds(const Plan& plan, const Group& group) const;

 private:
  void make_bucket(Plan& plan, int32_t* keys, Sorter& key_sorter, Sorter& query_sorter);
  void make_chunk(Plan& plan, int32_t* keys, Sorter& sorter);
  void make_local(Plan& plan, int32_t* keys);
  void cut_into_groups(const Plan& plan, std::vector<Group>& groups) const;
  void note_duplicates(const Plan& plan, int64_t first_slot, int64_t num_keys);

  const Problem& p_;
  const int64_t row_;
  std::unique_ptr<int32_t[]> keys_, queries_, lo_, hi_;                 // [R, Tk or Tq]
  std::unique_ptr<int32_t[]> slot_of_key_, lo_of_query_, hi_of_query_;  // likewise, or null
  std::vector<Plan> plans_;
  std::vector<std::vector<Group>> groups_;
};

}  // namespace reformer
