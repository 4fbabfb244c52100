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
  const int y = row_class + col_class, last = classes - 1;
  const int below = y < last ? y : last;
  return below > 0 ? below : 0;
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

// 2.6 step 5: whether a lane takes the next code word, and its state then.
TK_HOST_DEVICE inline bool needs_word(uint32_t x) { return x < 1u << 16; }
TK_HOST_DEVICE inline uint32_t with_word(uint32_t x, uint32_t word) { return x << 16 | word; }

// 2.6 step 6: takes the raw low bits out of the state and returns the symbol that they complete.
TK_HOST_DEVICE inline int join_low_bits(int symbol, int low_bits, uint32_t* x) {
  const uint32_t low = *x & ((1u << low_bits) - 1);
  *x >>= low_bits;
  return symbol * (1 << low_bits) + static_cast<int>(low);
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

// 2.9: puts the integer in the place of a symbol and moves the state on.
TK_HOST_DEVICE inline int trellis_integer(int symbol, int* state) {
  const int quantiser = *state & 1;
  *state = next_state(*state, symbol);
  return reconstruct(symbol, quantiser);
}

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_STEP_H
