// Threads over a range of equal pieces of work.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_THREADS_H
#define TOOLKIT_THREADS_H

#include <cstdint>
#include <functional>

namespace toolkit {

// How many threads `threads` asks for: 0 stands for one per processor.
int thread_count(int threads);

// Calls work(begin, end) on pieces of 0 .. count - 1 from up to `threads` threads (0: one per processor); the calling
// thread is one of them. Where `work` throws, one of its exceptions comes out after all threads have ended.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t, int64_t)>& work);

// How many workers for_each_on_demand has.
int worker_count(int64_t count, int threads);

// Calls work(worker, i) for i = 0 .. count - 1, each as soon as a worker is free: for pieces of work that are large and
// of unequal size. A worker, 0 .. worker_count - 1, does one piece at a time, so it can have memory of its own.
void for_each_on_demand(int64_t count, int threads, const std::function<void(size_t, size_t)>& work);

}  // namespace toolkit

#endif  // TOOLKIT_THREADS_H
