// Logarithms of counts.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_LOG2_H
#define TOOLKIT_WIDE_LOG2_H

#include <array>
#include <cmath>
#include <cstdint>

namespace toolkit::wide {

inline double log2_of(uint32_t n) {
  static const auto table = [] {
    std::array<float, 4096> t{};
    for (size_t i = 1; i < t.size(); ++i) t[i] = static_cast<float>(std::log2(static_cast<double>(i)));
    return t;
  }();
  return n < table.size() ? static_cast<double>(table[n]) : std::log2(static_cast<double>(n));
}

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_LOG2_H
