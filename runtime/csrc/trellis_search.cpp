// The choice of symbols by rate and distortion: Viterbi's algorithm over the states of each row (FORMAT.md 2.8).
// The rate of a symbol depends on the one before through its context: the survivor of each state brings its own, which
// makes the path exact where contexts do not matter, and good where they do.
// SPDX-License-Identifier: Apache-2.0
#include "trellis_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "threads.h"
#include "trellis_rates.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();
constexpr double kExceptionBits = 64;

// One symbol that may be chosen, and its weighted squared error.
struct Candidate {
  int symbol;
  double error;
};

struct Candidates {
  int count = 0;
  std::array<Candidate, 5> all;
};

// The points on either side of the value, one further inwards, and the two innermost ones of its sign: of each parity
// the nearest point, and cheaper ones that are further away.
template <bool Trellis>
Candidates candidates_for(double value, double weight, bool kept, int quantiser, int most) {
  Candidates found;
  const double magnitude = std::fabs(value);
  const auto add = [&](int k) {
    const double point = Trellis ? reconstruct(k, quantiser) : k;
    const double distance = magnitude - point;
    found.all[static_cast<size_t>(found.count++)] = {value < 0 ? -k : k, weight * distance * distance};
  };
  add(0);
  if (!kept) return found;
  const int last = Trellis ? (most + quantiser) / 2 : most;  // whose point is at most `most`
  const double place = Trellis ? (magnitude + quantiser) / 2 : magnitude;
  const int below = static_cast<int>(std::min<double>(place, last));
  if (last >= 1) add(1);
  for (int k = std::max(2, below - 1); k <= std::min(below + 1, last); ++k) add(k);
  return found;
}

// Chooses the symbols of rows, one after the other.
template <bool Trellis>
class RowSearch {
 public:
  static constexpr int kStates = Trellis ? 8 : 1;

  RowSearch(const tk_search& wanted, const SymbolRates& rates)
      : wanted_(wanted), rates_(rates), steps_(static_cast<size_t>(wanted.c)) {}

  // Returns the bits of the row.
  double choose(int64_t row, int16_t* symbols) {
    const int64_t first = row * wanted_.c;
    const int row_class = rates_.row_class(row);
    std::array<Survivor, kStates> now{}, next;
    for (int t = 1; t < kStates; ++t) now[static_cast<size_t>(t)].cost = kInfinite;
    for (int64_t c = 0; c < wanted_.c; ++c) {
      const int64_t i = first + c;
      const double weight = wanted_.importance ? wanted_.importance[i] : 1.0;
      const bool kept = !wanted_.kept || wanted_.kept[i];
      std::array<Candidates, 2> candidates;
      for (int q = 0; q < (Trellis ? 2 : 1); ++q)
        candidates[static_cast<size_t>(q)] =
            candidates_for<Trellis>(wanted_.values[i], weight, kept, q, wanted_.most);
      for (auto& survivor : next) survivor.cost = kInfinite;
      Step& step = steps_[static_cast<size_t>(c)];
      for (int t = 0; t < kStates; ++t) {
        const Survivor& from = now[static_cast<size_t>(t)];
        if (from.cost < kInfinite) extend(from, t, rates_.costs(row_class, c, from.coded, t & 1),
                                          candidates[static_cast<size_t>(t & 1)], &next, &step);
      }
      now = next;
    }
    const auto best = std::min_element(now.begin(), now.end(),
                                       [](const Survivor& a, const Survivor& b) { return a.cost < b.cost; });
    auto state = static_cast<size_t>(best - now.begin());
    for (int64_t c = wanted_.c - 1; c >= 0; --c) {
      const Step& step = steps_[static_cast<size_t>(c)];
      symbols[first + c] = step.symbol[state];
      state = step.from[state];
    }
    return best->bits;
  }

 private:
  // The best path into a state.
  struct Survivor {
    double cost = 0, bits = 0;
    int coded = 0;  // the last symbol, as contexts see it
  };

  // How each state was reached.
  struct Step {
    std::array<int16_t, kStates> symbol;
    std::array<uint8_t, kStates> from;
  };

  void extend(const Survivor& from, int state, const float* bits_of, const Candidates& candidates,
              std::array<Survivor, kStates>* next, Step* step) {
    for (int i = 0; i < candidates.count; ++i) {
      const Candidate& candidate = candidates.all[static_cast<size_t>(i)];
      const int coded = candidate.symbol >> rates_.low_bits();
      const bool short_enough = coded >= -128 && coded <= 127;
      const double bits = short_enough ? static_cast<double>(bits_of[coded]) : kExceptionBits;
      const double cost = from.cost + candidate.error + wanted_.rate_weight * bits;
      const auto to = static_cast<size_t>(Trellis ? next_state(state, candidate.symbol) : 0);
      Survivor& survivor = (*next)[to];
      if (cost >= survivor.cost) continue;
      survivor = {cost, from.bits + bits + rates_.low_bits(), short_enough ? coded : 0};
      step->symbol[to] = static_cast<int16_t>(candidate.symbol);
      step->from[to] = static_cast<uint8_t>(state);
    }
  }

  const tk_search& wanted_;
  const SymbolRates& rates_;
  std::vector<Step> steps_;
};

template <bool Trellis>
double choose_all(const tk_search& wanted, const SymbolRates& rates, int16_t* symbols) {
  std::vector<double> bits(static_cast<size_t>(wanted.a * wanted.b));
  parallel_for(static_cast<int64_t>(bits.size()), wanted.threads, [&](int64_t begin, int64_t end) {
    RowSearch<Trellis> search(wanted, rates);
    for (int64_t row = begin; row < end; ++row) bits[static_cast<size_t>(row)] = search.choose(row, symbols);
  });
  double sum = 0;  // in the order of the rows, whoever did them
  for (const double b : bits) sum += b;
  return sum;
}

}  // namespace

double search_symbols(const tk_search& wanted, int16_t* symbols) {
  TensorPlan shape;
  shape.a = wanted.a;
  shape.b = wanted.b;
  shape.c = wanted.c;
  SymbolRates rates;
  double bits = 0;
  for (int round = 0; round <= wanted.rounds; ++round) {
    bits = wanted.trellis ? choose_all<true>(wanted, rates, symbols) : choose_all<false>(wanted, rates, symbols);
    if (round < wanted.rounds) rates = SymbolRates(symbols, shape, wanted.trellis != 0, wanted.threads);
  }
  return bits;
}

}  // namespace toolkit::wide
