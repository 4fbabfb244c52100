// Threads that are kept between calls.
// SPDX-License-Identifier: Apache-2.0
#include "worker_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace toolkit {

namespace {

class WorkerPool {
 public:
  // False where another call has the pool.
  bool run(int others, const std::function<void()>& body) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      grow(others);
      body_ = &body;
      tickets_ = others < threads_ ? others : threads_;
    }
    wake_.notify_all();
    body();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      tickets_ = 0;
      ended_.wait(lock, [this] { return running_ == 0; });
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  void grow(int wanted) {
    try {
      for (; threads_ < wanted; ++threads_) std::thread([this] { serve(); }).detach();
    } catch (const std::system_error&) {
      // No more threads to be had: those that run do the work.
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return tickets_ > 0; });
      --tickets_;
      ++running_;
      const std::function<void()>& body = *body_;
      lock.unlock();
      body();
      lock.lock();
      if (--running_ == 0) ended_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable wake_, ended_;
  const std::function<void()>* body_ = nullptr;
  int threads_ = 0, tickets_ = 0, running_ = 0;
};

std::atomic<WorkerPool*> the_pool{nullptr};

// The pool of this process. It lives as long as the process, as its threads do, which wait in it; a child has none of
// its parent's threads and begins with a new one.
WorkerPool& pool() {
  WorkerPool* found = the_pool.load(std::memory_order_acquire);
  if (found) return *found;
  static std::mutex making;
  const std::lock_guard<std::mutex> lock(making);
  if (!the_pool.load(std::memory_order_relaxed)) {
#ifndef _WIN32
    static const int registered = pthread_atfork([] { making.lock(); }, [] { making.unlock(); },
                                                 [] {
                                                   the_pool.store(nullptr, std::memory_order_relaxed);
                                                   making.unlock();
                                                 });
    static_cast<void>(registered);
#endif
    the_pool.store(new WorkerPool, std::memory_order_release);
  }
  return *the_pool.load(std::memory_order_relaxed);
}

void run_on_new_threads(int others, const std::function<void()>& body) {
  std::vector<std::thread> started;
  started.reserve(static_cast<size_t>(others));
  try {
    for (int i = 0; i < others; ++i) started.emplace_back(body);
  } catch (const std::system_error&) {
    // As above.
  }
  body();
  for (auto& thread : started) thread.join();
}

}  // namespace

void run_on_threads(int others, const std::function<void()>& body) {
  if (!pool().run(others, body)) run_on_new_threads(others, body);
}

}  // namespace toolkit
