// Views, classes and contexts of a tensor, chosen by estimated size.
// SPDX-License-Identifier: Apache-2.0
#include "wide_model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr double kPrior = 2.0;  // symbols of average magnitude that every margin is mixed with
constexpr int64_t kSampleSymbols = 1 << 16;
constexpr double kParameterWeight = 0.35;  // tables are shared: a tensor bears part of what its statistics cost

// Sums of absolute symbols along the axes of A x B x C.
struct Margins {
  std::vector<double> row, col;  // [A*B], [C]
  double total = 0;
};

Margins margins_of(const TensorPlan& p) {
  Margins m;
  m.row.resize(static_cast<size_t>(p.rows()));
  std::vector<uint32_t> col(static_cast<size_t>(p.c));
  m.col.resize(static_cast<size_t>(p.c));
  for (int64_t r = 0; r < p.rows(); ++r) {
    const int8_t* s = p.symbols + r * p.c;
    uint32_t sum = 0;
    for (int64_t c = 0; c < p.c; ++c) {
      const auto v = static_cast<uint32_t>(std::abs(s[c]));
      sum += v;
      col[static_cast<size_t>(c)] += v;
    }
    m.row[static_cast<size_t>(r)] = sum;
    m.total += sum;
    if (r % (1 << 24) == (1 << 24) - 1 || r + 1 == p.rows())
      for (int64_t c = 0; c < p.c; ++c) {
        m.col[static_cast<size_t>(c)] += col[static_cast<size_t>(c)];
        col[static_cast<size_t>(c)] = 0;
      }
  }
  return m;
}

// Class offsets of one axis: resolution * log2 of its margins against the mean.
std::vector<int8_t> offsets(const std::vector<double>& sums, double symbols_each, double mean, int resolution) {
  std::vector<int8_t> out(sums.size());
  const double prior = kPrior * mean;
  for (size_t i = 0; i < sums.size(); ++i) {
    const double ratio = (sums[i] + prior) / (symbols_each * mean + prior);
    out[i] = static_cast<int8_t>(std::clamp(std::lround(resolution * std::log2(ratio)), -128L, 127L));
  }
  return out;
}

double entropy_bits(const std::vector<int8_t>& values) {
  if (values.empty()) return 0;
  std::array<int, 256> n{};
  for (int8_t v : values) ++n[static_cast<size_t>(v + 128)];
  double bits = 0;
  for (int c : n)
    if (c) bits -= c * std::log2(static_cast<double>(c) / static_cast<double>(values.size()));
  return bits + 16;
}

double log2_of(uint32_t n) {
  static const auto table = [] {
    std::array<float, 4096> t{};
    for (size_t i = 1; i < t.size(); ++i) t[i] = static_cast<float>(std::log2(static_cast<double>(i)));
    return t;
  }();
  return n < table.size() ? static_cast<double>(table[n]) : std::log2(static_cast<double>(n));
}

// Bits of a sample coded with its own statistics by class and context, and a share of what the statistics cost.
class SampleCost {
 public:
  SampleCost(const TensorPlan& natural, const SetPlan& five) : natural_(natural), five_(five) {
    const int64_t rows = natural.rows();
    const int64_t wanted = std::clamp<int64_t>(kSampleSymbols / natural.c, 1, rows);
    stride_ = std::max<int64_t>(1, rows / wanted);
    for (int64_t r = 0; r < rows; r += stride_) sampled_ += natural.c;
    counts_.resize(static_cast<size_t>(kMaxClasses) * kMaxContexts * 256);
  }

