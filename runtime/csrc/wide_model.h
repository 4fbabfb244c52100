// What the wide encoder decides about a tensor before coding: geometry, classes, contexts, tables.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_MODEL_H
#define TOOLKIT_WIDE_MODEL_H

#include <array>
#include <cstdint>
#include <vector>

#include "wide_format.h"

namespace toolkit::wide {

// Class indices on the scale that all tensors share: resolution * (kOctavesBelowOne + log2(mean absolute symbol)).
inline constexpr int kOctavesBelowOne = 8;

// The plan of one tensor. Class arrays are empty where absent.
struct TensorPlan {
  const int8_t* symbols = nullptr;  // as coded (without raw low bits), A*B*C
  int64_t a = 1, b = 1, c = 1, k = 1;
  std::vector<int8_t> class_a, class_b, class_c;
  int base = 0;
  int set = 0;
  int low_bits = 0;
  double bits = 0;  // estimated size of its code words

  int64_t rows() const { return a * b; }
  int64_t size() const { return a * b * c; }
  // base + class_a + class_b of a row.
  int row_class(int64_t row) const {
    return base + (class_a.empty() ? 0 : class_a[static_cast<size_t>(row / b)]) +
           (class_b.empty() ? 0 : class_b[static_cast<size_t>(row % b)]);
  }
};

struct ModelOptions {
  int contexts = 1;  // 0 off, 1 chosen, 2 always
  bool classes = true;
  int resolution = 4;  // classes an octave
};

// Chooses view, class arrays and contexts of a tensor (set 0: one context, set 1: five).
void plan_tensor(const ModelOptions& options, TensorPlan* plan);

// Counts of symbols by table: counts[(class * contexts + context) * 256 + (symbol + 128)].
using Counts = std::vector<uint32_t>;

// One set of tables: thresholds are known before counting, codes after.
struct SetPlan {
  int contexts = 1, classes = kMaxClasses;
  std::array<uint8_t, kMaxClasses> t1{}, t2{};
  std::vector<int8_t> firsts;               // by table
  std::vector<std::vector<uint8_t>> codes;  // by table
  std::vector<uint32_t> frequency;          // [table * 256 + symbol + 128]
};

// Thresholds of the classes `first` .. `first + classes - 1` of the common scale.
void set_thresholds(int resolution, int first, SetPlan* set);

// Adds the tensor's symbols to the counts of its set.
void count_symbols(const TensorPlan& plan, const SetPlan& set, Counts* counts);

// Narrows the classes to those that pay for their tables; returns the number of classes cut off below. Counts follow.
int trim_classes(SetPlan* set, Counts* counts);

// Codes and frequencies of every table from the counts.
void make_tables(const Counts& counts, SetPlan* set);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_MODEL_H
