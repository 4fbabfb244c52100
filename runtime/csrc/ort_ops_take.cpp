// The ops TakeTensor and TakeRange: one tensor out of decoded symbols.
// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "ort_take.h"

namespace toolkit::ort {
namespace {

// Copies in the host's memory.
struct HostCopy {
  explicit HostCopy(const KernelContext& /*context*/) {}
  // `count` rows of `bytes` bytes, which lie `pitch` bytes apart where they come from.
  void rows(void* to, const void* from, int64_t bytes, int64_t count, int64_t pitch) const {
    for (int64_t i = 0; i < count && bytes > 0; ++i)
      std::memcpy(static_cast<char*>(to) + i * bytes, static_cast<const char*>(from) + i * pitch,
                  static_cast<size_t>(bytes));
  }
};

}  // namespace

void add_take_ops(OpList& ops, int threads) {
  ops.push_back(make_op<TakeTensor<HostCopy>>({"TakeTensor", {{kUndefined, kRequired}}, kUndefined}, threads));
  ops.push_back(make_op<TakeRange<HostCopy>>({"TakeRange", {{kUndefined, kRequired}}, kUndefined}, threads));
}

}  // namespace toolkit::ort
