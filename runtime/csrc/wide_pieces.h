// Tensors divided into pieces of about equal work.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_PIECES_H
#define TOOLKIT_WIDE_PIECES_H

#include <algorithm>
#include <vector>

#include "wide_model.h"

namespace toolkit::wide {

// Some rows of one tensor.
struct RowPiece {
  const TensorPlan* plan;
  int64_t first_row, last_row;
};

inline std::vector<RowPiece> row_pieces(const std::vector<TensorPlan>& plans) {
  constexpr int64_t kSymbols = int64_t{1} << 18;  // of a piece of more than one row
  std::vector<RowPiece> pieces;
  for (const auto& p : plans) {
    const int64_t rows = std::max<int64_t>(1, kSymbols / p.c);
    for (int64_t r = 0; r < p.rows(); r += rows) pieces.push_back({&p, r, std::min(p.rows(), r + rows)});
  }
  return pieces;
}

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_PIECES_H
