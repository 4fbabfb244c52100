// Logarithms that are the same on every machine.
// SPDX-License-Identifier: Apache-2.0
#include "wide_log2.h"

#include <array>
#include <cmath>

namespace toolkit::wide {
namespace {

using CountTable = std::array<float, 4096>;

CountTable make_table() {
  CountTable table{};
  for (size_t n = 1; n < table.size(); ++n) table[n] = static_cast<float>(log2_of(static_cast<double>(n)));
  return table;
}

}  // namespace

double log2_of(double x) {
  constexpr double kRootHalf = 0.70710678118654752440, kTwoOverLn2 = 2.8853900817779268147;
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < kRootHalf) {
    m *= 2;
    --exponent;
  }
  // ln m = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ...), |s| < 0.172: what is left out is below 2^-60.
  const double s = (m - 1) / (m + 1), square = s * s;
  double series = 0;
  for (int k = 21; k >= 1; k -= 2) series = series * square + 1.0 / k;
  return exponent + s * series * kTwoOverLn2;
}

double log2_of_count(uint32_t n) {
  static const CountTable table = make_table();
  return n < table.size() ? static_cast<double>(table[n]) : log2_of(static_cast<double>(n));
}

}  // namespace toolkit::wide
