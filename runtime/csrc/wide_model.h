// What the wide encoder decides before coding: geometry, classes and contexts of tensors, tables of sets.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_MODEL_H
#define TOOLKIT_WIDE_MODEL_H

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "wide_format.h"
#include "wide_step.h"

namespace toolkit::wide {

// Class indices on the scale that all tensors share: resolution * (kOctavesBelowOne + log2(mean absolute symbol)).
inline constexpr int kOctavesBelowOne = 8;

// The plan of one tensor. Class arrays are empty where absent.
struct TensorPlan {
  const int8_t* symbols = nullptr;      // as coded (without raw low bits), A*B*C
  const uint8_t* quantisers = nullptr;  // of each symbol, 0 or 1; null where symbols are integers themselves
  int64_t a = 1, b = 1, c = 1, k = 1;
  std::vector<int8_t> class_a, class_b, class_c;
  int base = 0;
  int set = 0;  // the number of its set; where it has been planned only, its kind (set_kind)
  int low_bits = 0;
  double bits = 0;  // estimated size of its code words

  int64_t rows() const { return a * b; }
  int64_t size() const { return a * b * c; }
  int64_t lanes() const { return (rows() + k - 1) / k; }
  int64_t blocks() const { return (lanes() + kLanes - 1) / kLanes; }
  int64_t rows_of_lane(int64_t lane) const { return std::min(k, rows() - lane * k); }
  int row_class(int64_t row) const {
    return row_class_of(base + (class_a.empty() ? 0 : class_a[static_cast<size_t>(row / b)]) +
                        (class_b.empty() ? 0 : class_b[static_cast<size_t>(row % b)]));
  }
};

// Counts of symbols: [place * 256 + symbol + 128], or by shared table in the place of these.
using Counts = std::vector<uint32_t>;

// How class and context choose a table. Thresholds are known before counting, the map after.
struct SetPlan {
  int contexts = 1, classes = kMaxClasses, quantisers = 1;
  std::array<uint8_t, kMaxClasses> t1{}, t2{};
  std::vector<uint8_t> map;  // number of the shared table at each place (place_of); empty: each its own

  // Places of one class, one for each context and quantiser.
  int width() const { return contexts * quantisers; }
  int place_of(int y, int z, int q) const { return (y * contexts + z) * quantisers + q; }
  // Entries of Counts of this set.
  size_t entries() const { return static_cast<size_t>(classes * width()) * 256; }
};

// The tables that all sets share.
struct TablesPlan {
  std::vector<int8_t> firsts;
  std::vector<std::vector<uint8_t>> codes;
  Counts frequency;  // [table * 256 + symbol + 128]

  size_t count() const { return firsts.size(); }
};

// Numbers of the kinds of sets, before any of them has got its own number.
inline constexpr int kSetKinds = 4;
inline int set_kind(bool contexts, bool trellis) { return (contexts ? 1 : 0) + (trellis ? 2 : 0); }

// Sets the thresholds of the classes of the common scale.
void set_thresholds(int resolution, SetPlan* set);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_MODEL_H