  // `plan` has the natural tensor's symbols in the same order, under whatever view.
  double bits(const TensorPlan& plan, bool contexts) {
    const int k = contexts ? kMaxContexts : 1;
    const int64_t c_count = natural_.c;
    for (int64_t r = 0; r < natural_.rows(); r += stride_) {
      const int8_t* s = natural_.symbols + r * c_count;
      const int64_t at = r * c_count;  // flat; the view may have longer rows, of which this is a part
      const int row = plan.row_class(at / plan.c);
      const int8_t* col = plan.class_c.empty() ? nullptr : plan.class_c.data() + at % plan.c;
      int previous = 0;
      for (int64_t c = 0; c < c_count; ++c) {
        const int y = class_of(row, col ? col[c] : 0, kMaxClasses);
        const int z =
            contexts ? context_of(previous, five_.t1[static_cast<size_t>(y)], five_.t2[static_cast<size_t>(y)]) : 0;
        previous = s[c];
        ++counts_[static_cast<size_t>((y * k + z) * 256 + previous + 128)];
      }
    }
    double coded = 0, parameters = 0;
    for (int t = 0; t < kMaxClasses * k; ++t) {
      uint32_t* n = counts_.data() + static_cast<size_t>(t) * 256;
      uint32_t total = 0, distinct = 0;
      double sum = 0;
      for (int i = 0; i < 256; ++i) {
        if (!n[i]) continue;
        total += n[i];
        ++distinct;
        sum += n[i] * log2_of(n[i]);
        n[i] = 0;
      }
      if (!total) continue;
      coded += total * log2_of(total) - sum;
      parameters += 0.5 * (distinct - 1) * log2_of(total) + 4;
    }
    return coded * static_cast<double>(natural_.size()) / static_cast<double>(sampled_) +
           kParameterWeight * parameters + entropy_bits(plan.class_a) + entropy_bits(plan.class_b) +
           entropy_bits(plan.class_c);
  }

 private:
  const TensorPlan& natural_;
  const SetPlan& five_;
  int64_t stride_ = 1, sampled_ = 0;
  Counts counts_;
};

}  // namespace

void set_thresholds(int resolution, int first, SetPlan* set) {
  for (int i = 0; i < set->classes; ++i) {
    const double mean = std::exp2(static_cast<double>(i + first) / resolution - kOctavesBelowOne);
    const long t1 = std::clamp(std::lround(0.4 * mean), 1L, 100L);
    set->t1[static_cast<size_t>(i)] = static_cast<uint8_t>(t1);
    set->t2[static_cast<size_t>(i)] = static_cast<uint8_t>(std::clamp(std::lround(1.3 * mean), t1 + 1, 120L));
  }
}

void plan_tensor(const ModelOptions& options, TensorPlan* plan) {
  const TensorPlan natural = *plan;
  const Margins m = margins_of(natural);
  const auto size = static_cast<double>(natural.size());
  const double mean = std::max(m.total, 0.5) / size;
  const int res = options.resolution;
  const int base = static_cast<int>(std::lround(res * (std::log2(mean) + kOctavesBelowOne)));
  SetPlan five;
  five.contexts = kMaxContexts;
  set_thresholds(res, 0, &five);
  SampleCost cost(natural, five);

  const auto sums_a = [&] {
    std::vector<double> sums(static_cast<size_t>(natural.a));
    for (int64_t r = 0; r < natural.rows(); ++r)
      sums[static_cast<size_t>(r / natural.b)] += m.row[static_cast<size_t>(r)];
    return offsets(sums, size / static_cast<double>(natural.a), mean, res);
  };
  const auto sums_b = [&] {
    std::vector<double> sums(static_cast<size_t>(natural.b));
    for (int64_t r = 0; r < natural.rows(); ++r)
      sums[static_cast<size_t>(r % natural.b)] += m.row[static_cast<size_t>(r)];
    return offsets(sums, size / static_cast<double>(natural.b), mean, res);
  };
  const auto sums_c = [&] { return offsets(m.col, static_cast<double>(natural.rows()), mean, res); };

  std::vector<TensorPlan> candidates;
  const auto add = [&](TensorPlan p) {
    p.base = base;
    candidates.push_back(std::move(p));
  };
  add(natural);
  if (options.classes && m.total > 0) {
    TensorPlan separable = natural;
    if (natural.a > 1) separable.class_a = sums_a();
    if (natural.b > 1) separable.class_b = sums_b();
    if (natural.c > 1) separable.class_c = sums_c();
    add(separable);
    TensorPlan rows_only = separable;
    rows_only.class_c.clear();
    add(rows_only);
    if (natural.c > 1) {
      TensorPlan columns = natural;
      columns.class_c = separable.class_c;
      add(columns);
    }
    if (natural.a > 1 && natural.b > 1) {
      TensorPlan merged = natural;  // each row its own class
      merged.a = 1;
      merged.b = natural.rows();
      merged.class_b = offsets(m.row, static_cast<double>(natural.c), mean, res);
      merged.class_c = separable.class_c;
      add(merged);
      merged.class_c.clear();
      add(merged);
      TensorPlan outer = natural;  // the outer axis alone
      outer.class_a = separable.class_a;
      add(outer);
    }
  }
  double best = 0;
  size_t chosen = 0;
  bool five_contexts = options.contexts == 2;
  for (size_t i = 0; i < candidates.size(); ++i) {
    const double bits = cost.bits(candidates[i], options.contexts == 2);
    if (i == 0 || bits < best) best = bits, chosen = i;
  }
  if (options.contexts == 1) {
    // Contexts shift what classes are worth: try both the best without them and the cheaper neighbours.
    double best_five = 0;
    size_t chosen_five = chosen;
    for (size_t i = 0; i < candidates.size(); ++i) {
      const double bits = cost.bits(candidates[i], true);
      if (i == 0 || bits < best_five) best_five = bits, chosen_five = i;
    }
    // Contexts cost decoding time: they must give something.
    if (best_five < 0.998 * best) best = best_five, chosen = chosen_five, five_contexts = true;
  }
  *plan = std::move(candidates[chosen]);
  plan->set = five_contexts ? 1 : 0;
  plan->bits = best;
}

