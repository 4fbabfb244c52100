// The wide coder's constants and checked structures (FORMAT.md 2).
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_FORMAT_H
#define TOOLKIT_WIDE_FORMAT_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codec_api.h"

namespace toolkit::wide {

inline constexpr int kLanes = 32;            // lanes of a full block
inline constexpr int kProbabilityBits = 12;  // frequencies of a table sum to 4096
inline constexpr uint32_t kSlots = 1u << kProbabilityBits;
inline constexpr uint32_t kStateLow = 1u << 16;  // a normalised state is at least this; also every lane's last state
inline constexpr int kMaxClasses = 64;
inline constexpr int kMaxContexts = 5;
inline constexpr int kMaxQuantisers = 2;
inline constexpr int kMaxSets = 16;
inline constexpr int kMaxTables = 256;
inline constexpr int kHeaderWords = 18;
inline constexpr int kDirectoryWords = 10;
inline constexpr int kExceptionWords = 4;
inline constexpr int kModeCode = 127;  // marks the symbol that takes what the others leave
inline constexpr int kMaxCode = 80;
inline constexpr int kFullCount = 255;  // the stored count of a table of all 256 symbols
inline constexpr uint16_t kFlagWide = 1, kFlagNested = 2, kFlagTrellis = 4;
inline constexpr int kTrellisSet = 0x80;            // of the low byte of a set's directory word
inline constexpr int64_t kMaxSymbols = 0x7fffffff;  // of a tensor, and of the matrix of a segment
inline constexpr int64_t kMostSymbolsPerWord = 65536;

// Whether a matrix of lanes x steps keeps the limits of FORMAT.md 2.8.
inline bool is_moderate(int64_t lanes, int64_t steps, int64_t code_words) {
  return lanes <= kMaxSymbols / steps && lanes * steps <= kMostSymbolsPerWord * (lanes + code_words);
}

// F(q) of FORMAT.md 2.5 for 0 <= q <= kMaxCode.
uint32_t frequency_of_code(int code);

// A slot of a decoding table: (slot - cumulative frequency) << 20 | frequency << 8 | symbol, so that one load gives all
// that the step x' = frequency * (x >> 12) + bias needs.
inline constexpr uint32_t pack_slot(int symbol, uint32_t frequency, uint32_t bias) {
  return bias << 20 | frequency << 8 | (static_cast<uint32_t>(symbol) & 0xff);
}

// One axis of one tensor's classes: a view into the class stream, null where absent.
struct Tensor {
  uint32_t a = 1, b = 1, c = 1, k = 1;
  int set = 0, low_bits = 0, base = 0;
  const int8_t* class_a = nullptr;
  const int8_t* class_b = nullptr;
  const int8_t* class_c = nullptr;
  int64_t first_lane = 0, num_lanes = 0, first_block = 0, num_blocks = 0;

  int64_t rows() const { return static_cast<int64_t>(a) * b; }
  int64_t size() const { return rows() * c; }
  int64_t lane_stride() const { return static_cast<int64_t>(k) * c; }
};

struct TableSet {
  int contexts = 1, classes = 1;
  int quantisers = 1;  // 2 in trellis sets
  uint8_t t1[kMaxClasses] = {}, t2[kMaxClasses] = {};
  uint8_t map[kMaxClasses * kMaxContexts * kMaxQuantisers] = {};  // number of the table at place_of
  const uint32_t* slots = nullptr;  // the segment's tables, [tables][kSlots], see pack_slot

  int places() const { return classes * contexts * quantisers; }
  int place_of(int y, int z, int q) const { return (y * contexts + z) * quantisers + q; }
};

struct Exception {
  uint32_t index;
  int16_t value;
};

// A body whose every field has been checked; the code words themselves are checked by decoding them.
struct Segment {
  bool wide = false;
  int64_t num_lanes = 0, num_blocks = 0, num_steps = 0, num_code_words = 0, side_words = 0;
  std::vector<Tensor> tensors;
  std::vector<TableSet> sets;
  std::vector<int8_t> class_stream;
  std::vector<uint8_t> table_stream;
  std::unique_ptr<uint32_t[]> slots;  // the tables, which all sets share
  std::vector<Exception> exceptions;
  std::vector<int64_t> block_begin;        // num_blocks + 1, in words from `words`
  const uint16_t* states = nullptr;        // 2 words a lane
  const uint16_t* words = nullptr;         // code words
  const uint16_t* readable_end = nullptr;  // one past the last word that may be loaded
};

// Parses and checks a body (FORMAT.md 2.2 to 2.5).
tk_status parse_segment(const uint16_t* body, int64_t num_words, bool nested, Segment* segment);

// Decodes every symbol of a tensor, A*B*C in row-major order; `out` holds int8 or, in wide segments, int16.
tk_status decode_tensor(const Segment& segment, const Tensor& tensor, void* out, int threads, tk_isa isa);

inline uint32_t load_u32(const uint16_t* p) { return p[0] | static_cast<uint32_t>(p[1]) << 16; }

}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_FORMAT_H
