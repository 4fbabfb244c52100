// The AVX-512 block decoder: the 32 states of a block in two registers, two blocks side by side.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "wide_kernels.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

// Steps between two transpositions: 64 symbols of 8 bits, or 32 of 16, fill a cache line of each lane.
constexpr int kLineBytes = 64;
// A step loads at most 64 words (32 for the symbol, 32 for raw bits) from where the pointer stands.
constexpr int64_t kStepWords = 64;

inline __m512i load512(const void* p) { return _mm512_loadu_si512(p); }

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

// Index vectors of the 16-bit shuffles.
struct Shuffles {
  __m512i odd;               // elements 1, 3, 5, ... of two registers
  __m512i spread0, spread1;  // element 2 i + 1 takes element i, or 16 + i

  Shuffles() {
    alignas(64) uint16_t a[32], b[32], c[32];
    for (int i = 0; i < 32; ++i) {
      a[i] = static_cast<uint16_t>(2 * i + 1);
      b[i] = static_cast<uint16_t>(i / 2);
      c[i] = static_cast<uint16_t>(16 + i / 2);
    }
    odd = _mm512_load_si512(a);
    spread0 = _mm512_load_si512(b);
    spread1 = _mm512_load_si512(c);
  }
};

// What changes at every step, kept in registers while a run of steps lasts.
struct Hot {
  const uint16_t* p;
  __m512i x0, x1;            // states of lanes 0-15 and 16-31
  __m512i packed0, packed1;  // the last symbols of each lane, newest on top
  __m512i previous;          // 32 x int16, previous symbols
};

// What a run of steps within a row does not change.
struct Row {
  const uint32_t* slots;
  const int16_t* col_class;
  __m512i row;           // 32 x int16, row classes
  __m512i t1[2], t2[2];  // thresholds of classes 0-31, 32-63 as int16
  __m512i top;           // classes - 1
  __mmask32 active;
  int low_bits;
};

// Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
inline void refill(const Shuffles& k, __mmask32 mask, Hot& h) {
  // The upper halves of all states, in the order of the lanes: zero where a word is due.
  const __m512i upper = _mm512_permutex2var_epi16(h.x0, k.odd, h.x1);
  const __mmask32 m = _mm512_mask_testn_epi16_mask(mask, upper, upper);
  __m512i next = load512(h.p);
  asm("" : "+v"(next));  // from a register: expanding from memory is microcode, many times slower
  const __m512i words = _mm512_maskz_expand_epi16(m, next);
  h.p += _mm_popcnt_u32(m);
  // x << 16 | word, the word standing in the upper half of w.
  const __m512i w0 = _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, k.spread0, words);
  const __m512i w1 = _mm512_maskz_permutexvar_epi16(0xaaaaaaaa, k.spread1, words);
  h.x0 = _mm512_mask_shldi_epi32(h.x0, static_cast<__mmask16>(m), h.x0, w0, 16);
  h.x1 = _mm512_mask_shldi_epi32(h.x1, static_cast<__mmask16>(m >> 16), h.x1, w1, 16);
}

