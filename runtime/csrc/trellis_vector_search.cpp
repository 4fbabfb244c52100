// The search for the symbols of trellis rows where the processor has vectors for it.
// SPDX-License-Identifier: Apache-2.0
#include "trellis_vector_search.h"

#include "wide_decode.h"

namespace toolkit::wide {

bool has_vector_search(const tk_search& wanted) {
#if defined(__x86_64__)
  return wanted.trellis && wanted.isa != TK_ISA_PORTABLE && best_isa() >= TK_ISA_AVX2;
#else
  (void)wanted;
  return false;
#endif
}

VectorSearch::VectorSearch(const tk_search& wanted, const SymbolRates& rates)
    : wanted_(wanted), rates_(rates), classes_(rates.class_tables()) {
  const auto columns = static_cast<size_t>(wanted.c);
  for (size_t i = 0; i < 2; ++i) {
    steps_[i].resize(8 * columns);
    from_[i].resize(columns);
  }
}

void VectorSearch::choose(int64_t row, int count, int16_t* symbols, double* costs) {
  std::array<TrellisRow, 2> rows{};
  for (int i = 0; i < count; ++i) rows[static_cast<size_t>(i)] = prepared(row + i, static_cast<size_t>(i), symbols);
#if defined(__x86_64__)
  search_rows_avx2(rows.data(), count);
#endif
  for (int i = 0; i < count; ++i) costs[i] = rows[static_cast<size_t>(i)].cost;
}

TrellisRow VectorSearch::prepared(int64_t row, size_t place, int16_t* symbols) {
  const int64_t first = row * wanted_.c;
  TrellisRow found{};
  found.values = wanted_.values + first;
  found.importance = wanted_.importance ? wanted_.importance + first : nullptr;
  found.kept = wanted_.kept ? wanted_.kept + first : nullptr;
  found.columns = wanted_.c;
  found.rate_weight = wanted_.rate_weight;
  found.exception_cost = wanted_.rate_weight * kExceptionBits;
  found.most = wanted_.most;
  found.low_bits = rates_.low_bits();
  found.bits = rates_.is_free() ? nullptr : rates_.table_bits().data();
  found.classes = classes_.data();
  found.column_classes = rates_.column_classes();
  found.row_class = rates_.row_class(row);
  found.num_classes = rates_.set().classes;
  found.steps = steps_[place].data();
  found.from = from_[place].data();
  found.symbols = symbols + first;
  return found;
}

}  // namespace toolkit::wide
