// Rounding of features whose errors later features make up for, by squared error and rate.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_COMPENSATED_ROUNDING_H
#define TOOLKIT_COMPENSATED_ROUNDING_H

#include <cstdint>

#include "codec_api.h"
#include "trellis_rates.h"

namespace toolkit::wide {

// What the symbols of one tensor cost, and its shape.
struct LearntRates {
  TensorPlan shape;
  SymbolRates rates;

  // Bits of the symbol at `place`, the one before it being among `symbols`.
  const float* bits_at(const int16_t* symbols, int64_t place) const;
  double total(const int16_t* symbols) const;
};

// See tk_round_features; `rates` may be null.
void round_features(const tk_feature_block& block, const LearntRates* rates, int16_t* symbols, float* missed);

}  // namespace toolkit::wide

#endif  // TOOLKIT_COMPENSATED_ROUNDING_H
