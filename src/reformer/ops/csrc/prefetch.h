// Fetches what the next tile will need into the cache, a little at a time while this one is worked on.
#pragma once

#include <cstdint>

namespace reformer {
namespace {

constexpr int kMaxPrefetched = 512;  // vectors

// Vectors to fetch. A processor waits for few lines at once, so they are spread over work, whose unit is the caller's.
class Prefetcher {
 public:
  void clear() { count_ = next_ = 0; }

  void add(const char* data, int64_t bytes) {
    if (count_ < kMaxPrefetched) vectors_[count_++] = {data, bytes};
  }

  // Plans to be done when so much work is.
  void spread(int64_t work) {
    progress_ = 0;
    per_work_ = work ? (int64_t(count_) << kShift) / work + 1 : 0;
  }

  // To be called after some of the work.
  void fetch(int64_t work) {
    progress_ += per_work_ * work;
    const int64_t stop = progress_ >> kShift < count_ ? progress_ >> kShift : count_;
    for (; next_ < stop; ++next_)
      for (int64_t byte = 0; byte < vectors_[next_].bytes; byte += 64)
        __builtin_prefetch(vectors_[next_].data + byte, 0, 2);
  }

 private:
  static constexpr int kShift = 32;
  struct {
    const char* data;
    int64_t bytes;
  } vectors_[kMaxPrefetched];
  int64_t count_, next_, progress_, per_work_;
};

}  // namespace
}  // namespace reformer
