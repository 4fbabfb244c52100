// The AVX-512 block decoder: the 32 states of a block in two registers, two blocks side by side.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "wide_kernels.h"

namespace toolkit::wide {
namespace {

// Steps between two transpositions: 64 symbols of 8 bits, or 32 of 16, fill a cache line of each lane.
constexpr int kLineBytes = 64;
// A step loads at most 64 words (32 for the symbol, 32 for raw bits) from where the pointer stands.
constexpr int64_t kStepWords = 64;

inline __m512i load512(const void* p) { return _mm512_loadu_si512(p); }

// Sixteen table entries. Scalar loads put together are faster than the gather instruction on the processors measured.
inline __m512i lookup(const uint32_t* table, __m512i index) {
#if defined(TOOLKIT_USE_GATHER)
  return _mm512_i32gather_epi32(index, table, 4);
#else
  const auto quarter = [table](__m128i i) {
    const auto lo = static_cast<uint64_t>(_mm_cvtsi128_si64(i));
    const auto hi = static_cast<uint64_t>(_mm_extract_epi64(i, 1));
    __m128i r = _mm_cvtsi32_si128(static_cast<int>(table[static_cast<uint32_t>(lo)]));
    r = _mm_insert_epi32(r, static_cast<int>(table[lo >> 32]), 1);
    r = _mm_insert_epi32(r, static_cast<int>(table[static_cast<uint32_t>(hi)]), 2);
    return _mm_insert_epi32(r, static_cast<int>(table[hi >> 32]), 3);
  };
  const __m256i lo = _mm512_castsi512_si256(index), hi = _mm512_extracti64x4_epi64(index, 1);
  const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(_mm256_castsi256_si128(lo))),
                                            quarter(_mm256_extracti128_si256(lo, 1)), 1);
  const __m256i b = _mm256_inserti128_si256(_mm256_castsi128_si256(quarter(_mm256_castsi256_si128(hi))),
                                            quarter(_mm256_extracti128_si256(hi, 1)), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
#endif
}

// 16 x 16 transposition of 32-bit elements: r[i] element j <-> r[j] element i.
inline void transpose16(__m512i r[16]) {
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

// A block in the making. `Wide`: 16-bit symbols with raw low bits.
template <bool Wide>
struct State {
  static constexpr int kPerWord = Wide ? 2 : 4;             // symbols in a 32-bit element
  static constexpr int kLine = kLineBytes / (Wide ? 2 : 1);  // symbols in a line

  const BlockJob* job;
  const uint32_t* slots;
  const uint16_t* p;
  __m512i x0, x1;          // states of lanes 0-15 and 16-31
  __m512i packed0, packed1;  // the last symbols of each lane, newest on top
  __m512i previous;        // 32 x int16, previous symbols
  __m512i row;             // 32 x int16, row classes
  __m512i t1[2], t2[2];    // thresholds of classes 0-31, 32-63 as int16
  __m512i top;             // classes - 1
  __mmask32 active;
  int64_t column, row_index, step, steps;
  alignas(64) uint32_t line[kLineBytes / 4][kLanes];

  void load_row() {
    row = load512(job->row_class + row_index * kLanes);
    previous = _mm512_setzero_si512();
    const int lanes = row_index < job->last_rows ? job->lanes : job->lanes - 1;
    active = lanes == kLanes ? ~__mmask32{0} : (__mmask32{1} << lanes) - 1;
  }

  void start(const BlockJob* j) {
    job = j;
    slots = j->set->slots;
    p = j->words;
    alignas(64) uint32_t x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = i < j->lanes ? load_u32(j->states + 2 * i) : kStateLow;
    x0 = _mm512_load_si512(x);
    x1 = _mm512_load_si512(x + 16);
    packed0 = packed1 = _mm512_setzero_si512();
    for (int h = 0; h < 2; ++h) {
      t1[h] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(j->set->t1 + 32 * h)));
      t2[h] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(j->set->t2 + 32 * h)));
    }
    top = _mm512_set1_epi16(static_cast<int16_t>(j->set->classes - 1));
    column = row_index = step = 0;
    steps = j->rows * j->columns;
    load_row();
  }

  // Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
  inline void refill(__m512i* a, __m512i* b, __mmask32 mask) {
    const __m512i low = _mm512_set1_epi32(static_cast<int>(kStateLow));
    const __mmask16 m0 = _mm512_cmplt_epu32_mask(*a, low), m1 = _mm512_cmplt_epu32_mask(*b, low);
    const __mmask32 m = _mm512_kunpackw(m1, m0) & mask;
    const __m512i words = _mm512_maskz_expand_epi16(m, load512(p));
    p += _mm_popcnt_u32(m);
    const __m512i w0 = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
    const __m512i w1 = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words, 1));
    *a = _mm512_mask_or_epi32(*a, static_cast<__mmask16>(m), _mm512_slli_epi32(*a, 16), w0);
    *b = _mm512_mask_or_epi32(*b, static_cast<__mmask16>(m >> 16), _mm512_slli_epi32(*b, 16), w1);
  }

  // One step of all active lanes. `Full`: every lane is active. `Contexts`: five contexts.
  template <bool Full, bool Contexts>
  inline void decode_step(int64_t c) {
    __m512i y = row;
    if (job->col_class) y = _mm512_add_epi16(y, _mm512_set1_epi16(job->col_class[c]));
    y = _mm512_min_epi16(_mm512_max_epi16(y, _mm512_setzero_si512()), top);
    __m512i table = y;
    if constexpr (Contexts) {
      const __m512i limit1 = _mm512_permutex2var_epi16(t1[0], y, t1[1]);
      const __m512i limit2 = _mm512_permutex2var_epi16(t2[0], y, t2[1]);
      const __m512i magnitude = _mm512_abs_epi16(previous);
      const __m512i one = _mm512_set1_epi16(1);
      __m512i bin = _mm512_maskz_mov_epi16(_mm512_cmpge_epi16_mask(magnitude, limit1), one);
      bin = _mm512_mask_add_epi16(bin, _mm512_cmpge_epi16_mask(magnitude, limit2), bin, one);
      bin = _mm512_mask_sub_epi16(bin, _mm512_movepi16_mask(previous), _mm512_setzero_si512(), bin);
      // 5 y + 2 + bin
      table = _mm512_add_epi16(_mm512_add_epi16(y, _mm512_slli_epi16(y, 2)), _mm512_add_epi16(bin, _mm512_add_epi16(one, one)));
    }
    const __m512i low12 = _mm512_set1_epi32(0xfff);
    const __m512i i0 = _mm512_or_si512(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(table)), kProbabilityBits), _mm512_and_si512(x0, low12));
    const __m512i i1 = _mm512_or_si512(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(table, 1)), kProbabilityBits),
        _mm512_and_si512(x1, low12));
    const __m512i e0 = lookup(slots, i0), e1 = lookup(slots, i1);
    // x' = f * (x >> 12) + bias
    const auto advance = [&](__m512i x, __m512i e) {
      const __m512i f = _mm512_and_si512(_mm512_srli_epi32(e, 12), low12);
      return _mm512_add_epi32(_mm512_mullo_epi32(f, _mm512_srli_epi32(x, kProbabilityBits)), _mm512_and_si512(e, low12));
    };
    if constexpr (Full) {
      x0 = advance(x0, e0);
      x1 = advance(x1, e1);
    } else {
      x0 = _mm512_mask_mov_epi32(x0, static_cast<__mmask16>(active), advance(x0, e0));
      x1 = _mm512_mask_mov_epi32(x1, static_cast<__mmask16>(active >> 16), advance(x1, e1));
    }
    refill(&x0, &x1, Full ? ~__mmask32{0} : active);
    const __m512i v0 = _mm512_srai_epi32(e0, 24), v1 = _mm512_srai_epi32(e1, 24);
    if constexpr (Contexts)
      previous = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(v0)), _mm512_cvtepi32_epi16(v1), 1);
    if constexpr (Wide) {
      const __m128i n = _mm_cvtsi32_si128(job->low_bits);
      const __m512i mask = _mm512_set1_epi32((1 << job->low_bits) - 1);
      const __m512i s0 = _mm512_or_si512(_mm512_sll_epi32(v0, n), _mm512_and_si512(x0, mask));
      const __m512i s1 = _mm512_or_si512(_mm512_sll_epi32(v1, n), _mm512_and_si512(x1, mask));
      const __m512i a = _mm512_srl_epi32(x0, n), b = _mm512_srl_epi32(x1, n);
      x0 = Full ? a : _mm512_mask_mov_epi32(x0, static_cast<__mmask16>(active), a);
      x1 = Full ? b : _mm512_mask_mov_epi32(x1, static_cast<__mmask16>(active >> 16), b);
      refill(&x0, &x1, Full ? ~__mmask32{0} : active);
      packed0 = _mm512_or_si512(_mm512_srli_epi32(packed0, 16), _mm512_slli_epi32(s0, 16));
      packed1 = _mm512_or_si512(_mm512_srli_epi32(packed1, 16), _mm512_slli_epi32(s1, 16));
    } else {
      const __m512i symbol = _mm512_set1_epi32(static_cast<int>(0xff000000u));
      // (packed >> 8) | (e & symbol mask): 0xea = (a & b) | c
      packed0 = _mm512_ternarylogic_epi32(e0, symbol, _mm512_srli_epi32(packed0, 8), 0xea);
      packed1 = _mm512_ternarylogic_epi32(e1, symbol, _mm512_srli_epi32(packed1, 8), 0xea);
    }
  }

  inline void keep_packed(int64_t at) {
    const auto word = (at % kLine) / kPerWord;
    _mm512_store_si512(line[word], packed0);
    _mm512_store_si512(line[word] + 16, packed1);
  }

  // Writes the `count` symbols of every lane that stand in `line`, the last of which is symbol `end - 1` of its lane.
  void flush(int64_t end, int64_t count) {
    constexpr int64_t size = Wide ? 2 : 1;
    auto* const out = static_cast<char*>(job->out);
    const int64_t first = end - count;
    const int64_t last_length = job->last_rows * job->columns;
    for (int half = 0; half < 2; ++half) {
      __m512i r[16];
      for (int i = 0; i < 16; ++i) r[i] = _mm512_load_si512(line[i] + 16 * half);
      transpose16(r);
      for (int i = 0; i < 16; ++i) {
        const int lane = 16 * half + i;
        if (lane >= job->lanes) return;
        char* const to = out + (lane * job->lane_stride + first) * size;
        int64_t n = count;
        if (lane == job->lanes - 1) n = std::min(n, last_length - first);
        if (n == kLine) {
          _mm512_storeu_si512(to, r[i]);
        } else if (n > 0) {
          _mm512_mask_storeu_epi8(to, (~uint64_t{0}) >> (64 - n * size), r[i]);
        }
      }
    }
  }

  bool finished() const {
    const __m512i low = _mm512_set1_epi32(static_cast<int>(kStateLow));
    return p == job->words_end && _mm512_cmpneq_epi32_mask(x0, low) == 0 && _mm512_cmpneq_epi32_mask(x1, low) == 0;
  }

  // How many steps may run before the row ends, the line is full or the words could run out; 0: they could now.
  int64_t run_length() const {
    const int64_t room = (job->readable_end - p) / kStepWords;
    return std::min({job->columns - column, kLine - step % kLine, room});
  }
};

