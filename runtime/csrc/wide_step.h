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

// Trellis sets: the states of dependent quantisation. T of FORMAT.md 2.9, four bits an entry: T[t][p] at 4 (2 t + p).
inline constexpr uint64_t kTransitions = 0x6413750246315720;

// 2.9: the state after a symbol; its lowest bit says by which of the two quantisers the next one is meant.
TK_HOST_DEVICE constexpr int next_state(int state, int symbol) {
  return static_cast<int>(kTransitions >> (4 * (2 * state + (symbol & 1)))) & 7;
}

// 2.9: the integer that a symbol stands for under quantiser 0 (even integers) or 1 (odd ones and zero).
TK_HOST_DEVICE constexpr int reconstruct(int symbol, int quantiser) {
  return 2 * symbol - quantiser * ((symbol > 0) - (symbol < 0));
}

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_STEP_H
