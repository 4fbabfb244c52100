// Counts of the symbols by set and table.
// SPDX-License-Identifier: Apache-2.0
#include "wide_counts.h"

#include <algorithm>
#include <numeric>

#include "threads.h"
#include "wide_pieces.h"
#include "wide_table_map.h"

namespace toolkit::wide {
namespace {

// Counters of one symbol that take turns, so that equal symbols in a row do not wait for each other's increments. They
// are neighbours: the memory that is in use stays as compact as that of the counts.
constexpr size_t kTurns = 2;

// Adds to *counts what count_piece(piece, table map of its tensor, counters of its set) counts. Every thread has its
// own counters, and fetches pieces until none is left; sums do not depend on who added what.
template <class CountPiece>
void count_pieces(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets, int threads,
                  std::vector<Counts>* counts, CountPiece count_piece) {
  const std::vector<RowPiece> pieces = row_pieces(plans);
  const std::vector<TableMap> maps = table_maps(plans, sets);
  const auto count = static_cast<int64_t>(pieces.size());
  std::vector<std::vector<Counts>> own(static_cast<size_t>(worker_count(count, threads)),
                                       std::vector<Counts>(sets.size()));
  for_each_on_demand(count, threads, [&](size_t worker, size_t i) {
    const TensorPlan& plan = *pieces[i].plan;
    const auto set = static_cast<size_t>(plan.set);
    Counts& counters = own[worker][set];
    if (counters.empty()) counters.resize(kTurns * sets[set].entries());
    count_piece(pieces[i], maps[static_cast<size_t>(&plan - plans.data())], counters.data());
  });
  for (const auto& by_set : own)
    for (size_t q = 0; q < sets.size(); ++q)
      for (size_t i = 0; i < by_set[q].size(); i += kTurns)
        (*counts)[q][i / kTurns] += std::accumulate(&by_set[q][i], &by_set[q][i] + kTurns, uint32_t{0});
}

// Columns in the order of their classes.
std::vector<int64_t> columns_by_class(const std::vector<int8_t>& classes) {
  std::vector<int64_t> columns(classes.size());
  std::iota(columns.begin(), columns.end(), 0);
  std::stable_sort(columns.begin(), columns.end(), [&](int64_t i, int64_t j) {
    return classes[static_cast<size_t>(i)] < classes[static_cast<size_t>(j)];
  });
  return columns;
}

}  // namespace

std::vector<Counts> count_symbols(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets, int threads) {
  std::vector<Counts> counts;
  for (const auto& set : sets) counts.emplace_back(set.entries());
  count_pieces(plans, sets, threads, &counts, [](const RowPiece& piece, const TableMap& map, uint32_t* counters) {
    const TensorPlan& p = *piece.plan;
    for (int64_t r = piece.first_row; r < piece.last_row; ++r)
      map.visit(r, p.row_class(r), 0, p.c, [counters](int64_t i, uint32_t index) {
        ++counters[index * kTurns + static_cast<size_t>(i) % kTurns];
      });
  });
  return counts;
}

void add_outer_classes(const std::vector<TensorPlan>& plans, const std::vector<SetPlan>& sets,
                       const std::vector<OuterClasses>& outer, int threads, std::vector<Counts>* counts) {
  count_pieces(plans, sets, threads, counts, [&](const RowPiece& piece, const TableMap& map, uint32_t* counters) {
    const TensorPlan& p = *piece.plan;
    const OuterClasses& classes = outer[static_cast<size_t>(p.set)];
    const std::vector<int64_t> columns = columns_by_class(p.class_c);
    for (int64_t r = piece.first_row; r < piece.last_row; ++r) {
      const int row = p.row_class(r), lowest = map.lowest_class(row), highest = map.highest_class(row);
      const auto add = [&](int64_t first, int64_t count) {
        map.visit(r, row, first, count, [&](int64_t, uint32_t index) { ++counters[index * kTurns]; });
      };
      if (highest < classes.low || lowest > classes.high) {
        add(0, p.c);
        continue;
      }
      const auto class_at = [&](size_t i) { return row + p.class_c[static_cast<size_t>(columns[i])]; };
      if (lowest < classes.low)
        for (size_t i = 0; class_at(i) < classes.low; ++i) add(columns[i], 1);
      if (highest > classes.high)
        for (size_t i = columns.size(); class_at(i - 1) > classes.high; --i) add(columns[i - 1], 1);
    }
  });
}

}  // namespace toolkit::wide
