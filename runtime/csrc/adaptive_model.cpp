// Header, prior and counts of the adaptive coder (FORMAT.md 3.1 to 3.4).
// SPDX-License-Identifier: Apache-2.0
#include "adaptive_model.h"

#include <algorithm>
#include <cstdlib>

#include "small_bodies.h"

namespace toolkit {
namespace {

constexpr uint32_t kMaxTotal = 1u << 26;
constexpr int kMaxRarity = 127;

// 65536 * 2^(i / 8)
constexpr uint64_t kEighths[8] = {65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194};

int class_index(const AdaptiveHeader& header, int token) {
  if (header.mode == 0) return 0;
  const int offset = token - header.centre;
  const int magnitude = std::abs(offset);
  const int step = magnitude < header.small ? 0 : magnitude < header.large ? 1 : 2;
  if (header.mode == 1) return step;
  return offset < 0 ? 2 - step : 2 + step;
}

// How many counts one symbol adds to a row at most, in units of 4^gain: sum of reach + 1 - |d|.
int64_t spread(const AdaptiveHeader& header) { return int64_t{header.reach + 1} * (header.reach + 1); }

// Reads words one after the other; past the end it gives zeros and remembers it.
class HeaderReader {
 public:
  HeaderReader(const uint16_t* words, int64_t num_words) : words_(words), num_words_(num_words) {}
  int next() { return used_ < num_words_ ? words_[used_++] : (missing_ = true, 0); }
  int64_t used() const { return used_; }
  bool missing() const { return missing_; }

