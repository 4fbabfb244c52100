// The choice of symbols by rate and distortion: Viterbi's algorithm over the states of each row (FORMAT.md 2.9).
// The rate of a symbol depends on the one before through its context: the survivor of each state brings its own, which
// makes the path exact where contexts do not matter, and good where they do.
// SPDX-License-Identifier: Apache-2.0
#include "trellis_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "threads.h"
#include "trellis_rates.h"
#include "trellis_vector_search.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// The symbols among which a value chooses under one quantiser: of each parity the one whose point is nearest, and the
// next one inwards. Any other is so much further away that no rate makes up for it where a bit is worth less than two
// squared steps.
struct Candidates {
  int symbol[2][2];      // [parity][how far inwards]
  int coded[2][2];       // without raw low bits
  double penalty[2][2];  // weighted squared error, and more for an exception; infinite where there is none
};

// Of symbols: their bits, and their weighted squared error plus what these are worth.
struct Total {
  double bits, cost;
};
Total operator+(const Total& a, const Total& b) { return {a.bits + b.bits, a.cost + b.cost}; }

// What the symbols of a row take, raw low bits and exceptions included.
double bits_of(const tk_search& wanted, const SymbolRates& rates, int row_class, const int16_t* symbols) {
  double bits = 0;
  int state = 0, before = 0;
  for (int64_t c = 0; c < wanted.c; ++c) {
    const auto [coded, exception] = coded_symbol(symbols[c], rates.low_bits());
    const float* const costs = rates.bits(rates.column(row_class, c), before, state & 1);
    before = coded;
    bits += static_cast<double>(costs[before]) + rates.low_bits() + (exception ? kExceptionBits : 0.0);
    if (wanted.trellis) state = next_state(state, symbols[c]);
  }
  return bits;
}

// The total of a row whose symbols were chosen at a `cost` without raw bits.
Total total_of(const tk_search& wanted, const SymbolRates& rates, int row_class, const int16_t* symbols, double cost) {
  const double raw_bits = static_cast<double>(rates.low_bits()) * static_cast<double>(wanted.c);
  return {bits_of(wanted, rates, row_class, symbols), cost + wanted.rate_weight * raw_bits};
}

template <bool Trellis>
class RowSearch {
 public:
  static constexpr int kStates = Trellis ? 8 : 1;

  RowSearch(const tk_search& wanted, const SymbolRates& rates)
      : wanted_(wanted), rates_(rates), steps_(static_cast<size_t>(wanted.c)) {}

  // Chooses the symbols of a row.
  Total choose(int64_t row, int16_t* symbols) {
    const int64_t first = row * wanted_.c;
    const int row_class = rates_.row_class(row);
    std::array<Survivor, kStates> now{}, next;
    for (int t = 1; t < kStates; ++t) now[static_cast<size_t>(t)].cost = kInfinite;
    for (int64_t c = 0; c < wanted_.c; ++c) {
      Candidates candidates[2];
      for (int q = 0; q < (Trellis ? 2 : 1); ++q) find_candidates(first + c, q, &candidates[q]);
      for (auto& survivor : next) survivor.cost = kInfinite;
      const SymbolRates::Column column = rates_.column(row_class, c);
      Step& step = steps_[static_cast<size_t>(c)];
      for (int t = 0; t < kStates; ++t) {
        const Survivor& from = now[static_cast<size_t>(t)];
        const float* const bits = rates_.bits(column, from.coded, t & 1);
        for (int parity = 0; parity < 2; ++parity) extend(from, t, parity, bits, candidates[t & 1], &next, &step);
      }
      now = next;
    }
    const auto best =
        std::min_element(now.begin(), now.end(), [](const Survivor& a, const Survivor& b) { return a.cost < b.cost; });
    auto state = static_cast<size_t>(best - now.begin());
    for (int64_t c = wanted_.c - 1; c >= 0; --c) {
      const Step& step = steps_[static_cast<size_t>(c)];
      symbols[first + c] = step.symbol[state];
      state = step.from[state];
    }
    return total_of(wanted_, rates_, row_class, symbols + first, best->cost);
  }

 private:
  // The best path into a state.
  struct Survivor {
    double cost = 0;
    int coded = 0;  // the last symbol, as contexts see it
  };

  // How each state was reached.
  struct Step {
    std::array<int16_t, kStates> symbol;
    std::array<uint8_t, kStates> from;
  };

