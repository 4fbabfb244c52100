// Search trees from decoding tables.
// SPDX-License-Identifier: Apache-2.0
#include "wide_search.h"

#include <algorithm>

#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr int kSymbols = 256;

// Where the symbols of a table begin among its slots; those without slots where the next one does.
struct Starts {
  int lowest = kSymbols, highest = -1;  // places of symbols that have slots: symbol + 128
  uint16_t at[kSymbols + 1];

  explicit Starts(const uint32_t* slots) {
    std::fill_n(at, kSymbols + 1, static_cast<uint16_t>(kSlots));
    for (uint32_t slot = 0; slot < kSlots; slot += slots[slot] >> 8 & 0xfff) {
      const int place = static_cast<int8_t>(slots[slot]) + 128;
      at[place] = static_cast<uint16_t>(slot);
      lowest = std::min(lowest, place);
      highest = std::max(highest, place);
    }
    for (int place = kSymbols - 1; place >= 0; --place) {
      const bool has_slots = at[place] < kSlots;
      if (!has_slots) at[place] = at[place + 1];
    }
  }

  // The node `path` of level `level` of a tree whose leftmost leaf is `first`: the slot before those to its right.
  uint16_t node(int first, int level, int path) const {
    return static_cast<uint16_t>(at[std::min(first + ((2 * path + 1) << (kSearchLevels - 1 - level)), kSymbols)] - 1);
  }
};

}  // namespace

bool has_one_table(const TableSet& set, const Tensor& t) {
  return set.contexts == 1 && set.quantisers == 1 && !t.class_a && !t.class_b && !t.class_c;
}

size_t only_table(const TableSet& set, const Tensor& t) {
  return set.map[class_of(row_class_of(t.base), 0, set.classes)];
}

std::unique_ptr<SearchForest> make_forest(const TableSet& set, const uint32_t* slots) {
  std::unique_ptr<SearchForest> forest(new SearchForest());
  std::vector<Starts> trees;
  int number[kMaxTables];
  std::fill_n(number, kMaxTables, -1);
  int lowest = kSymbols, highest = -1;
  for (int place = 0; place < set.places(); ++place) {
    const int table = set.map[place];
    if (number[table] < 0) {
      if (trees.size() == SearchForest::kTrees) return nullptr;
      number[table] = static_cast<int>(trees.size());
      trees.emplace_back(slots + static_cast<size_t>(table) * kSlots);
      lowest = std::min(lowest, trees.back().lowest);
      highest = std::max(highest, trees.back().highest);
      if (highest - lowest >= 1 << kSearchLevels) return nullptr;
    }
    forest->map[place] = static_cast<uint8_t>(number[table]);
  }
  forest->first_symbol = lowest - 128;
  for (size_t t = 0; t < trees.size(); ++t) {
    uint16_t* level_nodes = forest->nodes;
    for (int level = 0; level < kSearchLevels; level_nodes += SearchForest::kTrees << level, ++level)
      for (int path = 0; path < 1 << level; ++path)
        level_nodes[(t << level) + static_cast<size_t>(path)] = trees[t].node(lowest, level, path);
  }
  return forest;
}

std::unique_ptr<SearchTree> make_tree(const uint32_t* slots) {
  const Starts starts(slots);
  if (starts.highest - starts.lowest >= 1 << kSearchLevels) return nullptr;
  std::unique_ptr<SearchTree> tree(new SearchTree());
  tree->first_symbol = starts.lowest - 128;
  for (int level = 0; level < kSearchLevels; ++level)
    for (int path = 0; path < 1 << level; ++path)
      tree->nodes[(1 << level) + path] = starts.node(starts.lowest, level, path);
  constexpr int leaves = 1 << kSearchLevels;
  for (int leaf = 0; leaf < leaves; ++leaf) {
    const int begin = starts.at[std::min(starts.lowest + leaf, kSymbols)];
    const int end = starts.at[std::min(starts.lowest + leaf + 1, kSymbols)];
    tree->nodes[leaves + leaf] = static_cast<uint16_t>(begin);
    tree->frequencies[leaves + leaf] = static_cast<uint16_t>((end - begin) << (16 - kProbabilityBits));
  }
  return tree;
}

}  // namespace toolkit::wide
