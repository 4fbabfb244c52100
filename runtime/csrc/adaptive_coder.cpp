// Adaptive coder (FORMAT.md 3): a range coder (Martin, "Range encoding", 1979) whose probabilities follow the symbols.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "adaptive_model.h"
#include "adaptive_search.h"
#include "small_bodies.h"

namespace toolkit {
namespace {

constexpr uint64_t kRefillBelow = uint64_t{1} << 31;

// The stream is one long fraction; the interval of what was coded so far is [low, low + range) in units of its last
// digit. range is below 2^63.
class RangeEncoder {
 public:
  void encode(uint32_t below, uint32_t weight, uint32_t total) {
    refill();
    const uint64_t unit = range_ / total;
    add(unit * below);
    range_ = unit * weight;
  }
  // The shortest stream that decodes to the same symbols: as many zero words at its end as the interval allows.
  void finish(Words* words) {
    for (int zero_bits = 48; zero_bits > 0; zero_bits -= 16) {
      const uint64_t step = uint64_t{1} << zero_bits;
      const uint64_t up = (step - tail() % step) % step;
      if (up >= range_) continue;
      add(up);
      break;
    }
    const auto start = static_cast<int64_t>(words->size());
    for (const uint32_t digit : digits_) {
      words->push_back(static_cast<uint16_t>(digit >> 16));
      words->push_back(static_cast<uint16_t>(digit & 0xFFFF));
    }
    while (static_cast<int64_t>(words->size()) > start && words->back() == 0) words->pop_back();
  }

 private:
  void refill() {
    if (range_ >= kRefillBelow) return;
    digits_.push_back(0);
    range_ <<= 32;
  }
  void add(uint64_t value) {
    for (size_t i = digits_.size(); value != 0 && i-- > 0;) {
      const uint64_t sum = digits_[i] + (value & 0xFFFFFFFFu);
      digits_[i] = static_cast<uint32_t>(sum);
      value = (value >> 32) + (sum >> 32);
    }
  }
  // The last 64 bits of low.
  uint64_t tail() const {
    const uint64_t last = digits_.empty() ? 0 : digits_.back();
    const uint64_t before = digits_.size() < 2 ? 0 : digits_[digits_.size() - 2];
    return (before << 32) | last;
  }

  std::vector<uint32_t> digits_;
  uint64_t range_ = 1;
};

class RangeDecoder {
 public:
  RangeDecoder(const uint16_t* words, int64_t num_words) : words_(words), end_(words + num_words) {}

  // Decodes one token, or gives -1 where the stream leaves the interval.
  int decode(const AdaptiveModel& model, int alphabet) {
    if (range_ < kRefillBelow) refill();
    const uint64_t unit = range_ / model.total();
    const uint64_t target = code_ / unit;
    uint64_t below = 0;
    int token = 0;
    for (; token + AdaptiveModel::kRun <= alphabet; token += AdaptiveModel::kRun) {
      const uint32_t weight = model.weight_of_run(token);
      if (target < below + weight) break;
      below += weight;
    }
    for (; token < alphabet; ++token) {
      const uint64_t weight = model.weight(token);
      if (target < below + weight) {
        code_ -= unit * below;
        range_ = unit * weight;
        return token;
      }
      below += weight;
    }
    return -1;
  }
  bool exhausted() const { return words_ == end_; }

 private:
  uint32_t next() { return words_ < end_ ? *words_++ : 0u; }
  void refill() {
    const uint32_t high = next();
    range_ <<= 32;
    code_ = (code_ << 32) | (high << 16) | next();
  }

  const uint16_t* words_;
  const uint16_t* end_;
  uint64_t range_ = 1;
  uint64_t code_ = 0;  // below range_
};

}  // namespace

tk_status check_adaptive(const uint16_t* body, int64_t num_words, int64_t* n) {
  AdaptiveHeader header;
  const tk_status status = read_adaptive_header(body, num_words, &header);
  if (status != TK_OK) return status;
  *n = header.n;
  // A stream never ends in a zero word: so no word can be missing or too many unnoticed.
  const int64_t code_words = num_words - header.words - packed_words(header.n, header.low_bits);
  return code_words == 0 || body[num_words - 1] != 0 ? TK_OK : TK_ERR_STREAM;
}

tk_status decode_adaptive(const uint16_t* body, int64_t num_words, int16_t* out) {
  AdaptiveHeader header;
  const tk_status status = read_adaptive_header(body, num_words, &header);
  if (status != TK_OK) return status;
  const uint16_t* raw = body + header.words;
  const int64_t raw_words = packed_words(header.n, header.low_bits);
  AdaptiveModel model(header);
  RangeDecoder decoder(raw + raw_words, num_words - header.words - raw_words);
  for (int64_t i = 0; i < header.n; ++i) {
    model.select(out, i);
    const int token = decoder.decode(model, header.alphabet);
    if (token < 0) return TK_ERR_STREAM;
    model.observe(token);
    out[i] = static_cast<int16_t>(token);
  }
  if (!decoder.exhausted()) return TK_ERR_STREAM;
  const int unit = 1 << header.low_bits;
  for (int64_t i = 0; i < header.n; ++i) {
    const auto low = static_cast<int>(packed_at(raw, raw_words, i, header.low_bits));
    out[i] = static_cast<int16_t>((header.first + out[i]) * unit + low);
  }
  return TK_OK;
}

tk_status encode_adaptive(const int16_t* symbols, int64_t n, int64_t row_length, Words* words) {
  if (n > kMaxAdaptiveSymbols) return TK_ERR_ARGUMENT;
  std::vector<int16_t> tokens(static_cast<size_t>(n));
  const AdaptiveHeader header = choose_adaptive_header(symbols, n, row_length, tokens.data());
  append_adaptive_header(header, words);
  const size_t raw = words->size();
  words->resize(raw + static_cast<size_t>(packed_words(n, header.low_bits)), 0);
  const auto low_mask = static_cast<uint32_t>((1 << header.low_bits) - 1);
  for (int64_t i = 0; i < n; ++i) {
    put_packed(words->data() + raw, i, header.low_bits, static_cast<uint32_t>(symbols[i]) & low_mask);
  }
  AdaptiveModel model(header);
  RangeEncoder encoder;
  for (int64_t i = 0; i < n; ++i) {
    const int token = tokens[static_cast<size_t>(i)];
    model.select(tokens.data(), i);
    uint32_t below = 0;
    for (int t = 0; t < token; ++t) below += model.weight(t);
    encoder.encode(below, model.weight(token), model.total());
    model.observe(token);
  }
  encoder.finish(words);
  return TK_OK;
}

}  // namespace toolkit
