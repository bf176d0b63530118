// Threads that run the same program and share out the tasks of its steps.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <latch>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace reformer {

class Team {
 public:
  // Runs program(team, worker) in up to `num_threads` threads, this one included. Each must call the same
  // steps, at most `max_steps` of them.
  template <class Program>
  static void run(int64_t num_threads, int64_t max_steps, const Program& program) {
    std::unique_ptr<Team> team;
    std::latch ready(1);
    std::vector<std::thread> threads;
    try {
      threads.reserve(num_threads);
      for (int64_t worker = 1; worker < num_threads; ++worker)
        threads.emplace_back([&, worker] {
          ready.wait();
          program(*team, worker);
        });
    } catch (const std::system_error&) {  // the system gives no more threads
    }
    team.reset(new Team((int64_t)threads.size() + 1, max_steps));
    ready.count_down();
    program(*team, 0);
    for (auto& thread : threads) thread.join();
  }

  // Calls work(i) for each i below `count`, in some thread, and waits until all are done.
  template <class Work>
  void for_each(int64_t step, int64_t count, const Work& work) {
    for (int64_t i; (i = next_[step].fetch_add(1, std::memory_order_relaxed)) < count;) work(i);
    wait();
  }

  void wait() { barrier_.arrive_and_wait(); }

 private:
  Team(int64_t size, int64_t max_steps) : barrier_(size), next_(new std::atomic<int64_t>[max_steps]()) {}

  std::barrier<> barrier_;
  std::unique_ptr<std::atomic<int64_t>[]> next_;
};

}  // namespace reformer
