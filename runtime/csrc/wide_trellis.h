// Symbols of trellis tensors as the wide encoder takes them (FORMAT.md 2.9).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_TRELLIS_H
#define TOOLKIT_WIDE_TRELLIS_H

#include <cstdint>
#include <vector>

#include "wide_split.h"

namespace toolkit::wide {

// The quantiser, 0 or 1, of each symbol of rows of `columns`. `Symbol` is int8_t or int16_t. Throws std::range_error
// where a symbol stands for an integer that does not fit its type.
template <class Symbol>
std::vector<uint8_t> find_quantisers(const Symbol* symbols, int64_t rows, int64_t columns);

// Exceptions replace the integer that a symbol stands for, and what is coded in their place must lead to the same state
// as the symbol itself.
void reconstruct_exceptions(const std::vector<uint8_t>& quantisers, SplitSymbols* split);

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_TRELLIS_H
