// Search for the header of the adaptive coder: coordinate descent on the estimated number of bits.
// SPDX-License-Identifier: Apache-2.0
#include "adaptive_search.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "small_bodies.h"

namespace toolkit {
namespace {

// The search looks at so many symbols from the start; the sizes that this coder is for are below.
constexpr int64_t kSearchSymbols = 1 << 14;

using Field = int AdaptiveHeader::*;

class Search {
 public:
  Search(const int16_t* tokens, int64_t n, const AdaptiveHeader& start)
      : tokens_(tokens), n_(std::min(n, kSearchSymbols)), best_(start) {
    counts_.assign(static_cast<size_t>(start.alphabet), 0);
    for (int64_t i = 0; i < n_; ++i) ++counts_[static_cast<size_t>(tokens[i])];
  }

  AdaptiveHeader run(int64_t row_length) {
    fit_prior();
    best_bits_ = INFINITY;
    for (const int gain : {0, 1, 2, 3, 4, 5, 6, 7}) try_header(with(best_, &AdaptiveHeader::gain, gain));
    tune_counts();
    const AdaptiveHeader plain = best_;
    for (const int mode : {1, 2}) try_mode(plain, mode, row_length);
    tune_counts();
    tune_prior();
    tune_counts();
    return best_;
  }

 private:
  static AdaptiveHeader with(AdaptiveHeader header, Field field, int value) {
    header.*field = value;
    return header;
  }

  // Bits of the header and of the tokens under it.
  double cost(const AdaptiveHeader& header) const {
    if (!adaptive_counts_fit(header)) return INFINITY;
    AdaptiveModel model(header);
    double bits = 16.0 * static_cast<double>(adaptive_header_words(header));
    double product = 1;  // of probabilities, its logarithm taken only now and then
    for (int64_t i = 0; i < n_; ++i) {
      model.select(tokens_, i);
      product *= static_cast<double>(model.weight(tokens_[i])) / model.total();
      if (product < 1e-200) {
        bits -= std::log2(product);
        product = 1;
        if (bits > best_bits_) return INFINITY;
      }
      model.observe(tokens_[i]);
    }
    return bits - std::log2(product);
  }

  bool try_header(const AdaptiveHeader& header) {
    const double bits = cost(header);
    if (bits >= best_bits_) return false;
    best_bits_ = bits;
    best_ = header;
    return true;
  }

  bool try_values(Field field, std::initializer_list<int> values) {
    bool better = false;
    const AdaptiveHeader from = best_;
    for (const int value : values) better = try_header(with(from, field, value)) || better;
    return better;
  }

  // Moves a field by steps of both signs as long as that helps.
  bool walk(Field field, int step, int low, int high) {
    bool better = false;
    for (const int signed_step : {step, -step}) {
      while (true) {
        const int value = best_.*field + signed_step;
        if (value < low || value > high || !try_header(with(best_, field, value))) break;
        better = true;
      }
    }
    return better;
  }

  // Bits of the header and of the tokens under its prior alone.
  double prior_cost(const AdaptiveHeader& header) const {
    uint32_t prior[kMaxTokens];
    adaptive_prior(header, prior);
    double sum = 0;
    double bits = 0;
    for (size_t t = 0; t < counts_.size(); ++t) {
      sum += prior[t];
      if (counts_[t] > 0) bits -= static_cast<double>(counts_[t]) * std::log2(prior[t]);
    }
    return bits + static_cast<double>(n_) * std::log2(sum) + 16.0 * static_cast<double>(adaptive_header_words(header));
  }

  void fit_prior() {
    best_bits_ = prior_cost(best_);
    const auto attempt = [this](Field field, int value) {
      const AdaptiveHeader header = with(best_, field, value);
      const double bits = prior_cost(header);
      if (bits >= best_bits_) return false;
      best_bits_ = bits;
      best_ = header;
      return true;
    };
    const auto attempt_walk = [&](Field field, int step, int low, int high) {
      bool better = false;
      for (const int signed_step : {step, -step}) {
        while (true) {
          const int value = std::clamp(best_.*field + signed_step, low, high);
          if (value == best_.*field || !attempt(field, value)) break;
          better = true;
        }
      }
      return better;
    };
    for (int step = 16; step > 0; step /= 2) {
      for (int round = 0; round < 4; ++round) {
        bool better = attempt_walk(&AdaptiveHeader::slope, step, 0, 63);
        better = attempt_walk(&AdaptiveHeader::curvature, step, 0, 63) || better;
        better = attempt_walk(&AdaptiveHeader::peak, (step + 3) / 4, -16, 15) || better;
        better = attempt_walk(&AdaptiveHeader::centre, (step + 3) / 4, 0, best_.alphabet - 1) || better;
        if (!better) break;
      }
    }
  }