 private:
  const uint16_t* words_;
  int64_t num_words_;
  int64_t used_ = 0;
  bool missing_ = false;
};

int bits_of(int word, int low, int count) { return (word >> low) & ((1 << count) - 1); }

void read_contexts(HeaderReader* reader, AdaptiveHeader* h) {
  const int word = reader->next();
  h->mode = 1 + bits_of(word, 0, 1);
  h->weight_before = bits_of(word, 1, 3);
  h->weight_back = bits_of(word, 4, 3);
  h->weight_both = bits_of(word, 7, 3);
  h->small = 1 + bits_of(word, 12, 2);
  h->large = h->small + bits_of(word, 14, 2);
  if (bits_of(word, 11, 1) != 0) {
    const int thresholds = reader->next();
    h->small = bits_of(thresholds, 0, 8);
    h->large = bits_of(thresholds, 8, 8);
  }
  if (bits_of(word, 10, 1) != 0) h->distance = reader->next();
}

bool short_thresholds(const AdaptiveHeader& h) { return h.small <= 4 && h.large - h.small <= 3; }

bool has_shape(const AdaptiveHeader& h) {
  return h.curvature != 0 || h.reach != 0 || h.low_bits != 0 || h.first != -h.centre || h.n > 0xFFFF;
}

}  // namespace

tk_status read_adaptive_header(const uint16_t* body, int64_t num_words, AdaptiveHeader* h) {
  HeaderReader reader(body, num_words);
  h->n = reader.next();
  const int tokens = reader.next();
  h->alphabet = 1 + bits_of(tokens, 0, 8);
  h->centre = bits_of(tokens, 8, 8);
  h->first = -h->centre;
  const int prior = reader.next();
  h->slope = bits_of(prior, 0, 6);
  h->peak = bits_of(prior, 6, 5) - 16;
  h->gain = bits_of(prior, 11, 3);
  if (bits_of(prior, 14, 1) != 0) {
    const int shape = reader.next();
    h->curvature = bits_of(shape, 0, 6);
    h->reach = bits_of(shape, 6, 4);
    h->low_bits = bits_of(shape, 10, 4);
    if (bits_of(shape, 14, 1) != 0) h->first = static_cast<int16_t>(reader.next());
    if (bits_of(shape, 15, 1) != 0) h->n += static_cast<int64_t>(reader.next()) << 16;
  }
  if (bits_of(prior, 15, 1) != 0) read_contexts(&reader, h);
  if (reader.missing()) return TK_ERR_TRUNCATED;
  h->words = reader.used();
  if (h->n < 1 || h->n > kMaxAdaptiveSymbols || h->centre >= h->alphabet || h->low_bits > 8) return TK_ERR_HEADER;
  const int unit = 1 << h->low_bits;
  if (h->first * unit < -32768 || (h->first + h->alphabet) * unit - 1 > 32767) return TK_ERR_HEADER;
  if (h->small < 1 || h->small > h->large || h->distance < 1) return TK_ERR_HEADER;
  if (!adaptive_counts_fit(*h)) return TK_ERR_HEADER;
  return num_words - h->words >= packed_words(h->n, h->low_bits) ? TK_OK : TK_ERR_TRUNCATED;
}

void append_adaptive_header(const AdaptiveHeader& h, std::vector<uint16_t>* words) {
  const auto put = [words](int64_t value) { words->push_back(static_cast<uint16_t>(value & 0xFFFF)); };
  put(h.n);
  put((h.alphabet - 1) | (h.centre << 8));
  put(h.slope | ((h.peak + 16) << 6) | (h.gain << 11) | (has_shape(h) ? 1 << 14 : 0) | (h.mode > 0 ? 1 << 15 : 0));
  if (has_shape(h)) {
    const bool has_first = h.first != -h.centre;
    put(h.curvature | (h.reach << 6) | (h.low_bits << 10) | (has_first ? 1 << 14 : 0) | (h.n > 0xFFFF ? 1 << 15 : 0));
    if (has_first) put(h.first);
    if (h.n > 0xFFFF) put(h.n >> 16);
  }
  if (h.mode == 0) return;
  const bool in_short = short_thresholds(h);
  put((h.mode - 1) | (h.weight_before << 1) | (h.weight_back << 4) | (h.weight_both << 7) |
      (h.distance > 1 ? 1 << 10 : 0) | (in_short ? ((h.small - 1) << 12) | ((h.large - h.small) << 14) : 1 << 11));
  if (!in_short) put(h.small | (h.large << 8));
  if (h.distance > 1) put(h.distance);
}

int64_t adaptive_header_words(const AdaptiveHeader& h) {
  const int64_t shape = has_shape(h) ? 1 + (h.first != -h.centre ? 1 : 0) + (h.n > 0xFFFF ? 1 : 0) : 0;
  const int64_t contexts = h.mode > 0 ? 1 + (short_thresholds(h) ? 0 : 1) + (h.distance > 1 ? 1 : 0) : 0;
  return 3 + shape + contexts;
}

bool adaptive_counts_fit(const AdaptiveHeader& h) {
  const int64_t classes = num_classes(h.mode);
  const int64_t before = weight_of(h.weight_before);
  const int64_t back = weight_of(h.weight_back);
  const int64_t both = weight_of(h.weight_both);
  const int64_t prior = (4096 + h.alphabet) * (classes * classes + classes * (before + back) + both);
  const int64_t seen = h.n * (spread(h) << (2 * h.gain)) * (1 + before + back + both);
  return prior + seen <= kMaxTotal;
}

void adaptive_prior(const AdaptiveHeader& h, uint32_t* prior) {
  uint64_t weights[kMaxTokens];
  uint64_t sum = 0;
  const int64_t slope = 64 * h.slope * h.slope;
  const int64_t curvature = h.curvature * h.curvature;
  for (int token = 0; token < h.alphabet; ++token) {
    const int64_t steps = std::abs(token - h.centre) - 1;
    int64_t rarity = 4 * std::max(h.peak, 0);
    if (steps >= 0) rarity = 4 * std::max(-h.peak, 0) + (slope * steps + curvature * steps * steps) / 4096;
    const int64_t eighths = kMaxRarity - std::min<int64_t>(rarity, kMaxRarity);
    weights[token] = kEighths[eighths % 8] << (eighths / 8);
    sum += weights[token];
  }
  for (int token = 0; token < h.alphabet; ++token) {
    prior[token] = 1 + static_cast<uint32_t>(4096 * weights[token] / sum);
  }
}

AdaptiveModel::AdaptiveModel(const AdaptiveHeader& h)
    : classes_(num_classes(h.mode)),
      centre_(h.centre),
      alphabet_(h.alphabet),
      reach_(h.reach),
      distance_(h.distance),
      w_before_(weight_of(h.weight_before)),
      w_back_(weight_of(h.weight_back)),
      w_both_(weight_of(h.weight_both)) {
  for (int i = 0; i <= 2 * reach_; ++i)
    seen_[static_cast<size_t>(i)] = static_cast<uint32_t>(reach_ + 1 - std::abs(i - reach_)) << (2 * h.gain);
  uint32_t prior[kMaxTokens];
  adaptive_prior(h, prior);
  uint32_t sum = 0;
  for (int token = 0; token < alphabet_; ++token) {
    class_of_[static_cast<size_t>(token)] = static_cast<uint8_t>(class_index(h, token));
    sum += prior[token];
  }
  // Each pair of classes starts with the prior; a row of several pairs with the sum of theirs.
  const auto classes = static_cast<uint32_t>(classes_);
  const int rows = 1 + 2 * classes_ + classes_ * classes_;
  counts_.reserve(static_cast<size_t>(rows) * (static_cast<size_t>(alphabet_) + 1));
  for (int r = 0; r < rows; ++r) {
    const uint32_t pairs = r == 0 ? classes * classes : r <= 2 * classes_ ? classes : 1;
    for (int token = 0; token < alphabet_; ++token) counts_.push_back(pairs * prior[token]);
    counts_.push_back(pairs * sum);
  }
}

void AdaptiveModel::observe(int token) {
  const int begin = std::max(token - reach_, 0);
  const int count = std::min(token + reach_, alphabet_ - 1) - begin + 1;
  const uint32_t* const seen = seen_.data() + (begin - token + reach_);
  uint32_t added = 0;
  for (int i = 0; i < count; ++i) added += seen[i];
  for (uint32_t* row : {counts_.data(), before_, back_, both_}) {
    uint32_t* const to = row + begin;
    for (int i = 0; i < count; ++i) to[i] += seen[i];
    row[alphabet_] += added;
  }
}

}  // namespace toolkit
