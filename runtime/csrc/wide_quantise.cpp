// Counts turned into the frequencies that a table can store.
// SPDX-License-Identifier: Apache-2.0
#include "wide_quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

namespace toolkit::wide {
namespace {

// The code whose frequency is nearest in ratio: codes change at the geometric means of their frequencies.
int nearest_code(double frequency) {
  static const auto squares = [] {
    std::array<double, kMaxCode - 2> means{};
    for (int q = 1; q < kMaxCode - 1; ++q)
      means[static_cast<size_t>(q - 1)] = static_cast<double>(frequency_of_code(q)) * frequency_of_code(q + 1);
    return means;
  }();
  return 1 +
         static_cast<int>(std::upper_bound(squares.begin(), squares.end(), frequency * frequency) - squares.begin());
}

}  // namespace

TablesPlan make_tables(const Counts& counts) {
  TablesPlan tables;
  const size_t count = counts.size() / 256;
  tables.firsts.assign(count, 0);
  tables.codes.assign(count, {});
  tables.frequency.assign(count * 256, 0);
  for (size_t t = 0; t < count; ++t) {
    const uint32_t* n = counts.data() + t * 256;
    uint32_t* const f = tables.frequency.data() + t * 256;
    int first = -1, last = -1, mode = 0;
    uint64_t total = 0;
    for (int i = 0; i < 256; ++i) {
      if (!n[i]) continue;
      if (first < 0) first = i;
      last = i;
      if (n[i] > n[mode] || !n[mode]) mode = i;
      total += n[i];
    }
    if (!total || (first == last && first == 128)) {
      f[128] = kSlots - 1;  // the table that count zero stands for
      f[129] = 1;
      continue;
    }
    if (first == last) {
      // One symbol: a neighbour of frequency 1 makes it a table of two.
      if (first > 0)
        --first;
      else
        ++last;
    }
    if (last - first + 1 == kFullCount) first = 0, last = 255;
    std::vector<uint8_t> codes(static_cast<size_t>(last - first + 1));
    // Every symbol seen has at least frequency 1; the others are scaled until the mode is left with its share.
    const double share = kSlots * static_cast<double>(n[mode]) / static_cast<double>(total);
    double scale = 1;
    int64_t others = 0;
    for (int round = 0; round < 8; ++round) {
      others = 0;
      for (int i = first; i <= last; ++i) {
        if (i == mode) continue;
        const bool needed = n[i] != 0 || (total == n[mode] && std::abs(i - mode) == 1);
        const double wanted = scale * kSlots * static_cast<double>(n[i]) / static_cast<double>(total);
        auto& code = codes[static_cast<size_t>(i - first)];
        code = needed ? static_cast<uint8_t>(nearest_code(wanted)) : 0;
        others += frequency_of_code(code);
      }
      const double rest = static_cast<double>(kSlots) - static_cast<double>(others);
      if (std::abs(rest - scale * share) < 0.02 * share + 1) break;
      scale *= std::sqrt(kSlots / (static_cast<double>(others) + scale * share));
    }
    while (others >= static_cast<int64_t>(kSlots)) {
      const auto most = std::max_element(codes.begin(), codes.end());
      others -= frequency_of_code(*most) - frequency_of_code(*most - 1);
      --*most;
    }
    codes[static_cast<size_t>(mode - first)] = kModeCode;
    for (int i = first; i <= last; ++i)
      if (i != mode) f[i] = frequency_of_code(codes[static_cast<size_t>(i - first)]);
    f[mode] = kSlots - static_cast<uint32_t>(others);
    tables.firsts[t] = static_cast<int8_t>(first - 128);
    tables.codes[t] = std::move(codes);
  }
  return tables;
}

}  // namespace toolkit::wide
