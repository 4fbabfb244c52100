// Decoding tables as search trees: small ones fit registers, where finding a symbol takes no memory access.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_SEARCH_H
#define TOOLKIT_WIDE_SEARCH_H

#include <array>
#include <cstdint>

#include "wide_format.h"

namespace toolkit::wide {

inline constexpr int kSearchLevels = 4;

// The trees of all tables of a set, where they are few. A node holds the slot before those of the symbols to its right;
// node `path` of level l of tree t stands at trees * (2^l - 1) + (t << l | path), `trees` being 2^tree_bits.
struct SearchForest {
  static constexpr int kTreeBits = 5, kMostTreeBits = 6;
  static constexpr int kMostTrees = 1 << kMostTreeBits;
  static constexpr int kLeaves = 1 << kSearchLevels;

  int tree_bits;     // kTreeBits or kMostTreeBits
  int first_symbol;  // of the leftmost leaves
  // Whether the outermost leaves also stand for symbols that lie farther out: who gets there asks the slots.
  bool has_outer;
  uint8_t map[kMaxClasses * kMaxContexts * kMaxQuantisers];  // number of the tree at each place of the set
  uint8_t tables[kMostTrees];                                // whose tree it is
  alignas(64) uint16_t nodes[kMostTrees * (kLeaves - 1)];

  // Forests of one kind are searched side by side; not zero.
  int kind() const { return 2 * tree_bits + has_outer; }
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

// How often symbols of a set have each class, in shares of all.
using ClassShares = std::array<double, kMaxClasses>;

// `slots`: the tables, [tables][kSlots]. Null where the set has too many tables, or too many symbols are outer ones.
std::unique_ptr<SearchForest> make_forest(const TableSet& set, const uint32_t* slots, const ClassShares& shares);

// `slots`: one table, [kSlots]. Null where it has too many symbols.
std::unique_ptr<SearchTree> make_tree(const uint32_t* slots);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_SEARCH_H