void count_symbols(const TensorPlan& plan, const SetPlan& set, Counts* counts) {
  // Two copies, so that equal symbols in a row do not wait for each other's increments.
  const size_t size = counts->size();
  std::vector<uint32_t> copies(2 * size);
  uint32_t* const n[2] = {copies.data() + 128, copies.data() + size + 128};
  const int8_t* const col = plan.class_c.empty() ? nullptr : plan.class_c.data();
  for (int64_t r = 0; r < plan.rows(); ++r) {
    const int8_t* s = plan.symbols + r * plan.c;
    const int row = plan.row_class(r);
    if (set.contexts > 1) {
      int previous = 0;
      for (int64_t c = 0; c < plan.c; ++c) {
        const int y = class_of(row, col ? col[c] : 0, set.classes);
        const int z = context_of(previous, set.t1[static_cast<size_t>(y)], set.t2[static_cast<size_t>(y)]);
        previous = s[c];
        ++n[c & 1][(y * kMaxContexts + z) * 256 + previous];
      }
    } else if (col) {
      for (int64_t c = 0; c < plan.c; ++c) ++n[c & 1][class_of(row, col[c], set.classes) * 256 + s[c]];
    } else {
      const int table = class_of(row, 0, set.classes) * 256;
      for (int64_t c = 0; c < plan.c; ++c) ++n[c & 1][table + s[c]];
    }
  }
  for (size_t i = 0; i < size; ++i) (*counts)[i] += copies[i] + copies[size + i];
}

namespace {

// Bits of all the tables of one class, from counts, tables included.
double class_bits(const uint32_t* counts, int contexts) {
  double bits = 0;
  for (int z = 0; z < contexts; ++z) {
    const uint32_t* n = counts + z * 256;
    uint32_t total = 0;
    double sum = 0;
    int first = -1, last = -1;
    for (int i = 0; i < 256; ++i) {
      if (!n[i]) continue;
      total += n[i];
      sum += n[i] * log2_of(n[i]);
      if (first < 0) first = i;
      last = i;
    }
    if (total) bits += total * log2_of(total) - sum + 10 + 4.0 * (last - first + 1);
  }
  return bits;
}

}  // namespace

int trim_classes(SetPlan* set, Counts* counts) {
  const int width = set->contexts * 256;
  int low = 0, high = set->classes - 1;
  const auto at = [&](int y) { return counts->data() + static_cast<size_t>(y) * static_cast<size_t>(width); };
  std::vector<uint32_t> merged(static_cast<size_t>(width));
  const auto merging_pays = [&](int from, int into) {
    for (int i = 0; i < width; ++i) merged[static_cast<size_t>(i)] = at(from)[i] + at(into)[i];
    return class_bits(merged.data(), set->contexts) <=
           class_bits(at(from), set->contexts) + class_bits(at(into), set->contexts);
  };
  while (low < high && merging_pays(low, low + 1)) {
    std::copy(merged.begin(), merged.end(), at(low + 1));
    ++low;
  }
  while (high > low && merging_pays(high, high - 1)) {
    std::copy(merged.begin(), merged.end(), at(high - 1));
    --high;
  }
  counts->erase(counts->begin(), counts->begin() + static_cast<std::ptrdiff_t>(low) * width);
  counts->resize(static_cast<size_t>(high - low + 1) * static_cast<size_t>(width));
  set->classes = high - low + 1;
  return low;
}

