// Symbols of trellis tensors as the wide encoder takes them.
// SPDX-License-Identifier: Apache-2.0
#include "wide_trellis.h"

#include <limits>
#include <stdexcept>

#include "wide_step.h"

namespace toolkit::wide {

template <class Symbol>
std::vector<uint8_t> find_quantisers(const Symbol* symbols, int64_t rows, int64_t columns) {
  std::vector<uint8_t> quantisers(static_cast<size_t>(rows * columns));
  uint8_t* to = quantisers.data();
  for (int64_t row = 0; row < rows; ++row) {
    int state = 0;
    for (int64_t c = 0; c < columns; ++c) {
      const int symbol = *symbols++, quantiser = state & 1, value = reconstruct(symbol, quantiser);
      if (value < std::numeric_limits<Symbol>::min() || value > std::numeric_limits<Symbol>::max())
        throw std::range_error("a trellis symbol stands for an integer outside of its type");
      *to++ = static_cast<uint8_t>(quantiser);
      state = next_state(state, symbol);
    }
  }
  return quantisers;
}

template std::vector<uint8_t> find_quantisers(const int8_t*, int64_t, int64_t);
template std::vector<uint8_t> find_quantisers(const int16_t*, int64_t, int64_t);

void reconstruct_exceptions(const std::vector<uint8_t>& quantisers, SplitSymbols* split) {
  for (auto& [flat, value] : split->exceptions) {
    const auto i = static_cast<size_t>(flat);
    if (!split->low_bits) split->high[i] = static_cast<int8_t>(value & 1);
    value = static_cast<int16_t>(reconstruct(value, quantisers[i]));
  }
}

}  // namespace toolkit::wide
