// How the adaptive encoder chooses its header.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ADAPTIVE_SEARCH_H
#define TOOLKIT_ADAPTIVE_SEARCH_H

#include <cstdint>

#include "adaptive_model.h"

namespace toolkit {

// The header with the smallest estimated size, and the n tokens that it makes of the symbols.
AdaptiveHeader choose_adaptive_header(const int16_t* symbols, int64_t n, int64_t row_length, int16_t* tokens);

}  // namespace toolkit

#endif  // TOOLKIT_ADAPTIVE_SEARCH_H
