// 16-bit symbols as the wide coder takes them.
// SPDX-License-Identifier: Apache-2.0
#include "wide_split.h"

#include <algorithm>
#include <array>

namespace toolkit::wide {
namespace {

// Bits of the numbers of a byte.
struct BitTable {
  uint8_t of[256] = {};
  constexpr BitTable() {
    for (int i = 1; i < 256; ++i) of[i] = static_cast<uint8_t>(of[i / 2] + 1);
  }
};
constexpr BitTable kBits;

}  // namespace

SplitSymbols split_symbols(const int16_t* s, int64_t size) {
  SplitSymbols in;
  std::array<int64_t, 17> magnitude{};  // symbols by bits of their magnitude
  int64_t sum = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int m = s[i] ^ (s[i] >> 15);  // of a negative one, that of the number above it
    ++magnitude[static_cast<size_t>(kBits.of[m >> 8] ? kBits.of[m >> 8] + 8 : kBits.of[m & 255])];
    sum += m;
  }
  const double mean = static_cast<double>(sum) / static_cast<double>(std::max<int64_t>(size, 1));
  // Rare large symbols become exceptions of 64 bits; low bits that say nothing go raw, the coded part keeping a mean
  // magnitude of at least about 12.
  int low_bits = 0;
  for (; low_bits < 8; ++low_bits) {
    int64_t above = 0;
    for (int b = low_bits + 8; b <= 16; ++b) above += magnitude[static_cast<size_t>(b)];
    if (static_cast<double>(above) * 64 <= 0.002 * static_cast<double>(size) * 8 && mean / (1 << low_bits) < 24) break;
  }
  in.high.resize(static_cast<size_t>(size));
  in.low.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const int v = s[i] >> low_bits;
    in.low[static_cast<size_t>(i)] = static_cast<uint8_t>(s[i] & ((1 << low_bits) - 1));
    in.high[static_cast<size_t>(i)] = static_cast<int8_t>(v < -128 || v > 127 ? 0 : v);
    if (v < -128 || v > 127) in.exceptions.emplace_back(i, s[i]);
  }
  in.low_bits = low_bits;
  return in;
}

}  // namespace toolkit::wide
