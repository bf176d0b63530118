// The C interface: chooses an instruction set, plans, and shares the work out among threads.

#ifdef __linux__
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef REFORMER_X86
#include <cpuid.h>
#endif

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
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
#ifdef REFORMER_HAS_AMX
extern const Kernels kAmx;
#endif
#endif

namespace {

constexpr int64_t kLargePage = 1 << 21;
constexpr int64_t kPart = 1 << 10;             // vectors of one task
constexpr int64_t kElementsOfPart = 1 << 15;   // of what is position-wise
constexpr int64_t kQueriesWorthAThread = 1 << 9;
constexpr int64_t kDecodedFloatsWorthAThread = 1 << 20;

Parallel parallel = on_new_threads;

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

// Tasks of each step on a row; those of one step never write to the same place. In the forward a step is a
// round. In the backward it is every other group of a round, then the others, then, as one task, those that see
// keys of other rounds.
std::vector<std::vector<Task>> schedule(const Problem& p, const Plans& plans, bool backward) {
  std::vector<std::vector<Task>> steps(p.R * (backward ? 3 : 1));
  for (int64_t round = 0; round < p.R; ++round) {
    const Plan& plan = plans.plan(round);
    const std::vector<Group>& groups = plans.groups(round);
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

int64_t count_parts(int64_t count, int64_t of_part = kPart) { return (count + of_part - 1) / of_part; }

// Calls work(first, stop, worker) for parts of T vectors.
template <class Work>
void for_parts(Team& team, int64_t worker, int64_t T, const Work& work) {
  team.for_each(worker, count_parts(T), [&](int64_t i, int64_t worker) {
    work(i * kPart, std::min((i + 1) * kPart, T), worker);
  });
}

// A row of a tensor [B, H, T, size] of bfloat16, while kernels write it in float32.
class Sums {
 public:
  Sums(const Rows& tensor, int64_t row, int64_t H, int64_t T, int64_t size, float* memory)
      : tensor_(tensor), row_(row), H_(H), T_(T), size_(size), memory_(memory) {}

  // Memory in the place of the row.
  Rows begin() const { return {memory_ - row_ * T_ * size_, H_ * T_ * size_, T_ * size_, size_}; }

  // The same, with zeros.
  Rows begin_with_zeros(Team& team, int64_t worker) const {
    for_parts(team, worker, T_, [&](int64_t first, int64_t stop, int64_t) {
      std::fill(memory_ + first * size_, memory_ + stop * size_, 0.0f);
    });
    return begin();
  }

  // Rounds the sums into the tensor.
  void finish(const Kernels& kernels, Team& team, int64_t worker) const {
    for_parts(team, worker, T_, [&](int64_t first, int64_t stop, int64_t) {
      kernels.round(tensor_, H_, row_, memory_, size_, first, stop);
    });
  }

 private:
  Rows tensor_;
  int64_t row_, H_, T_, size_;
  float* memory_;
};

// Zeros in a row of a tensor whose elements are of some type.
template <class Element>
void clear_row(const Rows& tensor, int64_t H, int64_t row, int64_t T, int64_t size) {
  Element* const data = (Element*)tensor.data + row / H * tensor.batch + row % H * tensor.head;
  for (int64_t i = 0; i < T; ++i) std::fill_n(data + i * tensor.token, size, Element(0));
}

// Attention of all rows. Several are worked on at once, each round by round, and workers without a row of their
// own help with these.
class Attention {
 public:
  // Each level has the queries behind those of the level before and keys from the first one on; the last level
  // has all keys. `sums` is memory for as many rows as are worked on at once, `sums_of_row` floats for each.
  Attention(const Problem* levels, int64_t num_levels, bool backward, float* sums, int64_t num_sums,
            const Kernels& kernels, int64_t num_threads)
      : levels_(levels, levels + num_levels),
        last_(levels_.back()),
        kernels_(kernels),
        backward_(backward),
        team_(std::min(num_threads, 1 + last_.B * last_.H * last_.R * max_queries(levels_) / kQueriesWorthAThread)),
        scratch_(scratch_for(team_.size(), kernels.scratch_floats(last_))) {
    const bool two_sorters = !std::all_of(levels_.begin(), levels_.end(), same_buckets);
    if (last_.window != kLocal)
      for (int64_t i = 0; i < 2 * team_.size(); ++i) sorters_.emplace_back(i % 2 && !two_sorters ? 0 : last_.Tk);
    if (const int64_t of_row = sums_of_row(levels_, backward))
      for (int64_t i = 0; (i + 1) * of_row <= num_sums; ++i) free_sums_.push_back(sums + i * of_row);
  }

  static int64_t sums_of_row(const std::vector<Problem>& levels, bool backward) {
    const Problem& p = levels.back();
    if (!p.bfloat16) return 0;
    return (writes_queries_once(p) ? 0 : max_queries(levels) * (backward ? p.D : p.Dv)) +
           (backward ? p.Tk * (p.D + p.Dv) : 0);
  }

  void run() {
    const int64_t at_once = free_sums_.empty() ? INT64_MAX : (int64_t)free_sums_.size();
    team_.run(parallel, last_.B * last_.H, [&](int64_t row, int64_t worker) { attend(row, worker); }, at_once);
  }

 private:
  static int64_t max_queries(const std::vector<Problem>& levels) {
    int64_t most = 0;
    for (const Problem& p : levels) most = std::max(most, p.Tq);
    return most;
  }

  void attend(int64_t row, int64_t worker) {
    if (free_sums_.empty()) {
      for (const Problem& p : levels_) attend(p, row, worker);
      return;
    }
    float* const memory = take_sums();
    float* of_queries = memory;
    Problem p = last_;
    if (backward_) {
      const Sums of_keys(p.grad_k, row, p.H, p.Tk, p.D, memory);
      const Sums of_values(p.grad_v, row, p.H, p.Tk, p.Dv, memory + p.Tk * p.D);
      of_queries += p.Tk * (p.D + p.Dv);
      const Rows grad_k = of_keys.begin_with_zeros(team_, worker);
      const Rows grad_v = of_values.begin_with_zeros(team_, worker);
      for (Problem level : levels_) {
        level.grad_k = grad_k;
        level.grad_v = grad_v;
        attend_in_sums(level, level.grad_q, p.D, row, worker, of_queries);
      }
      of_keys.finish(kernels_, team_, worker);
      of_values.finish(kernels_, team_, worker);
    } else {
      for (Problem level : levels_) attend_in_sums(level, level.out, p.Dv, row, worker, of_queries);
    }
    const std::lock_guard lock(mutex_);
    free_sums_.push_back(memory);
  }

  // `written` is the tensor of `level` that has a vector for each query.
  void attend_in_sums(const Problem& level, Rows& written, int64_t size, int64_t row, int64_t worker, float* memory) {
    if (writes_queries_once(level)) return attend(level, row, worker);
    const Sums sums(written, row, level.H, level.Tq, size, memory);
    written = backward_ ? sums.begin_with_zeros(team_, worker) : sums.begin();
    attend(level, row, worker);
    sums.finish(kernels_, team_, worker);
  }

  void attend(const Problem& p, int64_t row, int64_t worker) {
    if (backward_)
      for_parts(team_, worker, p.Tq, [&](int64_t first, int64_t stop, int64_t) {
        kernels_.delta(p, row, first, stop);
      });
    Plans plans(p, row);
    team_.for_each(worker, p.R, [&](int64_t round, int64_t worker) {
      Sorter* keys = sorters_.empty() ? nullptr : &sorters_[2 * worker];
      plans.make(round, keys, same_buckets(p) ? keys : keys + 1);
    });
    if (plans.plan(0).num_queries < p.Tq) {  // the others are never written to
      if (writes_queries_once(p))
        clear_row<uint16_t>(backward_ ? p.grad_q : p.out, p.H, row, p.Tq, backward_ ? p.D : p.Dv);
      else if (!backward_)
        clear_row<float>(p.out, p.H, row, p.Tq, p.Dv);
    }
    for (const std::vector<Task>& tasks : schedule(p, plans, backward_))
      team_.for_each(worker, (int64_t)tasks.size(), [&](int64_t i, int64_t worker) {
        const std::vector<Group>& groups = tasks[i].groups;
        for (size_t j = 0; j < groups.size(); ++j) {
          const Group* next = j + 1 < groups.size() ? &groups[j + 1] : nullptr;
          if (!next && i + 1 < (int64_t)tasks.size() && tasks[i + 1].plan == tasks[i].plan)
            next = &tasks[i + 1].groups[0];
          (backward_ ? kernels_.backward : kernels_.forward)(p, *tasks[i].plan, groups[j], next,
                                                             scratch_[worker].data);
        }
      });
  }

  float* take_sums() {
    const std::lock_guard lock(mutex_);
    float* const memory = free_sums_.back();
    free_sums_.pop_back();
    return memory;
  }

  const std::vector<Problem> levels_;
  const Problem& last_;
  const Kernels& kernels_;
  const bool backward_;
  Team team_;
  const std::vector<Scratch> scratch_;
  std::vector<Sorter> sorters_;
  std::mutex mutex_;
  std::vector<float*> free_sums_;
};

void hash(const HashProblem& p, const Kernels& kernels, int64_t num_threads) {
  const int64_t parts = count_parts(p.T);
  Team team(std::min(num_threads, p.B * p.H * parts));
  const std::vector<Scratch> scratch = scratch_for(team.size(), kernels.hash_scratch_floats(p));
  team.run(parallel, p.B * p.H * parts, [&](int64_t i, int64_t worker) {
    const int64_t first = i % parts * kPart;
    kernels.hash(p, i / parts, first, std::min(first + kPart, p.T), scratch[worker].data);
  });
}

void decode(const DecodeProblem& p, const Kernels& kernels, int64_t num_threads) {
  const int64_t num_rows = p.B * p.H;
  const int64_t num_floats = num_rows * 2 * p.D * (p.R ? p.R * p.ring_width : p.L);
  Team team(std::min({num_threads, num_rows, 1 + num_floats / kDecodedFloatsWorthAThread}));
  const std::vector<Scratch> scratch = scratch_for(team.size(), kernels.decode_scratch_floats(p));
  team.run(parallel, num_rows, [&](int64_t row, int64_t worker) { kernels.decode(p, row, scratch[worker].data); });
}

// Calls work(part, first, stop) for parts of `count` elements, which do not depend on the number of threads.
template <class Work>
void for_parts_of(int64_t count, int64_t of_part, int64_t num_threads, const Work& work) {
  const int64_t parts = count_parts(count, of_part);
  Team team(std::min(num_threads, parts));
  team.run(parallel, parts, [&](int64_t part, int64_t) {
    work(part, part * of_part, std::min((part + 1) * of_part, count));
  });
}

void layer_norm(const NormProblem& p, const Kernels& kernels, int64_t num_threads) {
  const int64_t of_part = std::max<int64_t>(1, kElementsOfPart / p.features);
  if (!p.grad)
    return for_parts_of(p.rows, of_part, num_threads, [&](int64_t, int64_t first, int64_t stop) {
      kernels.layer_norm(p, first, stop);
    });
  const int64_t size = 2 * p.features;
  std::vector<float> sums(count_parts(p.rows, of_part) * size);
  for_parts_of(p.rows, of_part, num_threads, [&](int64_t part, int64_t first, int64_t stop) {
    kernels.layer_norm_backward(p, first, stop, sums.data() + part * size);
  });
  std::fill_n(p.grad_parameters, size, 0.0f);
  for (auto part = sums.begin(); part != sums.end(); part += size)
    for (int64_t i = 0; i < size; ++i) p.grad_parameters[i] += part[i];
}

void add(AddProblem& p, const Kernels& kernels, int64_t num_threads) {
  std::atomic<bool> is_within = true;
  for_parts_of(p.count, kElementsOfPart, num_threads, [&](int64_t, int64_t first, int64_t stop) {
    if (!kernels.add(p, first, stop)) is_within = false;
  });
  p.is_within = is_within;
}

#ifdef REFORMER_HAS_AMX
// Whether the processor multiplies bfloat16 in tile registers, and the system lets this process have them.
bool has_tiles() {
  constexpr unsigned kBf16 = 1 << 22, kTiles = 1 << 24;  // in EDX of leaf 7
  unsigned a, b, c, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || ~d & (kBf16 | kTiles)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of <asm/prctl.h>, where it is new enough
  return !syscall(SYS_arch_prctl, kRequestPermission, kTileData);
}
#endif

std::vector<const Kernels*> find_kernels() {
  std::vector<const Kernels*> available;
#ifdef REFORMER_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    if (__builtin_cpu_supports("avx512bf16")) {
#ifdef REFORMER_HAS_AMX
      if (has_tiles()) available.push_back(&kAmx);
#endif
      available.push_back(&kAvx512Bf16);
    }
    available.push_back(&kAvx512);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available.push_back(&kAvx2);
#endif
  available.push_back(&kGeneric);
  return available;
}

// Instruction sets that were compiled and that this processor has, the best one first.
const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> available = find_kernels();  // asking takes long in a virtual machine
  return available;
}

// Runs work(); 0, or 1 where memory is short, or 2 where there is no such instruction set.
template <class Work>
int32_t guarded(int64_t instruction_set, const Work& work) {
  const std::vector<const Kernels*>& available = available_kernels();
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
REFORMER_API int64_t reformer_norm_problem_size() { return sizeof(reformer::NormProblem); }
REFORMER_API int64_t reformer_add_problem_size() { return sizeof(reformer::AddProblem); }

// Name of the i-th instruction set that this processor has, the best one first; null behind the last.
REFORMER_API const char* reformer_instruction_set(int64_t i) {
  const auto& available = reformer::available_kernels();
  return i < (int64_t)available.size() ? available[i]->name : nullptr;
}

// Lets the kernels run on the threads of a runtime of OpenMP from now on, by its GOMP_parallel.
REFORMER_API void reformer_share_threads(reformer::Parallel gomp_parallel) { reformer::parallel = gomp_parallel; }

// How much memory a row takes in reformer_attend, in floats.
REFORMER_API int64_t reformer_sums_of_row(const reformer::Problem* levels, int64_t num_levels, int64_t backward) {
  return reformer::Attention::sums_of_row({levels, levels + num_levels}, backward);
}

REFORMER_API int32_t reformer_attend(const reformer::Problem* levels, int64_t num_levels, int64_t backward, float* sums,
                                     int64_t num_sums, int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::Attention(levels, num_levels, backward, sums, num_sums, kernels, num_threads).run();
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

REFORMER_API int32_t reformer_layer_norm(const reformer::NormProblem* p, int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::layer_norm(*p, kernels, num_threads);
  });
}

REFORMER_API int32_t reformer_add(reformer::AddProblem* p, int64_t instruction_set, int64_t num_threads) {
  return reformer::guarded(instruction_set, [&](const reformer::Kernels& kernels) {
    reformer::add(*p, kernels, num_threads);
  });
}