  void tune_counts() {
    for (int round = 0; round < 3; ++round) {
      bool better = walk(&AdaptiveHeader::gain, 1, 0, 7);
      const AdaptiveHeader from = best_;
      // A wider observation weighs more: the gain goes down with it.
      for (int reach = 0; reach <= std::min(15, best_.alphabet / 4); reach += reach < 4 ? 1 : 3) {
        const double wider = std::log2((reach + 1.0) / (from.reach + 1.0));
        AdaptiveHeader header = with(from, &AdaptiveHeader::reach, reach);
        for (const int extra : {0, 1}) {
          header.gain = std::clamp(from.gain - static_cast<int>(std::lround(wider)) + extra, 0, 7);
          better = try_header(header) || better;
        }
      }
      if (!better) break;
    }
  }

  void tune_prior() {
    for (const int step : {4, 1}) {
      walk(&AdaptiveHeader::slope, step, 0, 63);
      walk(&AdaptiveHeader::curvature, step, 0, 63);
      walk(&AdaptiveHeader::peak, (step + 3) / 4, -16, 15);
    }
  }

  // The magnitude that the given share of the tokens reaches or passes, at least 1.
  int quantile(double share) const {
    std::vector<int64_t> by_magnitude(kMaxTokens, 0);
    for (size_t t = 0; t < counts_.size(); ++t) {
      by_magnitude[static_cast<size_t>(std::abs(static_cast<int>(t) - best_.centre))] += counts_[t];
    }
    int64_t left = n_;
    for (int m = 0; m < kMaxTokens; ++m) {
      left -= by_magnitude[static_cast<size_t>(m)];
      if (static_cast<double>(left) < share * static_cast<double>(n_)) return std::max(m, 1);
    }
    return kMaxTokens - 1;
  }

  void try_mode(const AdaptiveHeader& plain, int mode, int64_t row_length) {
    std::vector<int64_t> distances{1, 2};
    for (const int64_t d : {row_length, 2 * row_length, row_length + 1}) {
      if (d > 2 && d <= 65535 && d < n_) distances.push_back(d);
    }
    const double before = best_bits_;
    const AdaptiveHeader before_header = best_;
    AdaptiveHeader local = plain;
    local.mode = mode;
    local.weight_before = 3;
    local.small = quantile(0.5);
    local.large = std::max(local.small, quantile(0.15));
    AdaptiveHeader local_best = local;
    double local_bits = INFINITY;
    for (const int64_t distance : distances) {
      AdaptiveHeader header = local;
      header.distance = static_cast<int>(distance);
      header.weight_back = distance > 1 ? 3 : 0;
      for (const int gain : {-1, 0}) {
        header.gain = std::clamp(plain.gain + gain, 0, 7);
        best_bits_ = local_bits;
        best_ = local_best;
        try_header(header);
        local_bits = best_bits_;
        local_best = best_;
      }
    }
    for (int round = 0; round < 2; ++round) {
      try_values(&AdaptiveHeader::weight_before, {0, 1, 2, 3, 4, 5, 6, 7});
      if (best_.distance > 1) {
        try_values(&AdaptiveHeader::weight_back, {0, 1, 2, 3, 4, 5, 6, 7});
        try_values(&AdaptiveHeader::weight_both, {0, 1, 2, 3, 4, 5, 6, 7});
      }
      walk(&AdaptiveHeader::large, std::max(1, best_.large / 4), best_.small, 255);
      walk(&AdaptiveHeader::small, std::max(1, best_.small / 4), 1, best_.large);
      walk(&AdaptiveHeader::gain, 1, 0, 7);
    }
    if (best_bits_ >= before) {
      best_bits_ = before;
      best_ = before_header;
    }
  }

  const int16_t* tokens_;
  int64_t n_;
  AdaptiveHeader best_;
  double best_bits_ = INFINITY;
  std::vector<int64_t> counts_;
};

}  // namespace

AdaptiveHeader choose_adaptive_header(const int16_t* symbols, int64_t n, int64_t row_length, int16_t* tokens) {
  const auto [low, high] = std::minmax_element(symbols, symbols + n);
  AdaptiveHeader header;
  header.n = n;
  while ((*high >> header.low_bits) - (*low >> header.low_bits) >= kMaxTokens) ++header.low_bits;
  header.first = *low >> header.low_bits;
  header.alphabet = (*high >> header.low_bits) - header.first + 1;
  header.centre = std::clamp(-header.first, 0, header.alphabet - 1);
  for (int64_t i = 0; i < n; ++i) tokens[i] = static_cast<int16_t>((symbols[i] >> header.low_bits) - header.first);
  AdaptiveHeader found = Search(tokens, n, header).run(row_length);
  // The search saw only the start of a long stream.
  while (!adaptive_counts_fit(found) && found.gain > 0) --found.gain;
  if (!adaptive_counts_fit(found)) {
    AdaptiveHeader modest = header;
    modest.slope = found.slope;
    modest.curvature = found.curvature;
    modest.peak = found.peak;
    modest.centre = found.centre;
    return modest;
  }
  return found;
}

}  // namespace toolkit
