// What each symbol of a tensor costs the wide coder, from the statistics of an earlier choice of its symbols.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_TRELLIS_RATES_H
#define TOOLKIT_TRELLIS_RATES_H

#include <cstdint>
#include <vector>

#include "trellis_row.h"
#include "wide_model.h"

namespace toolkit::wide {

// The part of a symbol that is coded by a table, and whether it needs an exception (then that part is 0).
struct CodedSymbol {
  int coded;
  bool exception;
};
inline CodedSymbol coded_symbol(int symbol, int low_bits) {
  const int coded = symbol >> low_bits;
  const bool exception = coded < -128 || coded > 127;
  return {exception ? 0 : coded, exception};
}
inline constexpr double kExceptionBits = 64;

// The tables that the wide coder would make for one tensor alone.
class SymbolRates {
 public:
  // All symbols cost nothing.
  SymbolRates() = default;

  // Learns from symbols, rows of `shape.c`, of a trellis tensor or a plain one.
  SymbolRates(const int16_t* symbols, const TensorPlan& shape, bool trellis, int threads);

  // What the symbols of a row have in common.
  int row_class(int64_t row) const { return plan_.row_class(row); }

  int column_class(int64_t c) const { return plan_.class_c.empty() ? 0 : plan_.class_c[static_cast<size_t>(c)]; }

  // What the states of a trellis have in common in column `c` of a row.
  struct Column {
    const uint8_t* map;
    int t1, t2;
  };
  Column column(int row_class, int64_t c) const {
    const auto y = static_cast<size_t>(class_of(row_class, column_class(c), set_.classes));
    return {set_.map.data() + y * static_cast<size_t>(set_.width()), set_.t1[y], set_.t2[y]};
  }

  // Costs in bits of the coded symbols -128 .. 127, raw bits left out, after the coded symbol `before`.
  const float* bits(const Column& column, int before, int quantiser) const {
    const int z = set_.contexts > 1 ? context_of(before, column.t1, column.t2) : 0;
    return bits_.data() + size_t{column.map[set_.place_of(0, z, set_.quantisers > 1 ? quantiser : 0)]} * 256 + 128;
  }

  // The same for vectors: all classes' places in the tables.
  std::vector<ClassTables> class_tables() const;

  // Whether all symbols cost nothing.
  bool is_free() const { return is_free_; }

  // Classes of all columns; null: they are 0.
  const int8_t* column_classes() const { return plan_.class_c.empty() ? nullptr : plan_.class_c.data(); }

  // A symbol k is coded as k >> low_bits, and so many raw bits.
  int low_bits() const { return plan_.low_bits; }

  // Contexts, thresholds and the map of tables; costs of all tables, [table * 256 + symbol + 128].
  const SetPlan& set() const { return set_; }
  const std::vector<float>& table_bits() const { return bits_; }

 private:
  TensorPlan plan_;
  bool is_free_ = true;
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