// One step of all active lanes. `Full`: every lane is active.
template <bool Wide, bool Full, Mode M>
inline void decode_step(const Shuffles& k, const Row& r, int64_t c, Hot& h) {
  const __m512i low12 = _mm512_set1_epi32(0xfff);
  __m512i i0, i1;
  if constexpr (M == Mode::kOne) {
    i0 = _mm512_and_si512(h.x0, low12);
    i1 = _mm512_and_si512(h.x1, low12);
  } else {
    __m512i y = r.row;
    if (r.col_class) y = _mm512_add_epi16(y, _mm512_set1_epi16(r.col_class[c]));
    y = _mm512_min_epi16(_mm512_max_epi16(y, _mm512_setzero_si512()), r.top);
    __m512i table = y;
    if constexpr (M == Mode::kContexts) {
      const __m512i limit1 = _mm512_permutex2var_epi16(r.t1[0], y, r.t1[1]);
      const __m512i limit2 = _mm512_permutex2var_epi16(r.t2[0], y, r.t2[1]);
      const __m512i magnitude = _mm512_abs_epi16(h.previous);
      const __m512i one = _mm512_set1_epi16(1);
      __m512i bin = _mm512_maskz_mov_epi16(_mm512_cmpge_epi16_mask(magnitude, limit1), one);
      bin = _mm512_mask_add_epi16(bin, _mm512_cmpge_epi16_mask(magnitude, limit2), bin, one);
      bin = _mm512_mask_sub_epi16(bin, _mm512_movepi16_mask(h.previous), _mm512_setzero_si512(), bin);
      // 5 y + 2 + bin
      table =
          _mm512_add_epi16(_mm512_add_epi16(y, _mm512_slli_epi16(y, 2)), _mm512_add_epi16(bin, _mm512_set1_epi16(2)));
    }
    // table << 12 | slot; 0xf8 = a | (b & c)
    const __m512i a0 = _mm512_srli_epi32(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, k.spread0, table), 4);
    const __m512i a1 = _mm512_srli_epi32(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, k.spread1, table), 4);
    i0 = _mm512_ternarylogic_epi32(a0, h.x0, low12, 0xf8);
    i1 = _mm512_ternarylogic_epi32(a1, h.x1, low12, 0xf8);
  }
  const __m512i e0 = _mm512_i32gather_epi32(i0, r.slots, 4), e1 = _mm512_i32gather_epi32(i1, r.slots, 4);
  // x' = f * (x >> 12) + bias
  const auto advance = [&](__m512i x, __m512i e) {
    const __m512i f = _mm512_and_si512(_mm512_srli_epi32(e, 8), low12);
    return _mm512_add_epi32(_mm512_mullo_epi32(f, _mm512_srli_epi32(x, kProbabilityBits)), _mm512_srli_epi32(e, 20));
  };
  if constexpr (Full) {
    h.x0 = advance(h.x0, e0);
    h.x1 = advance(h.x1, e1);
  } else {
    h.x0 = _mm512_mask_mov_epi32(h.x0, static_cast<__mmask16>(r.active), advance(h.x0, e0));
    h.x1 = _mm512_mask_mov_epi32(h.x1, static_cast<__mmask16>(r.active >> 16), advance(h.x1, e1));
  }
  refill(k, Full ? ~__mmask32{0} : r.active, h);
  if constexpr (!Wide) {
    // packed >> 8 | symbol << 24
    h.packed0 = _mm512_shrdi_epi32(h.packed0, e0, 8);
    h.packed1 = _mm512_shrdi_epi32(h.packed1, e1, 8);
  }
  __m512i v0, v1;
  if constexpr (Wide || M == Mode::kContexts) {
    v0 = _mm512_srai_epi32(Wide ? _mm512_slli_epi32(e0, 24) : h.packed0, 24);
    v1 = _mm512_srai_epi32(Wide ? _mm512_slli_epi32(e1, 24) : h.packed1, 24);
  }
  if constexpr (M == Mode::kContexts)
    h.previous = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(v0)), _mm512_cvtepi32_epi16(v1), 1);
  if constexpr (Wide) {
    __m512i s0 = v0, s1 = v1;
    if (r.low_bits) {
      const __m128i n = _mm_cvtsi32_si128(r.low_bits);
      const __m512i mask = _mm512_set1_epi32((1 << r.low_bits) - 1);
      s0 = _mm512_or_si512(_mm512_sll_epi32(v0, n), _mm512_and_si512(h.x0, mask));
      s1 = _mm512_or_si512(_mm512_sll_epi32(v1, n), _mm512_and_si512(h.x1, mask));
      const __m512i a = _mm512_srl_epi32(h.x0, n), b = _mm512_srl_epi32(h.x1, n);
      h.x0 = Full ? a : _mm512_mask_mov_epi32(h.x0, static_cast<__mmask16>(r.active), a);
      h.x1 = Full ? b : _mm512_mask_mov_epi32(h.x1, static_cast<__mmask16>(r.active >> 16), b);
      refill(k, Full ? ~__mmask32{0} : r.active, h);
    }
    h.packed0 = _mm512_shrdi_epi32(h.packed0, s0, 16);
    h.packed1 = _mm512_shrdi_epi32(h.packed1, s1, 16);
  }
}

// A block in the making. `Wide`: 16-bit symbols with raw low bits.
template <bool Wide>
struct State {
  static constexpr int kPerWord = Wide ? 2 : 4;              // symbols in a 32-bit element
  static constexpr int kLine = kLineBytes / (Wide ? 2 : 1);  // symbols in a line

  const BlockJob* job;
  Hot hot;
  Row row;
  int64_t column, row_index, step, steps;
  alignas(64) uint32_t line[kLineBytes / 4][kLanes];

  void load_row() {
    row.row = load512(job->row_class + row_index * job->row_step);
    hot.previous = _mm512_setzero_si512();
    const int lanes = row_index < job->last_rows ? job->lanes : job->lanes - 1;
    row.active = lanes == kLanes ? ~__mmask32{0} : (__mmask32{1} << lanes) - 1;
  }

  void start(const BlockJob* j) {
    job = j;
    const TableSet& set = *j->set;
    row.slots = set.slots;
    if (j->mode == Mode::kOne) row.slots += static_cast<int64_t>(class_of(j->row_class[0], 0, set.classes)) * kSlots;
    row.col_class = j->col_class;
    row.low_bits = j->low_bits;
    alignas(64) uint32_t x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = i < j->lanes ? load_u32(j->states + 2 * i) : kStateLow;
    hot.p = j->words;
    hot.x0 = _mm512_load_si512(x);
    hot.x1 = _mm512_load_si512(x + 16);
    hot.packed0 = hot.packed1 = _mm512_setzero_si512();
    for (int h = 0; h < 2; ++h) {
      row.t1[h] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(set.t1 + 32 * h)));
      row.t2[h] = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(set.t2 + 32 * h)));
    }
    row.top = _mm512_set1_epi16(static_cast<int16_t>(set.classes - 1));
    column = row_index = step = 0;
    steps = j->rows * j->columns;
    load_row();
  }

  inline void keep_packed(int64_t at, const Hot& h) {
    uint32_t* const word = line[(at % kLine) / kPerWord];
    _mm512_store_si512(word, h.packed0);
    _mm512_store_si512(word + 16, h.packed1);
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
    return hot.p == job->words_end && _mm512_cmpneq_epi32_mask(hot.x0, low) == 0 &&
           _mm512_cmpneq_epi32_mask(hot.x1, low) == 0;
  }

  // How many steps may run before the row ends, the line is full or the words could run out; 0: they could now.
  int64_t run_length() const {
    const int64_t room = (job->readable_end - hot.p) / kStepWords;
    return std::min({job->columns - column, kLine - step % kLine, room});
  }
};

