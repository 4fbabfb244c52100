// What each symbol of a tensor costs the wide coder.
// SPDX-License-Identifier: Apache-2.0
#include "trellis_rates.h"

#include "wide_log2.h"
#include "wide_plan.h"
#include "wide_sets.h"
#include "wide_split.h"
#include "wide_trellis.h"

namespace toolkit::wide {
namespace {

// A symbol that its table lacks: it would get the smallest frequency, and take it from others.
constexpr float kAbsentBits = kProbabilityBits + 1;

// As the encoder does: fine classes where there are symbols enough to fill their tables.
int resolution_for(int64_t symbols) { return symbols < 50'000 ? 1 : symbols < 500'000 ? 2 : 4; }

}  // namespace

SymbolRates::SymbolRates(const int16_t* symbols, const TensorPlan& shape, bool trellis, int threads) {
  std::vector<TensorPlan> plans{shape};
  TensorPlan& plan = plans[0];
  const SplitSymbols split = split_symbols(symbols, plan.size());
  const std::vector<uint8_t> quantisers =
      trellis ? find_quantisers(symbols, plan.rows(), plan.c) : std::vector<uint8_t>();
  plan.symbols = split.high.data();
  plan.quantisers = trellis ? quantisers.data() : nullptr;
  plan.low_bits = split.low_bits;
  is_free_ = false;
  const ModelOptions options{1, true, resolution_for(plan.size())};
  plan_tensors(options, threads, &plans);
  TablesPlan tables;
  set_ = make_sets(options.resolution, threads, &plans, &tables)[0];
  plan_ = std::move(plan);
  plan_.symbols = nullptr;
  plan_.quantisers = nullptr;
  bits_.resize(tables.frequency.size());
  for (size_t i = 0; i < bits_.size(); ++i) {
    const uint32_t f = tables.frequency[i];
    bits_[i] = f ? static_cast<float>(kProbabilityBits - log2_of_count(f)) : kAbsentBits;
  }
}

std::vector<ClassTables> SymbolRates::class_tables() const {
  std::vector<ClassTables> found(static_cast<size_t>(set_.classes));
  for (int y = 0; y < set_.classes; ++y) {
    ClassTables& tables = found[static_cast<size_t>(y)];
    tables.t1 = set_.t1[static_cast<size_t>(y)];
    tables.t2 = set_.t2[static_cast<size_t>(y)];
    for (int q = 0; q < 2; ++q)
      for (int z = 0; z < 8; ++z) {
        const int context = z < set_.contexts ? z : 0;  // where there is one, it is every symbol's
        const int place = set_.place_of(y, context, set_.quantisers > 1 ? q : 0);
        tables.place[q][z] = 256 * set_.map[static_cast<size_t>(place)] + 128;
      }
  }
  return found;
}

}  // namespace toolkit::wide