namespace {

int nearest_code(double frequency) {
  if (frequency <= 1) return 1;
  const int guess =
      frequency <= 16 ? static_cast<int>(frequency) : 16 + static_cast<int>(8 * std::log2(frequency / 16));
  int best = std::clamp(guess, 1, kMaxCode - 1);
  for (int q = std::max(1, guess - 1); q <= std::min(guess + 2, kMaxCode - 1); ++q)
    if (std::abs(std::log(frequency_of_code(q) / frequency)) < std::abs(std::log(frequency_of_code(best) / frequency)))
      best = q;
  return best;
}

}  // namespace

void make_tables(const Counts& counts, SetPlan* set) {
  const int tables = set->classes * set->contexts;
  set->firsts.assign(static_cast<size_t>(tables), 0);
  set->codes.assign(static_cast<size_t>(tables), {});
  set->frequency.assign(static_cast<size_t>(tables) * 256, 0);
  for (int t = 0; t < tables; ++t) {
    const uint32_t* n = counts.data() + static_cast<size_t>(t) * 256;
    uint32_t* const f = set->frequency.data() + static_cast<size_t>(t) * 256;
    int first = -1, last = -1, mode = 0;
    uint64_t total = 0;
    for (int i = 0; i < 256; ++i) {
      if (!n[i]) continue;
      if (first < 0) first = i;
      last = i;
      if (n[i] > n[mode] || !n[mode]) mode = i;
      total += n[i];
    }
    if (!total || (first == last && first == 128)) {
      f[128] = kSlots - 1;  // the table that count zero stands for
      f[129] = 1;
      continue;
    }
    if (first == last) {
      // One symbol: a neighbour of frequency 1 makes it a table of two.
      if (first > 0)
        --first;
      else
        ++last;
    }
    if (last - first + 1 == kFullCount) first = 0, last = 255;
    std::vector<uint8_t> codes(static_cast<size_t>(last - first + 1));
    // Every symbol seen has at least frequency 1; the others are scaled until the mode is left with its share.
    const double share = kSlots * static_cast<double>(n[mode]) / static_cast<double>(total);
    double scale = 1;
    int64_t others = 0;
    for (int round = 0; round < 8; ++round) {
      others = 0;
      for (int i = first; i <= last; ++i) {
        if (i == mode) continue;
        const bool needed = n[i] != 0 || (total == n[mode] && std::abs(i - mode) == 1);
        const double wanted = scale * kSlots * static_cast<double>(n[i]) / static_cast<double>(total);
        auto& code = codes[static_cast<size_t>(i - first)];
        code = needed ? static_cast<uint8_t>(nearest_code(wanted)) : 0;
        others += frequency_of_code(code);
      }
      const double rest = static_cast<double>(kSlots) - static_cast<double>(others);
      if (std::abs(rest - scale * share) < 0.02 * share + 1) break;
      scale *= std::sqrt(kSlots / (static_cast<double>(others) + scale * share));
    }
    while (others >= static_cast<int64_t>(kSlots)) {
      const auto most = std::max_element(codes.begin(), codes.end());
      others -= frequency_of_code(*most) - frequency_of_code(*most - 1);
      --*most;
    }
    codes[static_cast<size_t>(mode - first)] = kModeCode;
    for (int i = first; i <= last; ++i)
      if (i != mode) f[i] = frequency_of_code(codes[static_cast<size_t>(i - first)]);
    f[mode] = kSlots - static_cast<uint32_t>(others);
    set->firsts[static_cast<size_t>(t)] = static_cast<int8_t>(first - 128);
    set->codes[static_cast<size_t>(t)] = std::move(codes);
  }
}

}  // namespace toolkit::wide
