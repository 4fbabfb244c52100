// Search trees from decoding tables.
// SPDX-License-Identifier: Apache-2.0
#include "wide_search.h"

#include <algorithm>
#include <vector>

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

// A symbol in an outermost leaf costs as much as some steps of all lanes: of a step's 32 symbols, so many at most.
constexpr double kMostOuter = 0.125;

// Sixteen symbols next to each other.
struct Window {
  int first;     // place of the first one
  double outer;  // how many of a step's symbols are in its outermost leaves, where those stand for symbols outside too
};

// The window that the fewest symbols leave, by the tables' frequencies. Of the tables of a class, the worst one counts.
Window best_window(const TableSet& set, const SearchForest& forest, const std::vector<Starts>& trees,
                   const ClassShares& shares) {
  constexpr int last_leaf = SearchForest::kLeaves - 1;
  int lowest = kSymbols, highest = -1;
  for (const Starts& t : trees) {
    lowest = std::min(lowest, t.lowest);
    highest = std::max(highest, t.highest);
  }
  if (highest - lowest <= last_leaf) return {lowest, 0};
  Window best{lowest, kLanes};
  std::vector<double> outer(trees.size());
  const int width = set.contexts * set.quantisers;
  for (int first = lowest; first + last_leaf <= highest; ++first) {
    for (size_t t = 0; t < trees.size(); ++t) {
      const Starts& tree = trees[t];
      const int below = tree.lowest < first ? tree.at[first + 1] : 0;
      const int above = tree.highest > first + last_leaf ? static_cast<int>(kSlots) - tree.at[first + last_leaf] : 0;
      outer[t] = static_cast<double>(below + above) / kSlots;
    }
    double all = 0;
    for (int y = 0; y < set.classes; ++y) {
      double most = 0;
      for (int i = y * width; i < (y + 1) * width; ++i) most = std::max(most, outer[forest.map[i]]);
      all += shares[static_cast<size_t>(y)] * most;
    }
    if (kLanes * all < best.outer) best = {first, kLanes * all};
  }
  return best;
}

}  // namespace

bool has_one_table(const TableSet& set, const Tensor& t) {
  return set.contexts == 1 && set.quantisers == 1 && !t.class_a && !t.class_b && !t.class_c;
}

size_t only_table(const TableSet& set, const Tensor& t) {
  return set.map[class_of(row_class_of(t.base), 0, set.classes)];
}

std::unique_ptr<SearchForest> make_forest(const TableSet& set, const uint32_t* slots, const ClassShares& shares) {
  std::unique_ptr<SearchForest> forest(new SearchForest());
  std::vector<Starts> trees;
  int number[kMaxTables];
  std::fill_n(number, kMaxTables, -1);
  for (int place = 0; place < set.places(); ++place) {
    const int table = set.map[place];
    if (number[table] < 0) {
      if (trees.size() == SearchForest::kMostTrees) return nullptr;
      number[table] = static_cast<int>(trees.size());
      forest->tables[trees.size()] = static_cast<uint8_t>(table);
      trees.emplace_back(slots + static_cast<size_t>(table) * kSlots);
    }
    forest->map[place] = static_cast<uint8_t>(number[table]);
  }
  const Window window = best_window(set, *forest, trees, shares);
  if (window.outer > kMostOuter) return nullptr;
  forest->has_outer = window.outer > 0;
  forest->first_symbol = window.first - 128;
  const bool many = trees.size() > size_t{1} << SearchForest::kTreeBits;
  forest->tree_bits = many ? SearchForest::kMostTreeBits : SearchForest::kTreeBits;
  for (size_t t = 0; t < trees.size(); ++t) {
    uint16_t* level_nodes = forest->nodes;
    for (int level = 0; level < kSearchLevels; ++level) {
      for (int path = 0; path < 1 << level; ++path)
        level_nodes[(t << level) + static_cast<size_t>(path)] = trees[t].node(window.first, level, path);
      level_nodes += size_t{1} << (forest->tree_bits + level);
    }
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
