// 16-bit symbols as the wide coder takes them: a part of 8 bits, raw low bits and exceptions.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SPLIT_H
#define TOOLKIT_WIDE_SPLIT_H

#include <cstdint>
#include <utility>
#include <vector>

namespace toolkit::wide {

struct SplitSymbols {
  int low_bits = 0;
  std::vector<int8_t> high;                             // what is coded
  std::vector<uint8_t> low;                             // raw bits
  std::vector<std::pair<int64_t, int16_t>> exceptions;  // flat index, value
};

// Divides symbols as FORMAT.md 2.6 step 6 and 2.7 put them together.
SplitSymbols split_symbols(const int16_t* symbols, int64_t size);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SPLIT_H
