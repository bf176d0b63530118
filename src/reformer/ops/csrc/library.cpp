// The C interface: chooses an instruction set, plans, and shares the work out among threads.

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "plan.h"
#include "team.h"

namespace reformer {

extern const Kernels kGeneric;
#ifdef REFORMER_X86
extern const Kernels kAvx2;
extern const Kernels kAvx512;
extern const Kernels kAvx512Bf16;
#endif

namespace {

constexpr int64_t kLargePage = 1 << 21;
constexpr int64_t kPlannedKeys = 1 << 16;      // of the rows that are worked on together, in all rounds
constexpr int64_t kPart = 1 << 10;             // vectors of one task
constexpr int64_t kQueriesWorthAThread = 1 << 9;
constexpr int64_t kDecodedFloatsWorthAThread = 1 << 20;

// Uninitialised; in large pages if it is large, where Linux has them (see ops/large_tensors.py).
struct Scratch {
  explicit Scratch(int64_t num_floats) {
    const size_t alignment = num_floats * 4 < 2 * kLargePage ? 64 : kLargePage;
    const size_t size = (num_floats * 4 + alignment - 1) / alignment * alignment;
    data = (float*)std::aligned_alloc(alignment, size);
    if (!data) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    if (alignment == kLargePage) madvise(data, size, MADV_HUGEPAGE);
#endif
  }
  Scratch(Scratch&& other) : data(other.data) { other.data = nullptr; }
  ~Scratch() { std::free(data); }
  float* data;
};

std::vector<Scratch> scratch_for(int64_t num_threads, int64_t num_floats) {
  std::vector<Scratch> scratch;
  for (int64_t i = 0; i < num_threads; ++i) scratch.emplace_back(num_floats);
  return scratch;
}

// Groups of a plan that one thread works on, one after the other.
struct Task {
  const Plan* plan;
  std::vector<Group> groups;
};

// Tasks of each step; those of one step never write to the same place. In the forward a step is a round. In
// the backward it is every other group of a round, then the others, then, row by row, those that see keys of
// other rounds.
std::vector<std::vector<Task>> schedule(const Problem& p, const Plans& plans, bool backward) {
  std::vector<std::vector<Task>> steps(p.R * (backward ? 3 : 1));
  for (int64_t round = 0; round < p.R; ++round)
    for (int64_t row = plans.first_row(); row < plans.first_row() + plans.num_rows(); ++row) {
      const Plan& plan = plans.plan(row, round);
      const std::vector<Group>& groups = plans.groups(row, round);
      Task others{&plan, {}};
      for (size_t i = 0; i < groups.size(); ++i) {
        if (!backward)
          steps[round].push_back({&plan, {groups[i]}});
        else if (plans.sees_other_rounds(plan, groups[i]))
          others.groups.push_back(groups[i]);
        else
          steps[3 * round + i % 2].push_back({&plan, {groups[i]}});
      }
      if (!others.groups.empty()) steps[3 * round + 2].push_back(others);
    }
  return steps;
}

int64_t count_parts(int64_t num_rows, int64_t T) { return num_rows * ((T + kPart - 1) / kPart); }

// Calls work(row, first, stop, worker) for parts of the T vectors of each row.
template <class Work>
void for_parts(int64_t num_threads, int64_t num_rows, int64_t T, const Work& work) {
  const int64_t count = count_parts(num_rows, T), parts = count_parts(1, T);
  Team::run(std::min(num_threads, count), 1, [&](Team& team, int64_t worker) {
    team.for_each(0, count, [&](int64_t i) {
      const int64_t first = i % parts * kPart;
      work(i / parts, first, std::min(first + kPart, T), worker);
    });
  });
}

// Some rows of a tensor of bfloat16, while kernels add to them in float32.
class Sums {
 public:
  Sums(const Kernels& kernels, int64_t num_threads, int64_t H, int64_t max_vectors, int64_t size)
      : kernels_(kernels), num_threads_(num_threads), H_(H), size_(size), scratch_(max_vectors * size) {}