// Runs `count` blocks for `n` steps: within a row and a line of each.
template <bool Wide, bool Full, bool Contexts, int Count>
inline void run_steps(State<Wide>* s, int64_t n) {
  constexpr int per = State<Wide>::kPerWord;
  for (int64_t i = 0; i < n; ++i) {
    for (int b = 0; b < Count; ++b) s[b].template decode_step<Full, Contexts>(s[b].column + i);
    if ((s[0].step + i + 1) % per == 0)
      for (int b = 0; b < Count; ++b) s[b].keep_packed(s[b].step + i);
  }
}

// The last, incomplete element of a line: its symbols stand at the top and must come down.
template <bool Wide>
inline void keep_partial(State<Wide>* s) {
  constexpr int per = State<Wide>::kPerWord;
  const int missing = per - static_cast<int>(s->step % per);
  if (missing == per) return;
  const __m128i shift = _mm_cvtsi32_si128(missing * 32 / per);
  s->packed0 = _mm512_srl_epi32(s->packed0, shift);
  s->packed1 = _mm512_srl_epi32(s->packed1, shift);
  s->keep_packed(s->step);
}

template <bool Wide>
inline void after_steps(State<Wide>* s, int64_t n) {
  constexpr int64_t line = State<Wide>::kLine;
  s->step += n;
  s->column += n;
  if (s->step % line == 0) {
    s->flush(s->step, line);
  } else if (s->step == s->steps) {
    keep_partial(s);
    s->flush(s->step, s->step % line);
  }
  if (s->column == s->job->columns && s->step < s->steps) {
    s->column = 0;
    ++s->row_index;
    s->load_row();
  }
}

