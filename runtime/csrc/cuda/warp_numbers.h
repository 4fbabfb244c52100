// Symbols of a tile's words as numbers less their zero point, and numbers as words of an output.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_NUMBERS_H
#define TOOLKIT_CUDA_WARP_NUMBERS_H

#include <type_traits>

#include "decode_launch.h"
#include "warp_policy.h"

namespace toolkit::cuda {

TK_WARP uint32_t bits_of(uint32_t word) { return word; }
TK_WARP uint32_t bits_of(int word) { return static_cast<uint32_t>(word); }
TK_WARP uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
TK_WARP float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// What is taken from symbols: of int8 a float, which holds the zero point and what number_of adds, exactly, as zero
// points of 16 bits are; else the zero point.
template <class Symbol>
using ZeroOf = std::conditional_t<sizeof(Symbol) == 1, float, int>;

inline constexpr int kByteOffset = (1 << 23) + 128;

template <class Symbol>
TK_WARP ZeroOf<Symbol> zero_of(int zero) {
  if constexpr (sizeof(Symbol) == 1)
    return static_cast<float>(kByteOffset + zero);
  else
    return zero;
}
template <class Symbol>
TK_WARP ZeroOf<Symbol> zero_from(uint32_t bits) {
  if constexpr (sizeof(Symbol) == 1)
    return float_of(bits);
  else
    return static_cast<int>(bits);
}

// Symbol k of a word less the zero point. A byte plus 128 in the lowest bits of the float 2^23 is 2^23 more: the
// difference is exact, without a conversion.
template <class Symbol>
TK_WARP float number_of(uint32_t word, uint32_t k, ZeroOf<Symbol> zero) {
  if constexpr (sizeof(Symbol) == 1)
    return add(float_of(byte_beside(word ^ 0x80808080u, k, 0x4b000000u)), -zero);
  else
    return static_cast<float>(static_cast<int16_t>(word >> (16 * k)) - zero);
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_NUMBERS_H
