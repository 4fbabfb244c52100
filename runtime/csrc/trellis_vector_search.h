// The search for the symbols of trellis rows where the processor has vectors for it.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_TRELLIS_VECTOR_SEARCH_H
#define TOOLKIT_TRELLIS_VECTOR_SEARCH_H

#include <array>
#include <cstdint>
#include <vector>

#include "codec_api.h"
#include "trellis_rates.h"

namespace toolkit::wide {

// Whether `VectorSearch` can run, and is wanted.
bool has_vector_search(const tk_search& wanted);

// Chooses the symbols of rows, two at a time, as the portable search does.
class VectorSearch {
 public:
  VectorSearch(const tk_search& wanted, const SymbolRates& rates);

  // Of `count` rows from `row` on, 1 or 2: writes their symbols, and what each costs without raw bits.
  void choose(int64_t row, int count, int16_t* symbols, double* costs);

 private:
  TrellisRow prepared(int64_t row, size_t place, int16_t* symbols);

  const tk_search& wanted_;
  const SymbolRates& rates_;
  std::vector<ClassTables> classes_;
  std::array<std::vector<int16_t>, 2> steps_;
  std::array<std::vector<uint8_t>, 2> from_;
};

}  // namespace toolkit::wide

#endif  // TOOLKIT_TRELLIS_VECTOR_SEARCH_H
