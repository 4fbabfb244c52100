// Decoding tables from their stored codes (FORMAT.md 2.4 and 2.5).
// SPDX-License-Identifier: Apache-2.0
#include "wide_tables.h"

namespace toolkit::wide {

uint32_t frequency_of_code(int code) {
  // 65536 * 2^(i/8), rounded: eight steps to an octave.
  static constexpr uint32_t kEighths[8] = {65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194};
  if (code <= 16) return static_cast<uint32_t>(code);
  const int above = code - 16;
  return ((kEighths[above % 8] << (above / 8)) + 2048) >> 12;
}

bool build_slots(int first_symbol, const uint8_t* codes, int count, uint32_t* slots) {
  if (count == 0) {
    for (uint32_t i = 0; i < kSlots - 1; ++i) slots[i] = pack_slot(0, kSlots - 1, i);
    slots[kSlots - 1] = pack_slot(1, 1, 0);
    return true;
  }
  uint32_t others = 0;
  int modes = 0;
  for (int i = 0; i < count; ++i) {
    if (codes[i] == kModeCode) {
      ++modes;
    } else if (codes[i] > kMaxCode) {
      return false;
    } else {
      const uint32_t f = frequency_of_code(codes[i]);
      if (f >= kSlots) return false;
      others += f;
    }
  }
  if (modes != 1 || others < 1 || others >= kSlots) return false;
  uint32_t slot = 0;
  for (int i = 0; i < count; ++i) {
    const uint32_t f = codes[i] == kModeCode ? kSlots - others : frequency_of_code(codes[i]);
    for (uint32_t j = 0; j < f; ++j) slots[slot++] = pack_slot(first_symbol + i, f, j);
  }
  return true;
}

}  // namespace toolkit::wide
