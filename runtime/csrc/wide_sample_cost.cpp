// What a plan would cost, estimated from a sample of the tensor's rows.
// SPDX-License-Identifier: Apache-2.0
#include "wide_sample_cost.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "wide_log2.h"
#include "wide_table_map.h"

namespace toolkit::wide {
namespace {

constexpr int64_t kSampleSymbols = 1 << 16;
constexpr double kParameterWeight = 0.35;  // tables are shared: a tensor bears part of what its statistics cost

double entropy_bits(const std::vector<int8_t>& values) {
  if (values.empty()) return 0;
  std::array<int, 256> n{};
  for (int8_t v : values) ++n[static_cast<size_t>(v + 128)];
  double bits = 0;
  for (int c : n)
    if (c) bits -= c * log2_of(static_cast<double>(c) / static_cast<double>(values.size()));
  return bits + 16;
}

// Bits of the symbols coded with tables of their own, and of the tables.
struct TableBits {
  double coded = 0, parameters = 0;

  // `n` counts the symbols first .. last - 1.
  void add(const uint32_t* n, int first, int last) {
    uint32_t total = 0, distinct = 0;
    double sum = 0;
    for (int i = first; i < last; ++i) {
      if (!n[i]) continue;
      total += n[i];
      ++distinct;
      sum += n[i] * log2_of_count(n[i]);
    }
    if (!total) return;
    coded += total * log2_of_count(total) - sum;
    parameters += 0.5 * (distinct - 1) * log2_of_count(total) + 4;
  }
};

// One of `count` rows from `first` on: rows at equal distances would miss what repeats at that distance, such as the
// blocks of a transform or some input channels.
int64_t spread_row(int64_t first, int64_t count) {
  const uint64_t mixed = static_cast<uint64_t>(first + 1) * 0x9e3779b97f4a7c15u;
  return first + static_cast<int64_t>((mixed >> 32) % static_cast<uint64_t>(count));
}

}  // namespace

SampleBits SampleCost::bits(const TensorPlan& plan) {
  const TableMap map(plan, five_);
  const int64_t rows = plan.rows();
  const int64_t stride = std::max<int64_t>(1, rows / std::clamp<int64_t>(kSampleSymbols / plan.c, 1, rows));
  int8_t low = 0, high = 0;  // symbols
  for (int64_t first_row = 0; first_row < rows; first_row += stride) {
    const int64_t r = spread_row(first_row, std::min(stride, rows - first_row));
    const int8_t* const s = plan.symbols + r * plan.c;
    for (int64_t c = 0; c < plan.c; ++c) {
      low = std::min(low, s[c]);
      high = std::max(high, s[c]);
    }
    map.visit(r, plan.row_class(r), 0, plan.c, [&](int64_t, uint32_t index) { ++counts_[index]; });
  }
  const int first = low + 128, last = high + 129;
  TableBits plain, five;
  std::array<uint32_t, 256> all{};  // all contexts of a class
  for (int y = map.first_class(); y <= map.last_class(); ++y) {
    std::fill(all.begin() + first, all.begin() + last, 0);
    for (int z = 0; z < kMaxContexts; ++z) {
      uint32_t* const n = counts_.data() + (y * kMaxContexts + z) * 256;
      five.add(n, first, last);
      for (int i = first; i < last; ++i) all[static_cast<size_t>(i)] += n[i];
      std::fill(n + first, n + last, 0);
    }
    plain.add(all.data(), first, last);
  }
  const double a = entropy_bits(plan.class_a), b = entropy_bits(plan.class_b), c = entropy_bits(plan.class_c);
  const auto sampled = static_cast<double>((rows + stride - 1) / stride * plan.c);
  const auto total = [&](const TableBits& bits) {
    return bits.coded * static_cast<double>(plan.size()) / sampled + kParameterWeight * bits.parameters + a + b + c;
  };
  return {total(plain), total(five)};
}

}  // namespace toolkit::wide