  // Zeros, in the place of T vectors of each of the rows.
  Rows begin(const Rows& tensor, int64_t first_row, int64_t num_rows, int64_t T) {
    tensor_ = tensor;
    first_row_ = first_row;
    num_rows_ = num_rows;
    T_ = T;
    for_parts(num_threads_, num_rows, T, [&](int64_t row, int64_t first, int64_t stop, int64_t) {
      std::fill(of_row(row) + first * size_, of_row(row) + stop * size_, 0.0f);
    });
    return {of_row(-first_row), H_ * T * size_, T * size_, size_};
  }

  // Rounds the sums into the tensor.
  void finish() const {
    for_parts(num_threads_, num_rows_, T_, [&](int64_t row, int64_t first, int64_t stop, int64_t) {
      kernels_.round(tensor_, H_, first_row_ + row, of_row(row), size_, first, stop);
    });
  }

 private:
  float* of_row(int64_t row) const { return scratch_.data + row * T_ * size_; }

  const Kernels& kernels_;
  int64_t num_threads_, H_, size_, first_row_ = 0, num_rows_ = 0, T_ = 0;
  Rows tensor_{};
  Scratch scratch_;
};

bool same_buckets(const Problem& p) { return p.Tq == p.Tk && p.q_buckets.data == p.k_buckets.data; }

void attend_rows(const Problem& p, int64_t first_row, int64_t num_rows, const Kernels& kernels,
                 std::vector<Sorter>& sorters, const std::vector<Scratch>& scratch, bool backward) {
  const int64_t num_queries = p.B * p.H * p.R * p.Tq;
  const int64_t num_threads = std::min((int64_t)scratch.size(), 1 + num_queries / kQueriesWorthAThread);
  Plans plans(p, first_row, num_rows);
  Team::run(num_threads, 1, [&](Team& team, int64_t worker) {
    Sorter* keys = sorters.empty() ? nullptr : &sorters[2 * worker];
    team.for_each(0, num_rows * p.R, [&](int64_t i) {
      plans.make(first_row + i / p.R, i % p.R, keys, same_buckets(p) ? keys : keys + 1);
    });
  });
  const std::vector<std::vector<Task>> steps = schedule(p, plans, backward);
  Team::run(num_threads, (int64_t)steps.size(), [&](Team& team, int64_t worker) {
    for (size_t step = 0; step < steps.size(); ++step)
      team.for_each((int64_t)step, (int64_t)steps[step].size(), [&](int64_t i) {
        const Task& task = steps[step][i];
        for (const Group& group : task.groups)
          (backward ? kernels.backward : kernels.forward)(p, *task.plan, group, scratch[worker].data);
      });
  });
}

// All levels of some rows, then of the next ones. Each level has the queries behind those of the level before
// and keys from the first one on; the last level has all keys.
void attend(const Problem* levels, int64_t num_levels, const Kernels& kernels, int64_t num_threads, bool backward) {
  const Problem& last = levels[num_levels - 1];
  const int64_t num_rows = last.B * last.H;
  const int64_t rows_at_once = std::clamp<int64_t>(kPlannedKeys / (last.R * last.Tk), 1, num_rows);
  int64_t max_queries = 0;
  bool two_sorters = false;
  for (int64_t level = 0; level < num_levels; ++level) {
    const Problem& p = levels[level];
    max_queries = std::max(max_queries, p.Tq);
    two_sorters |= !same_buckets(p);
    if (backward)
      for_parts(num_threads, num_rows, p.Tq, [&](int64_t row, int64_t first, int64_t stop, int64_t) {
        kernels.delta(p, row, first, stop);
      });
  }
  num_threads = std::min(num_threads, 1 + num_rows * last.R * max_queries / kQueriesWorthAThread);
  const std::vector<Scratch> scratch = scratch_for(num_threads, kernels.scratch_floats(last));
  std::vector<Sorter> sorters;
  if (last.window != kLocal)
    for (int64_t i = 0; i < 2 * num_threads; ++i) sorters.emplace_back(i % 2 && !two_sorters ? 0 : last.Tk);

  const auto sums = [&](int64_t T, int64_t size) {
    return Sums(kernels, num_threads, last.H, last.bfloat16 ? rows_at_once * T : 0, size);
  };
  Sums of_queries = sums(max_queries, backward ? last.D : last.Dv);
  Sums of_keys = sums(backward ? last.Tk : 0, last.D), of_values = sums(backward ? last.Tk : 0, last.Dv);
  for (int64_t row = 0; row < num_rows; row += rows_at_once) {
    const int64_t count = std::min(rows_at_once, num_rows - row);
    Rows grad_k = last.grad_k, grad_v = last.grad_v;
    if (last.bfloat16 && backward) {
      grad_k = of_keys.begin(last.grad_k, row, count, last.Tk);
      grad_v = of_values.begin(last.grad_v, row, count, last.Tk);
    }
    for (int64_t level = 0; level < num_levels; ++level) {
      Problem p = levels[level];
      p.grad_k = grad_k;
      p.grad_v = grad_v;
      Rows& written = backward ? p.grad_q : p.out;
      if (p.bfloat16) written = of_queries.begin(written, row, count, p.Tq);
      attend_rows(p, row, count, kernels, sorters, scratch, backward);
      if (p.bfloat16) of_queries.finish();
    }
    if (last.bfloat16 && backward) {
      of_keys.finish();
      of_values.finish();
    }
  }
}

void hash(const HashProblem& p, const Kernels& kernels, int64_t num_threads) {
  num_threads = std::min(num_threads, count_parts(p.B * p.H, p.T));
  const std::vector<Scratch> scratch = scratch_for(num_threads, kernels.hash_scratch_floats(p));
  for_parts(num_threads, p.B * p.H, p.T, [&](int64_t row, int64_t first, int64_t stop, int64_t worker) {
    kernels.hash(p, row, first, stop, scratch[worker].data);
  });
}

void decode(const DecodeProblem& p, const Kernels& kernels, int64_t num_threads) {
  const int64_t num_rows = p.B * p.H;
  const int64_t num_floats = num_rows * 2 * p.D * (p.R ? p.R * p.ring_width : p.L);
  num_threads = std::min({num_threads, num_rows, 1 + num_floats / kDecodedFloatsWorthAThread});
  const std::vector<Scratch> scratch = scratch_for(num_threads, kernels.decode_scratch_floats(p));
  Team::run(num_threads, 1, [&](Team& team, int64_t worker) {
    team.for_each(0, num_rows, [&](int64_t row) { kernels.decode(p, row, scratch[worker].data); });
  });
}

// Instruction sets that were compiled and that this processor has, the best one first.
std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> available;
#ifdef REFORMER_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    if (__builtin_cpu_supports("avx512bf16")) available.push_back(&kAvx512Bf16);
    available.push_back(&kAvx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available.push_back(&kAvx2);
#endif
  available.push_back(&kGeneric);
  return available;
}

// Runs work(); 0, or 1 where memory is short, or 2 where there is no such instruction set.
template <class Work>
int32_t guarded(int64_t instruction_set, const Work& work) {
  const std::vector<const Kernels*> available = available_kernels();
  if (instruction_set < 0 || instruction_set >= (int64_t)available.size()) return 2;
  try {
    work(*available[instruction_set]);
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace reformer

#define REFORMER_API extern "C" __attribute__((visibility("default")))

// Sizes of the structures, so that the caller can check that it has the same.
REFORMER_API int64_t reformer_problem_size() { return sizeof(reformer::Problem); }
REFORMER_API int64_t reformer_hash_problem_size() { return sizeof(reformer::HashProblem); }
REFORMER_API int64_t reformer_decode_problem_size() { return sizeof(reformer::DecodeProblem); }

// Name of the i-th instruction set that this processor has, the best one first; null behind the last.
REFORMER_API const char* reformer_instruction_set(int64_t i) {
  const auto available = reformer::available_kernels();
  return i < (int64_t)available.size() ? available[i]->name : nullptr;
}

REFORMER_API int32_t reformer_attend(const reformer::Problem* levels, int64_t num_levels, int64_t backward,
                                     int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::attend(levels, num_levels, kernels, num_threads, backward);
  });
}

REFORMER_API int32_t reformer_hash(const reformer::HashProblem* p, int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::hash(*p, kernels, num_threads);
  });
}

REFORMER_API int32_t reformer_decode(const reformer::DecodeProblem* p, int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::decode(*p, kernels, num_threads);
  });
}
