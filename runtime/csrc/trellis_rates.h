// What each symbol of a tensor costs the wide coder, from the statistics of an earlier choice of its symbols.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_TRELLIS_RATES_H
#define TOOLKIT_TRELLIS_RATES_H

#include <cstdint>
#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

// The tables that the wide coder would make for one tensor alone.
class SymbolRates {
 public:
  // All symbols cost nothing.
  SymbolRates() = default;

  // Learns from symbols, rows of `shape.c`, of a trellis tensor or a plain one.
  SymbolRates(const int16_t* symbols, const TensorPlan& shape, bool trellis, int threads);

  // What the symbols of a row have in common.
  int row_class(int64_t row) const { return plan_.row_class(row); }

  // Costs in bits of the coded symbols -128 .. 127 in column `c` of a row, after the coded symbol `before`.
  const float* costs(int row_class, int64_t c, int before, int quantiser) const {
    const int column = plan_.class_c.empty() ? 0 : plan_.class_c[static_cast<size_t>(c)];
    const int y = class_of(row_class, column, set_.classes);
    const auto t = static_cast<size_t>(y);
    const int z = set_.contexts > 1 ? context_of(before, set_.t1[t], set_.t2[t]) : 0;
    const auto place = static_cast<size_t>(set_.place_of(y, z, set_.quantisers > 1 ? quantiser : 0));
    return bits_.data() + size_t{set_.map[place]} * 256 + 128;
  }

  // A symbol k is coded as k >> low_bits, and so many raw bits.
  int low_bits() const { return plan_.low_bits; }

 private:
  TensorPlan plan_;
  SetPlan set_ = free_set();
  std::vector<float> bits_ = std::vector<float>(256);  // [table * 256 + symbol + 128]

  static SetPlan free_set() {
    SetPlan set;
    set.classes = 1;
    set.map.assign(1, 0);
    return set;
  }
};

}  // namespace toolkit::wide

#endif  // TOOLKIT_TRELLIS_RATES_H
