// Sums of absolute symbols along the axes of tensors.
// SPDX-License-Identifier: Apache-2.0
#include "wide_margins.h"

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <numeric>

#include "threads.h"
#include "wide_pieces.h"

namespace toolkit::wide {
namespace {

// Sums fit 16 bits over so many symbols; vectors of 16 bits hold the most.
constexpr int64_t kShortSums = 256;
static_assert(kShortSums * 128 < 65536);

struct Scratch {
  std::vector<uint16_t> sums;
  std::vector<double> col;
};

// The margins of some rows: writes the row sums, and the column sums into scratch->col.
void add_rows(const RowPiece& piece, double* row, Scratch* scratch) {
  const TensorPlan& p = *piece.plan;
  scratch->sums.assign(static_cast<size_t>(p.c), 0);
  scratch->col.assign(static_cast<size_t>(p.c), 0);
  uint16_t* const sums = scratch->sums.data();
  double* const col = scratch->col.data();
  for (int64_t first = piece.first_row; first < piece.last_row; first += kShortSums) {
    const int64_t last = std::min(piece.last_row, first + kShortSums);
    for (int64_t r = first; r < last; ++r) {
      const int8_t* const s = p.symbols + r * p.c;
      double total = 0;
      for (int64_t begin = 0; begin < p.c; begin += kShortSums) {
        const int64_t end = std::min(p.c, begin + kShortSums);
        uint16_t sum = 0;
        for (int64_t c = begin; c < end; ++c) {
          const auto magnitude = static_cast<uint16_t>(std::abs(static_cast<int16_t>(s[c])));
          sum = static_cast<uint16_t>(sum + magnitude);
          sums[c] = static_cast<uint16_t>(sums[c] + magnitude);
        }
        total += sum;
      }
      row[r] = total;
    }
    for (int64_t c = 0; c < p.c; ++c) {
      col[c] += sums[c];
      sums[c] = 0;
    }
  }
}

}  // namespace

std::vector<Margins> margins_of(const std::vector<TensorPlan>& plans, int threads) {
  std::vector<Margins> margins(plans.size());
  for (size_t i = 0; i < plans.size(); ++i) {
    margins[i].row.resize(static_cast<size_t>(plans[i].rows()));
    margins[i].col.resize(static_cast<size_t>(plans[i].c));
  }
  const std::vector<RowPiece> pieces = row_pieces(plans);
  const auto count = static_cast<int64_t>(pieces.size());
  std::vector<Scratch> scratch(static_cast<size_t>(worker_count(count, threads)));
  std::mutex adding;
  for_each_on_demand(count, threads, [&](size_t worker, size_t i) {
    Margins& m = margins[static_cast<size_t>(pieces[i].plan - plans.data())];
    add_rows(pieces[i], m.row.data(), &scratch[worker]);
    // Sums of integers: exact, so in any order.
    const std::vector<double>& col = scratch[worker].col;
    const std::lock_guard<std::mutex> lock(adding);
    std::transform(col.begin(), col.end(), m.col.begin(), m.col.begin(), std::plus<>());
  });
  for (auto& m : margins) m.total = std::accumulate(m.col.begin(), m.col.end(), 0.0);
  return margins;
}

}  // namespace toolkit::wide
