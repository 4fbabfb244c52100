// The probability model of the adaptive coder (FORMAT.md 3.2 to 3.4): counts of tokens, kept for all symbols, for the
// class of the token before, for the class of the token one distance back, and for both together.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_ADAPTIVE_MODEL_H
#define TOOLKIT_ADAPTIVE_MODEL_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "codec_api.h"

namespace toolkit {

// The fields of the header, in its units.
struct AdaptiveHeader {
  int64_t n = 0;
  int alphabet = 1;       // tokens, 1 to 256
  int centre = 0;         // the token that stands for zero
  int first = 0;          // symbol >> low_bits of token 0
  int low_bits = 0;       // raw low bits of each symbol, 0 to 8
  int slope = 0;          // prior, 0 to 63
  int curvature = 0;      // prior, 0 to 63
  int peak = 0;           // prior, -16 to 15: half bits by which the centre is rarer than its neighbours
  int gain = 0;           // an observation weighs 4^gain, 0 to 7
  int reach = 0;          // half width of an observation, 0 to 15
  int mode = 0;           // classes: 0 none, 1 by magnitude, 2 by magnitude and sign
  int small = 1;          // magnitudes below are of the zero class, 1 to 255
  int large = 1;          // magnitudes from here on are of the outer class, small to 255
  int weight_before = 0;  // 0 to 7, each stands for 0, 1, 2, 4 ... 64
  int weight_back = 0;
  int weight_both = 0;
  int distance = 1;   // 1 to 65535
  int64_t words = 0;  // of the header, as read
};

tk_status read_adaptive_header(const uint16_t* body, int64_t num_words, AdaptiveHeader* header);
void append_adaptive_header(const AdaptiveHeader& header, std::vector<uint16_t>* words);
int64_t adaptive_header_words(const AdaptiveHeader& header);

// False where the counts could pass the limit of the range decoder: sum of all weights at the end at most 2^26.
bool adaptive_counts_fit(const AdaptiveHeader& header);

constexpr int kMaxTokens = 256;
constexpr int kMaxReach = 15;
constexpr int64_t kMaxAdaptiveSymbols = int64_t{1} << 20;

inline int num_classes(int mode) { return 2 * mode + 1; }
inline uint32_t weight_of(int code) { return code == 0 ? 0u : 1u << (code - 1); }

// Weights of the tokens before any was seen, each at least 1; the sum of them is at most 4096 + alphabet.
void adaptive_prior(const AdaptiveHeader& header, uint32_t* prior);

class AdaptiveModel {
 public:
  static constexpr int kRun = 16;

  explicit AdaptiveModel(const AdaptiveHeader& header);
  AdaptiveModel(const AdaptiveModel&) = delete;
  AdaptiveModel& operator=(const AdaptiveModel&) = delete;

  // Selects the contexts of symbol i from the tokens 0 … i − 1.
  void select(const int16_t* tokens, int64_t i) {
    const int before = class_of(i >= 1 ? tokens[i - 1] : centre_);
    const int back = class_of(i >= distance_ ? tokens[i - distance_] : centre_);
    before_ = select_row(1 + before);
    back_ = select_row(1 + classes_ + back);
    both_ = select_row(1 + 2 * classes_ + classes_ * before + back);
  }
  uint32_t weight(int token) const {
    const auto t = static_cast<size_t>(token);
    return counts_[t] + w_before_ * before_[t] + w_back_ * back_[t] + w_both_ * both_[t];
  }
  // The sum of weight(token) over kRun tokens.
  uint32_t weight_of_run(int first) const {
    const uint32_t* const rows[] = {counts_.data() + first, before_ + first, back_ + first, both_ + first};
    uint32_t sums[4] = {};
    for (int t = 0; t < kRun; ++t)
      for (int row = 0; row < 4; ++row) sums[row] += rows[row][t];
    return sums[0] + w_before_ * sums[1] + w_back_ * sums[2] + w_both_ * sums[3];
  }
  // The sum of weight(token) over the alphabet; it stands behind each row.
  uint32_t total() const { return weight(alphabet_); }
  // Counts the token in the selected contexts.
  void observe(int token);

 private:
  int class_of(int token) const { return class_of_[static_cast<size_t>(token)]; }
  uint32_t* select_row(int index) {
    return counts_.data() + static_cast<size_t>(index) * (static_cast<size_t>(alphabet_) + 1);
  }

  int classes_, centre_, alphabet_, reach_;
  int64_t distance_;
  uint32_t w_before_, w_back_, w_both_;
  uint32_t* before_ = nullptr;  // the selected rows
  uint32_t* back_ = nullptr;
  uint32_t* both_ = nullptr;
  std::array<uint8_t, kMaxTokens> class_of_{};
  std::array<uint32_t, 2 * kMaxReach + 1> seen_{};  // what a token adds to itself and to its neighbours within reach
  // Rows of alphabet counts and their sum: over all symbols, by class before, by class back, by both.
  std::vector<uint32_t> counts_;
};

}  // namespace toolkit

#endif  // TOOLKIT_ADAPTIVE_MODEL_H
