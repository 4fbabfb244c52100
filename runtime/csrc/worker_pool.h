// Threads that are kept between calls: starting one costs as much as decoding 200,000 symbols.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WORKER_POOL_H
#define TOOLKIT_WORKER_POOL_H

#include <functional>

namespace toolkit {

// Calls `body` on the calling thread and, at the same time, on up to `others` more, and comes back when all have ended.
// A thread that has not begun when the caller's own call ends is not waited for, so `body` must do whatever is left to
// do, and must not throw. Calls from several threads, from inside of `body` and after a fork are all right.
void run_on_threads(int others, const std::function<void()>& body);

}  // namespace toolkit

#endif  // TOOLKIT_WORKER_POOL_H
