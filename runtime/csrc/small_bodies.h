// Bodies of the blobs of small tensors, behind the frame: what each coder reads and writes.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_SMALL_BODIES_H
#define TOOLKIT_SMALL_BODIES_H

#include <cstdint>
#include <vector>

#include "codec_api.h"

namespace toolkit {

using Words = std::vector<uint16_t>;

constexpr int64_t kMaxSmallSymbols = (int64_t{1} << 24) - 1;

// The first field of a Huffman or fixed-length body: 24 bits, in word 0 and the low byte of word 1.
inline int64_t small_count(const uint16_t* body) { return body[0] | (static_cast<int64_t>(body[1] & 0xFF) << 16); }

// Each check reads the whole header and gives TK_OK and the number of symbols where decoding may start; each decode is
// called after its check, with room for so many symbols. Each encode appends the body to *words and gives
// TK_ERR_ARGUMENT where the coder cannot hold the symbols.
tk_status check_adaptive(const uint16_t* body, int64_t num_words, int64_t* n);
tk_status decode_adaptive(const uint16_t* body, int64_t num_words, int16_t* out);
tk_status encode_adaptive(const int16_t* symbols, int64_t n, int64_t row_length, Words* words);

tk_status check_huffman(const uint16_t* body, int64_t num_words, int64_t* n);
tk_status decode_huffman(const uint16_t* body, int64_t num_words, int16_t* out);
tk_status encode_huffman(const int16_t* symbols, int64_t n, Words* words);

tk_status check_fixed(const uint16_t* body, int64_t num_words, int64_t* n);
tk_status decode_fixed(const uint16_t* body, int64_t num_words, int16_t* out);
tk_status encode_fixed(const int16_t* symbols, int64_t n, Words* words);

// Numbers of `bits` bits (0 to 16), the first in the low bits of the first word (FORMAT.md 5).
inline uint32_t packed_at(const uint16_t* words, int64_t num_words, int64_t index, int bits) {
  const int64_t bit = index * bits;
  const int64_t word = bit / 16;
  if (bits == 0 || word >= num_words) return 0;
  uint32_t window = words[word];
  if (word + 1 < num_words) window |= static_cast<uint32_t>(words[word + 1]) << 16;
  return (window >> (bit % 16)) & ((1u << bits) - 1);
}

inline void put_packed(uint16_t* words, int64_t index, int bits, uint32_t value) {
  const int64_t bit = index * bits;
  const uint32_t window = value << (bit % 16);
  if (bits == 0) return;
  words[bit / 16] = static_cast<uint16_t>(words[bit / 16] | (window & 0xFFFF));
  if (window >> 16) words[bit / 16 + 1] = static_cast<uint16_t>(words[bit / 16 + 1] | (window >> 16));
}

inline int64_t packed_words(int64_t count, int bits) { return (count * bits + 15) / 16; }

}  // namespace toolkit

#endif  // TOOLKIT_SMALL_BODIES_H
