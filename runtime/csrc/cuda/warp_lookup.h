// Finding the symbol of a slot in each layout of tables (decode_launch.h).
// SPDX-License-Identifier: Apache-2.0
//
// What a step of FORMAT.md 2.6 makes of a state x = 4096 q + slot and a symbol of frequency f that begins at cum is
// x' = f q + slot - cum. Entries hold what makes this short:
//   direct   symbol << 24 | bias << 12 | f, the bias in two's complement. With f in the upper bits of a factor the
//   upper
//            half of its product with x is f q + f slot / 4096; the bias is the rest, slot - cum - f slot / 4096.
//   paired   -cum << 12 | f; the symbol is the byte of the slot itself
//   buckets  cum << 20 | f << 8 | symbol
#ifndef TOOLKIT_CUDA_WARP_LOOKUP_H
#define TOOLKIT_CUDA_WARP_LOOKUP_H

#include "decode_launch.h"
#include "warp_policy.h"
#include "wide_step.h"

namespace toolkit::cuda {

TK_WARP_BOTH uint32_t direct_entry(int symbol, uint32_t frequency, uint32_t slot, uint32_t cum) {
  const uint32_t bias = slot - cum - (frequency * slot >> 12);
  return static_cast<uint32_t>(symbol) << 24 | (bias & 0xfff) << 12 | frequency;
}
TK_WARP_BOTH uint32_t paired_entry(uint32_t frequency, uint32_t cum) { return (0 - cum) << 12 | frequency; }

// The byte of what pop_from returns that is the symbol.
template <Layout kLayout>
inline constexpr int kSymbolByte = kLayout == Layout::kDirect ? 3 : 0;

// The symbol of what pop_from returns.
template <Layout kLayout>
TK_WARP int symbol_in(uint32_t popped) {
  if constexpr (kLayout == Layout::kDirect) return static_cast<int32_t>(popped) >> 24;
  return static_cast<int8_t>(popped);
}

// Finds the symbol of the state's slot in a table and takes it out of the state (FORMAT.md 2.6 step 4). `table`: where
// it begins behind `tables`, and its entries, or that of symbol 0, behind `entries`.
template <Layout kLayout>
TK_WARP uint32_t pop_from(const uint8_t* tables, const uint8_t* entries, uint32_t table, uint32_t* x) {
  const uint32_t slot = *x & 0xfff;
  if constexpr (kLayout == Layout::kDirect) {
    const uint32_t entry = *reinterpret_cast<const uint32_t*>(tables + word_address(table, slot));
    *x = multiply_high(entry << 20, *x) + static_cast<uint32_t>(static_cast<int32_t>(entry << 8) >> 20);
    return entry;
  } else if constexpr (kLayout == Layout::kPaired) {
    const auto symbol = static_cast<int8_t>(tables[table + slot]);
    // Signed: the first table's entries of negative symbols lie before `entries`.
    const auto at = static_cast<int32_t>(word_address(table, static_cast<uint32_t>(static_cast<int>(symbol))));
    const uint32_t entry = *reinterpret_cast<const uint32_t*>(entries + at);
    *x = (entry & 0xfff) * (*x >> 12) + (slot + static_cast<uint32_t>(static_cast<int32_t>(entry) >> 12));
    return static_cast<uint32_t>(static_cast<int>(symbol));
  } else {
    const auto* at = reinterpret_cast<const uint32_t*>(entries + table) + tables[table + slot / kBucketSlots];
    uint32_t entry = *at;
    // Entries have at least one slot each and the last ends at 4096, so this ends there at the latest.
    while (slot - (entry >> 20) >= (entry >> 8 & 0xfff)) entry = *++at;
    *x = (entry >> 8 & 0xfff) * (*x >> 12) + slot - (entry >> 20);
    return entry;
  }
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_LOOKUP_H
