// Finding the symbol of a slot in each layout of tables (decode_launch.h).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_CUDA_WARP_LOOKUP_H
#define TOOLKIT_CUDA_WARP_LOOKUP_H

#include "decode_launch.h"
#include "warp_policy.h"
#include "wide_step.h"

namespace toolkit::cuda {

// Returns the symbol of the state's slot in a table, and takes it out of the state (FORMAT.md 2.6 step 4).
template <Layout kLayout>
TK_WARP int pop_from(const uint8_t* table, uint32_t entries_at, uint32_t* x) {
  const uint32_t slot = *x & 0xfff;
  if constexpr (kLayout == Layout::kDirect) {
    return wide::pop_symbol(reinterpret_cast<const uint32_t*>(table)[slot], x);
  } else {
    const auto* const entries = reinterpret_cast<const uint32_t*>(table + entries_at);
    const uint32_t* at = entries + table[kLayout == Layout::kPaired ? slot : slot / kBucketSlots];
    uint32_t entry = *at;
    if constexpr (kLayout != Layout::kPaired) {
      // Entries have at least one slot each and the last ends at 4096, so this ends there at the latest.
      while (slot - (entry >> 20) >= (entry >> 8 & 0xfff)) entry = *++at;
    }
    return wide::pop_symbol_at(entry, slot, x);
  }
}

}  // namespace toolkit::cuda

#endif  // TOOLKIT_CUDA_WARP_LOOKUP_H
