// One decoding step of one lane, the same source for every processor (FORMAT.md 2.6).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_STEP_H
#define TOOLKIT_WIDE_STEP_H

#include <cstdint>

#if defined(__CUDACC__)
#define TK_HOST_DEVICE __host__ __device__
#else
#define TK_HOST_DEVICE
#endif

namespace toolkit::wide {

// 2.6 step 2: the class of a row from the sum of its classes.
TK_HOST_DEVICE inline int8_t row_class_of(int sum) {
  return static_cast<int8_t>(sum < -128 ? -128 : (sum > 127 ? 127 : sum));
}

// 2.6 step 2: min(max(row + column, 0), classes - 1).
TK_HOST_DEVICE inline int class_of(int row_class, int col_class, int classes) {
  const int y = row_class + col_class;
  return y < 0 ? 0 : (y >= classes ? classes - 1 : y);
}

// 2.6 step 3, for sets of five contexts: 2 + sign(previous) * (how many of the two thresholds its magnitude reaches).
TK_HOST_DEVICE inline int context_of(int previous, int t1, int t2) {
  const int magnitude = previous < 0 ? -previous : previous;
  const int bin = (magnitude >= t1) + (magnitude >= t2);
  return previous < 0 ? 2 - bin : 2 + bin;
}

// 2.6 step 4, with an entry of pack_slot: returns the symbol, x <- f * (x >> 12) + bias.
TK_HOST_DEVICE inline int pop_symbol(uint32_t entry, uint32_t* x) {
  *x = ((entry >> 8) & 0xfff) * (*x >> 12) + (entry >> 20);
  return static_cast<int8_t>(entry);
}

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_STEP_H
