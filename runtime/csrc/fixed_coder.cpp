// Fixed-length coder (FORMAT.md 5): offsets from the smallest symbol, each in the same number of bits.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "small_bodies.h"

namespace toolkit {
namespace {

constexpr int64_t kFixedHeader = 3;

int fixed_bits(const uint16_t* body) { return body[1] >> 8; }

}  // namespace

tk_status check_fixed(const uint16_t* body, int64_t num_words, int64_t* n) {
  if (num_words < kFixedHeader) return TK_ERR_TRUNCATED;
  *n = small_count(body);
  if (*n < 1 || fixed_bits(body) > 16) return TK_ERR_HEADER;
  if (num_words - kFixedHeader != packed_words(*n, fixed_bits(body))) return TK_ERR_TRUNCATED;
  return TK_OK;
}

tk_status decode_fixed(const uint16_t* body, int64_t num_words, int16_t* out) {
  const int64_t n = small_count(body);
  const int32_t first = static_cast<int16_t>(body[2]);
  const int bits = fixed_bits(body);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t symbol =
        first + static_cast<int32_t>(packed_at(body + kFixedHeader, num_words - kFixedHeader, i, bits));
    if (symbol > 32767) return TK_ERR_STREAM;
    out[i] = static_cast<int16_t>(symbol);
  }
  return TK_OK;
}

tk_status encode_fixed(const int16_t* symbols, int64_t n, Words* words) {
  const auto [low, high] = std::minmax_element(symbols, symbols + n);
  const int32_t first = *low;
  int bits = 0;
  while (((*high - first) >> bits) != 0) ++bits;
  words->push_back(static_cast<uint16_t>(n & 0xFFFF));
  words->push_back(static_cast<uint16_t>((n >> 16) | (bits << 8)));
  words->push_back(static_cast<uint16_t>(first));
  const size_t start = words->size();
  words->resize(start + static_cast<size_t>(packed_words(n, bits)), 0);
  for (int64_t i = 0; i < n; ++i) {
    put_packed(words->data() + start, i, bits, static_cast<uint32_t>(symbols[i] - first));
  }
  return TK_OK;
}

}  // namespace toolkit
