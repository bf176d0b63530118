// Threads that share out tasks, and the tasks of tasks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef REFORMER_X86
#include <immintrin.h>
#endif

namespace reformer {

// Calls call(data) on up to `num_threads` threads at once, of which the caller's is one: what runtimes of OpenMP offer as
// GOMP_parallel.
using Parallel = void (*)(void (*call)(void* data), void* data, unsigned num_threads, unsigned flags);

inline void on_new_threads(void (*call)(void* data), void* data, unsigned num_threads, unsigned) {
  std::vector<std::thread> threads;
  try {
    threads.reserve(num_threads);
    for (unsigned i = 1; i < num_threads; ++i) threads.emplace_back(call, data);
  } catch (const std::system_error&) {  // the system gives no more threads
  }
  call(data);
  for (auto& thread : threads) thread.join();
}

class Team {
 public:
  // Up to `num_threads` workers.
  explicit Team(int64_t num_threads) : size_(num_threads) {}

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int64_t size() const { return size_; }

  // Gathers the workers, of whom the caller is number 0, for one `for_each`.
  template <class Work>
  void run(Parallel parallel, int64_t count, const Work& work, int64_t at_once = INT64_MAX) {
    const auto all = [&] { for_each(0, count, work, at_once); };
    if (size_ == 1) return all();
    Member<decltype(all)> member{*this, all, std::this_thread::get_id()};
    parallel([](void* data) { static_cast<decltype(member)*>(data)->take_part(); }, &member, (unsigned)size_, 0);
    if (member.failed) throw std::bad_alloc();
  }

  // Calls work(i, worker) for each i below `count`, no more than `at_once` at a time, and returns when all are
  // done. `worker` is the number of the calling thread. A task may share out tasks of its own, which workers
  // without anything else to do then take. Throws bad_alloc where a task did.
  template <class Work>
  void for_each(int64_t worker, int64_t count, const Work& work, int64_t at_once = INT64_MAX) {
    if (count <= 1 || size_ == 1) {
      for (int64_t i = 0; i < count; ++i) work(i, worker);
      return;
    }
    Job job{[](const void* work, int64_t i, int64_t worker) { (*static_cast<const Work*>(work))(i, worker); },
            &work, count, at_once};
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(&job);
    }
    note_change();
    // Of the jobs since this one only: they are parts of its tasks, or as small.
    for (;;) {
      const int64_t change = num_changes_.load(std::memory_order_acquire);
      if (is_done(job)) break;
      if (!help(worker, &job)) await(change);
    }
    {
      const std::lock_guard lock(mutex_);
      jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    }
    if (job.failed) throw std::bad_alloc();
  }

 private:
  struct Job {
    void (*call)(const void* work, int64_t i, int64_t worker);
    const void* work;
    int64_t count, at_once;
    int64_t next = 0, running = 0;
    bool failed = false;
  };

  template <class Work>
  struct Member {
    Team& team;
    const Work& work;
    std::thread::id caller;
    bool failed = false;

    void take_part() {
      if (std::this_thread::get_id() != caller) return team.serve(++team.num_helpers_);
      try {
        work();
      } catch (const std::bad_alloc&) {
        failed = true;
      }
      team.stopped_ = true;
      team.note_change();
    }
  };

  // Does a task of the jobs from `first` on, or of all; false where there is none to do.
  bool help(int64_t worker, const Job* first = nullptr) {
    std::unique_lock lock(mutex_);
    const auto start = first ? std::find(jobs_.begin(), jobs_.end(), first) : jobs_.begin();
    const auto found = std::find_if(start, jobs_.end(), [](const Job* job) {
      return job->next < job->count && job->running < job->at_once;
    });
    if (found == jobs_.end()) return false;
    Job& job = **found;
    const int64_t i = job.next++;
    ++job.running;
    lock.unlock();
    bool failed = false;
    try {
      job.call(job.work, i, worker);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
    lock.lock();
    job.failed |= failed;
    --job.running;
    lock.unlock();  // the job may be gone from here on
    note_change();
    return true;
  }

  bool is_done(const Job& job) {
    const std::lock_guard lock(mutex_);
    return job.next == job.count && !job.running;
  }

  void serve(int64_t worker) {
    for (;;) {
      const int64_t change = num_changes_.load(std::memory_order_acquire);
      if (stopped_) return;
      if (!help(worker)) await(change);
    }
  }

  void note_change() {
    num_changes_.fetch_add(1, std::memory_order_release);
    num_changes_.notify_all();
  }

  // Waits for a change after `change`: awake at first, since waking up takes longer than most tasks.
  void await(int64_t change) const {
    constexpr int kPauses = 1000;  // some 20 to 50 us
    for (int i = 0; i < kPauses; ++i) {
      if (num_changes_.load(std::memory_order_acquire) != change) return;
#ifdef REFORMER_X86
      _mm_pause();
#endif
    }
    num_changes_.wait(change, std::memory_order_acquire);
  }

  const int64_t size_;
  std::mutex mutex_;
  std::vector<Job*> jobs_;  // the oldest first
  std::atomic<int64_t> num_changes_ = 0;
  std::atomic<bool> stopped_ = false;
  std::atomic<int64_t> num_helpers_ = 0;
};

}  // namespace reformer