  void find_candidates(int64_t i, int quantiser, Candidates* found) const {
    const double value = wanted_.values[i], magnitude = std::fabs(value);
    const double weight = wanted_.importance ? wanted_.importance[i] : 1.0;
    // The largest symbol whose point is at most `most`, and the last one whose point is not above the value.
    const int last = wanted_.kept && !wanted_.kept[i] ? 0 : Trellis ? (wanted_.most + quantiser) / 2 : wanted_.most;
    const double place = Trellis ? (magnitude + quantiser) / 2 : magnitude;
    const int below = place < last ? static_cast<int>(place) : last;
    for (int parity = 0; parity < 2; ++parity) {
      int symbol = below % 2 == parity ? below : below + 1;
      if (symbol > last) symbol -= 2;
      for (int inwards = 0; inwards < 2; ++inwards, symbol -= 2) {
        const double distance = magnitude - (Trellis ? reconstruct(symbol, quantiser) : symbol);
        const int chosen = symbol < 0 ? 0 : value < 0 ? -symbol : symbol;
        const auto [coded, exception] = coded_symbol(chosen, rates_.low_bits());
        double penalty = weight * distance * distance + (exception ? wanted_.rate_weight * kExceptionBits : 0.0);
        if (symbol < 0) penalty = kInfinite;
        found->symbol[parity][inwards] = chosen;
        found->coded[parity][inwards] = coded;
        found->penalty[parity][inwards] = penalty;
      }
    }
  }

  // Written so that no branch depends on what is cheaper, which could not be predicted.
  void extend(const Survivor& from, int state, int parity, const float* bits, const Candidates& candidates,
              std::array<Survivor, kStates>* next, Step* step) {
    const int* const coded = candidates.coded[parity];
    const double near = candidates.penalty[parity][0] + wanted_.rate_weight * static_cast<double>(bits[coded[0]]);
    const double inner = candidates.penalty[parity][1] + wanted_.rate_weight * static_cast<double>(bits[coded[1]]);
    const int inwards = inner < near ? 1 : 0;
    const double cost = from.cost + std::min(near, inner);
    const auto to = static_cast<size_t>(Trellis ? next_state(state, parity) : 0);
    Survivor& survivor = (*next)[to];
    const bool better = cost < survivor.cost;
    survivor.cost = better ? cost : survivor.cost;
    survivor.coded = better ? coded[inwards] : survivor.coded;
    step->symbol[to] = better ? static_cast<int16_t>(candidates.symbol[parity][inwards]) : step->symbol[to];
    step->from[to] = better ? static_cast<uint8_t>(state) : step->from[to];
  }

  const tk_search& wanted_;
  const SymbolRates& rates_;
  std::vector<Step> steps_;
};

template <bool Trellis>
Total choose_all(const tk_search& wanted, const SymbolRates& rates, int16_t* symbols) {
  std::vector<Total> totals(static_cast<size_t>(wanted.a * wanted.b));
  parallel_for(wanted.a * wanted.b, wanted.threads, [&](int64_t begin, int64_t end) {
    if (has_vector_search(wanted)) {
      VectorSearch search(wanted, rates);
      for (int64_t row = begin; row < end; row += 2) {
        const int count = end - row < 2 ? 1 : 2;
        double costs[2];
        search.choose(row, count, symbols, costs);
        for (int64_t i = row; i < row + count; ++i)
          totals[static_cast<size_t>(i)] =
              total_of(wanted, rates, rates.row_class(i), symbols + i * wanted.c, costs[i - row]);
      }
      return;
    }
    RowSearch<Trellis> search(wanted, rates);
    for (int64_t row = begin; row < end; ++row) totals[static_cast<size_t>(row)] = search.choose(row, symbols);
  });
  return std::accumulate(totals.begin(), totals.end(), Total{});  // in the order of the rows, whoever did them
}

Total choose(const tk_search& wanted, const SymbolRates& rates, int16_t* symbols) {
  return wanted.trellis ? choose_all<true>(wanted, rates, symbols) : choose_all<false>(wanted, rates, symbols);
}

SymbolRates learn(const tk_search& wanted, const int16_t* symbols) {
  TensorPlan shape;
  shape.a = wanted.a;
  shape.b = wanted.b;
  shape.c = wanted.c;
  return SymbolRates(symbols, shape, wanted.trellis != 0, wanted.threads);
}

// Chooses with rates, and as many times again, `more`, with those learnt from the choice before.
Total choose_again(const tk_search& wanted, SymbolRates rates, int more, int16_t* symbols) {
  Total total = choose(wanted, rates, symbols);
  for (; more > 0; --more) {
    rates = learn(wanted, symbols);
    total = choose(wanted, rates, symbols);
  }
  return total;
}

// How much more a bit is worth in the choice that makes many zeros: values of about a step become zero.
constexpr double kManyZeros = 4;

}  // namespace

double search_symbols(const tk_search& wanted, int16_t* symbols) {
  Total total = choose(wanted, SymbolRates(), symbols);
  if (wanted.rounds == 0) return total.bits;
  const SymbolRates first = learn(wanted, symbols);
  total = choose_again(wanted, first, wanted.rounds - 1, symbols);
  if (wanted.starts == 1 || wanted.rate_weight == 0) return total.bits;
  std::vector<int16_t> others(static_cast<size_t>(wanted.a * wanted.b * wanted.c));
  tk_search zeros = wanted;
  zeros.rate_weight *= kManyZeros;
  choose(zeros, first, others.data());
  const Total other = choose_again(wanted, learn(wanted, others.data()), wanted.rounds - 1, others.data());
  if (other.cost >= total.cost) return total.bits;
  std::copy(others.begin(), others.end(), symbols);
  return other.bits;
}

}  // namespace toolkit::wide
