// Threads over a range of equal pieces of work.
// SPDX-License-Identifier: Apache-2.0
#include "threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "worker_pool.h"

namespace toolkit {

int thread_count(int threads) {
  return threads > 0 ? threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

void parallel_for(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& work) {
  threads = static_cast<int>(std::min<int64_t>(thread_count(threads), count));
  if (threads <= 1) {
    if (count > 0) work(0, count);
    return;
  }
  // Pieces are handed out on demand, a few to each thread, so that a slow processor does not hold up the rest.
  const int64_t piece = std::max<int64_t>(1, count / (int64_t{threads} * 4));
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failing;
  const auto loop = [&] {
    try {
      for (;;) {
        const int64_t begin = next.fetch_add(piece);
        if (begin >= count) return;
        work(begin, std::min(count, begin + piece));
      }
    } catch (...) {
      // An exception must not leave its thread: it waits until all have ended. The rest of the work is given up.
      next = count;
      const std::lock_guard<std::mutex> lock(failing);
      failure = std::current_exception();
    }
  };
  run_on_threads(threads - 1, loop);
  if (failure) std::rethrow_exception(failure);
}

int worker_count(int64_t count, int threads) {
  return static_cast<int>(std::min<int64_t>(thread_count(threads), count));
}

void for_each_on_demand(int64_t count, int threads, const std::function<void(size_t, size_t)>& work) {
  const int workers = worker_count(count, threads);
  std::atomic<int64_t> next{0};
  parallel_for(workers, workers, [&](int64_t begin, int64_t end) {
    for (int64_t worker = begin; worker < end; ++worker)
      for (int64_t i = next++; i < count; i = next++) work(static_cast<size_t>(worker), static_cast<size_t>(i));
  });
}

}  // namespace toolkit
