// AVX-512: the symbols of 32 lanes on their way from registers to memory, a cache line of each lane at a time.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_AVX512_LINE_H
#define TOOLKIT_WIDE_AVX512_LINE_H

#include "wide_avx512_choice.h"

namespace toolkit::wide {
namespace {

// 64 symbols of 8 bits, or 32 of 16, fill a cache line.
inline constexpr int kLineBytes = 64;

// 16 x 16 transposition of 32-bit elements: r[i] element j <-> r[j] element i.
TK_INLINE void transpose16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

struct StepShuffles {
  alignas(64) uint8_t bytes0[64] = {}, bytes1[64] = {};
  alignas(64) uint16_t words0[32] = {}, words1[32] = {};
  constexpr StepShuffles() {
    for (int i = 0; i < 32; ++i) {
      words0[i] = static_cast<uint16_t>(i % 2 * 32 + i / 2);
      words1[i] = static_cast<uint16_t>(words0[i] + 16);
    }
    for (int i = 0; i < 64; ++i) {
      bytes0[i] = static_cast<uint8_t>(i % 4 * 32 + i / 4);
      bytes1[i] = static_cast<uint8_t>(bytes0[i] + 16);
    }
  }
};
inline constexpr StepShuffles kStepShuffles;

// `Wide`: 16-bit symbols.
template <bool Wide>
struct Line {
  static constexpr int kSymbolBytes = Wide ? 2 : 1;
  static constexpr int64_t kSteps = kLineBytes / kSymbolBytes;  // steps that fill it
  static constexpr int64_t kStepBytes = kLanes * kSymbolBytes;

  // The symbols of all lanes, one step after the other.
  alignas(64) char steps[kSteps * kStepBytes];

  // 16 lanes' symbols of the steps that make a 32-bit element.
  TK_INLINE __m512i element(int i, int half) const {
    const char* const from = steps + 128 * i;
    const StepShuffles& k = kStepShuffles;
    if constexpr (Wide)
      return _mm512_permutex2var_epi16(load512(from), load512(half ? k.words1 : k.words0), load512(from + 64));
    else
      return _mm512_permutex2var_epi8(load512(from), load512(half ? k.bytes1 : k.bytes0), load512(from + 64));
  }

  // Writes the first `count` symbols of every lane that stand here, the last of which is symbol `end - 1`.
  void write(const BlockJob& job, int64_t end, int64_t count) const {
    auto* const out = static_cast<char*>(job.out);
    const int64_t first = end - count;
    const int64_t last_length = job.last_rows * job.columns;
    for (int half = 0; half < 2; ++half) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) r[i] = element(i, half);
      transpose16(r);
      for (int i = 0; i < 16; ++i) {
        const int lane = 16 * half + i;
        if (lane >= job.lanes) return;
        char* const to = out + (lane * job.lane_stride + first) * kSymbolBytes;
        int64_t n = count;
        if (lane == job.lanes - 1) n = std::min(n, last_length - first);
        if (n == kSteps) {
          _mm512_storeu_si512(to, r[i]);
          // Where the next line of this lane ends: stores that miss the cache would fill the store buffer.
          __builtin_prefetch(to + 2 * kLineBytes - 1, 1, 3);
        } else if (n > 0) {
          _mm512_mask_storeu_epi8(to, (~uint64_t{0}) >> (64 - n * kSymbolBytes), r[i]);
        }
      }
    }
  }
};

}  // namespace
}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_AVX512_LINE_H
