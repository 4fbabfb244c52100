// Decoding tables as search trees: small ones fit registers, where finding a symbol takes no memory access.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SEARCH_H
#define TOOLKIT_WIDE_SEARCH_H

#include <cstdint>

#include "wide_format.h"

namespace toolkit::wide {

inline constexpr int kSearchLevels = 4;

// The trees of all tables of a set, where they are few and their symbols lie close together. A node holds the slot
// before those of the symbols to its right; node `path` of level l of tree t stands at 32 * (2^l - 1) + (t << l |
// path).
struct SearchForest {
  static constexpr int kTrees = 32;
  static constexpr int kNodes = kTrees * ((1 << kSearchLevels) - 1);

  int first_symbol;                                          // of the leftmost leaves
  uint8_t map[kMaxClasses * kMaxContexts * kMaxQuantisers];  // number of the tree at each place of the set
  alignas(64) uint16_t nodes[kNodes];
};

// The tree of one table, likewise: node `path` of level l stands at 2^l + path. Behind the nodes, at 16 + leaf, the
// first slot of each symbol.
struct SearchTree {
  int first_symbol;  // of the leftmost leaf
  alignas(64) uint16_t nodes[32];
  alignas(64) uint16_t frequencies[32];  // times 16, at 16 + leaf
};

// Whether all symbols of a tensor have the same table, and its number then.
bool has_one_table(const TableSet& set, const Tensor& t);
size_t only_table(const TableSet& set, const Tensor& t);

// `slots`: the tables, [tables][kSlots]. Null where the set has too many tables or symbols.
std::unique_ptr<SearchForest> make_forest(const TableSet& set, const uint32_t* slots);

// `slots`: one table, [kSlots]. Null where it has too many symbols.
std::unique_ptr<SearchTree> make_tree(const uint32_t* slots);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SEARCH_H
