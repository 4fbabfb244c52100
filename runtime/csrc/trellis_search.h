// The choice of symbols by rate and distortion: dependent (trellis coded) quantisation, and plain quantisation alike.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_TRELLIS_SEARCH_H
#define TOOLKIT_TRELLIS_SEARCH_H

#include "codec_api.h"

namespace toolkit::wide {

// Writes a * b * c symbols; returns about how many bits they take. See tk_search.
double search_symbols(const tk_search& wanted, int16_t* symbols);

}  // namespace toolkit::wide

#endif  // TOOLKIT_TRELLIS_SEARCH_H
