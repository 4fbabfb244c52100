// Decoding tables from their stored codes (FORMAT.md 2.4 and 2.5).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_TABLES_H
#define TOOLKIT_WIDE_TABLES_H

#include "wide_format.h"

namespace toolkit::wide {

// Fills kSlots slots from `count` codes for the symbols first_symbol, first_symbol + 1, ...; false where FORMAT.md 2.5
// does not allow the codes.
bool build_slots(int first_symbol, const uint8_t* codes, int count, uint32_t* slots);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_TABLES_H