// Runs Count blocks, 1 or 2, for `n` steps: within a row and a line of each.
template <bool Wide, bool Full, Mode M, int Count>
inline void run_steps(State<Wide>* s, int64_t n) {
  constexpr int per = State<Wide>::kPerWord;
  const Shuffles k;
  // Local copies, so that the compiler keeps them in registers.
  Hot a = s[0].hot, b = s[Count - 1].hot;
  const Row row_a = s[0].row, row_b = s[Count - 1].row;
  const int64_t column_a = s[0].column, column_b = s[Count - 1].column, step = s[0].step;
  for (int64_t i = 0; i < n; ++i) {
    decode_step<Wide, Full, M>(k, row_a, column_a + i, a);
    if constexpr (Count == 2) decode_step<Wide, Full, M>(k, row_b, column_b + i, b);
    if ((step + i + 1) % per == 0) {
      s[0].keep_packed(step + i, a);
      if constexpr (Count == 2) s[1].keep_packed(step + i, b);
    }
  }
  s[0].hot = a;
  if constexpr (Count == 2) s[1].hot = b;
}

// The last, incomplete element of a line: its symbols stand at the top and must come down.
template <bool Wide>
inline void keep_partial(State<Wide>* s) {
  constexpr int per = State<Wide>::kPerWord;
  const int missing = per - static_cast<int>(s->step % per);
  if (missing == per) return;
  const __m128i shift = _mm_cvtsi32_si128(missing * 32 / per);
  Hot h = s->hot;
  h.packed0 = _mm512_srl_epi32(h.packed0, shift);
  h.packed1 = _mm512_srl_epi32(h.packed1, shift);
  s->keep_packed(s->step, h);
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
template <bool Wide, Mode M, int Count>
void run_together(State<Wide>* s) {
  for (;;) {
    int64_t n = INT64_MAX;
    bool full = true;
    for (int b = 0; b < Count; ++b) {
      if (s[b].step == s[b].steps) return;
      n = std::min(n, s[b].run_length());
      full = full && s[b].row.active == ~__mmask32{0};
    }
    if (n == 0) return;
    if (full)
      run_steps<Wide, true, M, Count>(s, n);
    else
      run_steps<Wide, false, M, Count>(s, n);
    for (int b = 0; b < Count; ++b) after_steps(&s[b], n);
  }
}

// Near the end of readable memory the words are copied to where loads may run past them.
template <bool Wide, Mode M>
bool finish(State<Wide>* s) {
  run_together<Wide, M, 1>(s);
  if (s->step < s->steps) {
    // Fewer than kStepWords words are left in all: they, and zeros behind them.
    uint16_t tail[4 * kStepWords] = {};
    const uint16_t* const from = s->hot.p;
    const int64_t left = std::max<int64_t>(s->job->words_end - from, 0);
    if (left >= kStepWords) return false;
    std::memcpy(tail, from, static_cast<size_t>(left) * sizeof(uint16_t));
    s->hot.p = tail;
    while (s->step < s->steps) {
      if (s->hot.p > tail + left) return false;
      const int64_t n = std::min(s->job->columns - s->column, State<Wide>::kLine - s->step % State<Wide>::kLine);
      // One step at a time: each takes at most kStepWords, which the zeros allow for.
      const int64_t one = std::min<int64_t>(n, 1);
      run_steps<Wide, false, M, 1>(s, one);
      after_steps(s, one);
    }
    s->hot.p = from + (s->hot.p - tail);
  }
  return s->finished();
}

template <bool Wide, Mode M>
bool decode_pair(const BlockJob* jobs, int count) {
  State<Wide> s[2];
  for (int i = 0; i < count; ++i) s[i].start(&jobs[i]);
  if (count == 2) run_together<Wide, M, 2>(s);
  bool good = true;
  for (int i = 0; i < count; ++i) good = finish<Wide, M>(&s[i]) && good;
  return good;
}

template <bool Wide>
bool decode_blocks(const BlockJob* jobs, int count) {
  switch (jobs[0].mode) {
    case Mode::kOne:
      return decode_pair<Wide, Mode::kOne>(jobs, count);
    case Mode::kClasses:
      return decode_pair<Wide, Mode::kClasses>(jobs, count);
    default:
      return decode_pair<Wide, Mode::kContexts>(jobs, count);
  }
}

}  // namespace

Kernels kernels_avx512() { return {decode_blocks<false>, decode_blocks<true>}; }

}  // namespace toolkit::wide
#endif