// Runs Count blocks until the first of them is done or needs the careful end; false where a stream ends too early.
template <bool Wide, bool Contexts, int Count>
void run_together(State<Wide>* s) {
  for (;;) {
    int64_t n = INT64_MAX;
    bool full = true;
    for (int b = 0; b < Count; ++b) {
      if (s[b].step == s[b].steps) return;
      n = std::min(n, s[b].run_length());
      full = full && s[b].active == ~__mmask32{0};
    }
    if (n == 0) return;
    if (full)
      run_steps<Wide, true, Contexts, Count>(s, n);
    else
      run_steps<Wide, false, Contexts, Count>(s, n);
    for (int b = 0; b < Count; ++b) after_steps(&s[b], n);
  }
}

template <bool Wide, bool Contexts, int Count>
void run(State<Wide>* s) {
  run_together<Wide, Contexts, Count>(s);
}

// Near the end of readable memory the words are copied to where loads may run past them.
template <bool Wide, bool Contexts>
bool finish(State<Wide>* s) {
  run_together<Wide, Contexts, 1>(s);
  if (s->step < s->steps) {
    // Fewer than kStepWords words are left in all: they, and zeros behind them.
    uint16_t tail[4 * kStepWords] = {};
    const uint16_t* const from = s->p;
    const int64_t left = std::max<int64_t>(s->job->words_end - from, 0);
    if (left >= kStepWords) return false;
    std::memcpy(tail, from, static_cast<size_t>(left) * sizeof(uint16_t));
    s->p = tail;
    while (s->step < s->steps) {
      if (s->p > tail + left) return false;
      const int64_t n = std::min(s->job->columns - s->column, State<Wide>::kLine - s->step % State<Wide>::kLine);
      // One step at a time: each takes at most kStepWords, which the zeros allow for.
      const int64_t one = std::min<int64_t>(n, 1);
      run_steps<Wide, false, Contexts, 1>(s, one);
      after_steps(s, one);
    }
    s->p = from + (s->p - tail);
  }
  return s->finished();
}

template <bool Wide, bool Contexts>
bool decode_pair(const BlockJob* jobs, int count) {
  State<Wide> s[2];
  for (int i = 0; i < count; ++i) s[i].start(&jobs[i]);
  if (count == 2) run<Wide, Contexts, 2>(s);
  bool good = true;
  for (int i = 0; i < count; ++i) good = finish<Wide, Contexts>(&s[i]) && good;
  return good;
}

template <bool Wide>
bool decode_blocks(const BlockJob* jobs, int count) {
  return jobs[0].set->contexts == 1 ? decode_pair<Wide, false>(jobs, count) : decode_pair<Wide, true>(jobs, count);
}

}  // namespace

Kernels kernels_avx512() { return {decode_blocks<false>, decode_blocks<true>}; }

}  // namespace toolkit::wide
#endif
