// Rounding with feedback (E. Frantar et al., "GPTQ", ICLR 2023, section 3) with the rate in the choice (A. Conzelmann,
// R. Bamler, "Reducing storage of pretrained neural networks by rate-constrained quantization and entropy coding",
// arXiv 2505.18758), at the costs that the wide coder's tables give each symbol.
// SPDX-License-Identifier: Apache-2.0
#include "compensated_rounding.h"

#include <cmath>

namespace toolkit::wide {
namespace {

// Picks the symbol of one weight: the nearest one, the one next to it towards zero, or zero.
class Chooser {
 public:
  Chooser(const tk_feature_block& block, const LearntRates* rates)
      : rate_weight_(block.rate_weight), most_(block.most), rates_(rates) {}

  int choose(double target, double importance, const int16_t* symbols, int64_t place) const {
    const double limit = most_;
    const double nearest = std::nearbyint(std::fmin(std::fmax(target, -limit), limit));
    const int near = static_cast<int>(nearest);
    if (!rates_ || near == 0) return near;
    const float* const bits = rates_->bits_at(symbols, place);
    const int inner = near < 0 ? near + 1 : near - 1;
    int best = near;
    double least = cost(near, target, importance, bits);
    for (const int other : {inner, 0}) {
      const double found = cost(other, target, importance, bits);
      if (found < least) {
        least = found;
        best = other;
      }
    }
    return best;
  }

 private:
  double cost(int symbol, double target, double importance, const float* bits) const {
    const CodedSymbol found = coded_symbol(symbol, rates_->rates.low_bits());
    const double distance = target - symbol;
    const double rate = static_cast<double>(bits[found.coded]) + (found.exception ? kExceptionBits : 0.0);
    return importance * distance * distance + rate_weight_ * rate;
  }

  double rate_weight_;
  int most_;
  const LearntRates* rates_;
};

}  // namespace

const float* LearntRates::bits_at(const int16_t* symbols, int64_t place) const {
  const int64_t row = place / shape.c, column = place - row * shape.c;
  const int before = column ? coded_symbol(symbols[place - 1], rates.low_bits()).coded : 0;
  return rates.bits(rates.column(rates.row_class(row), column), before, 0);
}

double LearntRates::total(const int16_t* symbols) const {
  double bits = 0;
  for (int64_t place = 0; place < shape.size(); ++place) {
    const CodedSymbol found = coded_symbol(symbols[place], rates.low_bits());
    bits += static_cast<double>(bits_at(symbols, place)[found.coded]) + rates.low_bits();
    bits += found.exception ? kExceptionBits : 0.0;
  }
  return bits;
}

void round_features(const tk_feature_block& block, const LearntRates* rates, int16_t* symbols, float* missed) {
  const Chooser chooser(block, rates);
  for (int64_t i = 0; i < block.features; ++i) {
    float* const targets = block.targets + i * block.outputs;
    float* const misses = missed + i * block.outputs;
    const double importance = block.importance[i];
    for (int64_t o = 0; o < block.outputs; ++o) {
      const int64_t place = block.places[i] + o * block.stride;
      const double weight = block.output_importance ? importance * block.output_importance[o] : importance;
      const bool zero = block.kept && !block.kept[place];
      const int symbol = zero ? 0 : chooser.choose(targets[o], weight, symbols, place);
      misses[o] = block.refine ? static_cast<float>(symbols[place] - symbol) : targets[o] - static_cast<float>(symbol);
      symbols[place] = static_cast<int16_t>(symbol);
    }
    for (int64_t j = i + 1; j < block.features; ++j) {
      const float coupling = block.coupling[i * block.features + j];
      if (coupling == 0.0f) continue;
      float* const later = block.targets + j * block.outputs;
      for (int64_t o = 0; o < block.outputs; ++o) later[o] += coupling * misses[o];
    }
  }
}

}  // namespace toolkit::wide
