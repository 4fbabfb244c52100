// The search for the symbols of rows of a trellis tensor, its eight states side by side in vectors.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_TRELLIS_ROW_H
#define TOOLKIT_TRELLIS_ROW_H

#include <cstdint>

namespace toolkit::wide {

// Where the costs of symbols begin in the tables of one class, for each quantiser and context, and the thresholds
// between its contexts.
struct alignas(32) ClassTables {
  int32_t place[2][8];
  int32_t t1, t2;
};

// One row, and what is known of its symbols' costs.
struct TrellisRow {
  const float* values;      // [columns], in steps
  const float* importance;  // [columns]; null: all 1
  const uint8_t* kept;      // [columns]; null: all
  int64_t columns;
  double rate_weight;      // squared steps a bit
  double exception_cost;   // of a symbol that no table has
  int32_t most, low_bits;  // the largest integer; raw bits of a symbol
  const float* bits;       // of all tables; null: symbols cost nothing
  const ClassTables* classes;
  const int8_t* column_classes;  // [columns]; null: all 0
  int32_t row_class, num_classes;
  int16_t* steps;    // [8 * columns], for the search's own use
  uint8_t* from;     // [columns], likewise
  int16_t* symbols;  // [columns], the result
  double cost;       // its weighted squared error and rate, raw bits left out
};

// Fills symbols and cost of one or two rows of the same tensor. Chooses as the portable search does, to the last bit.
void search_rows_avx2(TrellisRow* rows, int count);

}  // namespace toolkit::wide

#endif  // TOOLKIT_TRELLIS_ROW_H
