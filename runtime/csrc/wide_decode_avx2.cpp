// The AVX2 block decoder: the 32 states of a block in four registers.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "wide_kernels.h"
#include "wide_step.h"

namespace toolkit::wide {
namespace {

constexpr int kVectors = 4;         // of 8 lanes
constexpr int kLineBytes = 32;      // of each lane, between two transpositions
constexpr int64_t kStepWords = 72;  // a step's refills load below this from where the pointer stood

// For each set of lanes, where each takes its word from: the lanes of the set in order.
struct Spread {
  alignas(32) std::array<std::array<uint32_t, 8>, 256> index{};
  constexpr Spread() {
    for (uint32_t m = 0; m < 256; ++m) {
      uint32_t next = 0;
      for (uint32_t i = 0; i < 8; ++i)
        if (m >> i & 1) index[m][i] = next++;
    }
  }
};
constexpr Spread kSpread;

inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// 8 x 8 transposition of 32-bit elements.
inline void transpose8(__m256i r[8]) {
  __m256i t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
    t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
  }
  std::copy_n(t, 8, r);
}

// What a set says of each class, as the 32-bit elements that gathers load.
struct Classes {
  alignas(32) int32_t t1[kMaxClasses], t2[kMaxClasses];
  alignas(32) int32_t first_slot[kMaxClasses * kMaxContexts * kMaxQuantisers];  // of a class's tables
  __m256i top;                                                                  // classes - 1

  explicit Classes(const TableSet& set) : top(_mm256_set1_epi32(set.classes - 1)) {
    std::copy_n(set.t1, kMaxClasses, t1);
    std::copy_n(set.t2, kMaxClasses, t2);
    for (int place = 0; place < set.places(); ++place) first_slot[place] = set.map[place] * static_cast<int>(kSlots);
  }
};

// The states after symbols 0, 2, 4, ... and after 1, 3, 5, ..., by state (FORMAT.md 2.9).
struct Transitions {
  __m256i even, odd;

  Transitions() {
    alignas(32) int32_t next[2][8];
    for (int symbol = 0; symbol < 2; ++symbol)
      for (int state = 0; state < 8; ++state) next[symbol][state] = next_state(state, symbol);
    even = _mm256_load_si256(reinterpret_cast<const __m256i*>(next[0]));
    odd = _mm256_load_si256(reinterpret_cast<const __m256i*>(next[1]));
  }
};

// Class and thresholds of eight lanes.
struct Choice {
  __m256i y, t1, t2;
};

template <bool Wide>
struct State {
  static constexpr int kPerWord = Wide ? 2 : 4;
  static constexpr int kLine = kLineBytes / (Wide ? 2 : 1);

  const BlockJob* job;
  const uint16_t* p;
  __m256i x[kVectors], packed[kVectors], previous[kVectors], row[kVectors], active[kVectors];
  __m256i trellis[kVectors];  // states of trellis sets
  const Transitions transitions;
  // Where columns have no classes, the same for all steps of a row.
  Choice choice[kVectors];
  __m256i first[kVectors];  // slots, without contexts
  int64_t column = 0, row_index = 0, step = 0, steps;
  alignas(32) uint32_t line[kLineBytes / 4][kLanes];

  void load_row(const Classes& set) {
    const int lanes = row_index < job->last_rows ? job->lanes : job->lanes - 1;
    for (int v = 0; v < kVectors; ++v) {
      const auto* from = reinterpret_cast<const __m128i*>(job->row_class + row_index * job->row_step + 8 * v);
      row[v] = _mm256_cvtepi8_epi32(_mm_loadl_epi64(from));
      choice[v] = choose(set, v, _mm256_setzero_si256());
      first[v] = _mm256_i32gather_epi32(set.first_slot, choice[v].y, 4);
      previous[v] = trellis[v] = _mm256_setzero_si256();
      const __m256i lane = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(8 * v));
      active[v] = _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), lane);
    }
  }

  State(const BlockJob* j, const Classes& set) : job(j), p(j->words), steps(j->rows * j->columns) {
    alignas(32) uint32_t start[kLanes];
    for (int i = 0; i < kLanes; ++i) start[i] = i < j->lanes ? load_u32(j->states + 2 * i) : kStateLow;
    for (int v = 0; v < kVectors; ++v) {
      x[v] = load256(start + 8 * v);
      packed[v] = _mm256_setzero_si256();
    }
    load_row(set);
  }

  // FORMAT.md 2.6 step 5.
  inline void refill() {
    for (int v = 0; v < kVectors; ++v) {
      const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x[v], 16), _mm256_setzero_si256());
      const __m256i due = _mm256_and_si256(low, active[v]);
      const auto m = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(due)));
      const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      const __m256i spread = _mm256_permutevar8x32_epi32(words, load256(kSpread.index[m].data()));
      x[v] = _mm256_blendv_epi8(x[v], _mm256_or_si256(_mm256_slli_epi32(x[v], 16), spread), due);
      p += _mm_popcnt_u32(m);
    }
  }

  // The classes of the lanes of vector `v` in a column of class `col`.
  inline __m256i class_of(const Classes& set, int v, __m256i col) const {
    const __m256i zero = _mm256_setzero_si256();
    return _mm256_min_epi32(_mm256_max_epi32(_mm256_add_epi32(row[v], col), zero), set.top);
  }

  // Places of a set from those that it would have with one quantiser.
  inline __m256i under_quantiser(int v, __m256i places) const {
    return _mm256_add_epi32(_mm256_slli_epi32(places, 1), _mm256_and_si256(trellis[v], _mm256_set1_epi32(1)));
  }

  // The choice of the lanes of vector `v` in a column of class `col`.
  inline Choice choose(const Classes& set, int v, __m256i col) const {
    const __m256i y = class_of(set, v, col);
    return {y, _mm256_i32gather_epi32(set.t1, y, 4), _mm256_i32gather_epi32(set.t2, y, 4)};
  }

  // The integers that symbols of the lanes of vector `v` stand for, and the states after them.
  inline __m256i reconstruct_symbols(int v, __m256i symbols) {
    const __m256i quantiser = _mm256_and_si256(trellis[v], _mm256_set1_epi32(1));
    const __m256i is_odd = _mm256_slli_epi32(symbols, 31);
    const __m256i even = _mm256_permutevar8x32_epi32(transitions.even, trellis[v]);
    const __m256i odd = _mm256_permutevar8x32_epi32(transitions.odd, trellis[v]);
    trellis[v] = _mm256_castps_si256(
        _mm256_blendv_ps(_mm256_castsi256_ps(even), _mm256_castsi256_ps(odd), _mm256_castsi256_ps(is_odd)));
    return _mm256_sub_epi32(_mm256_slli_epi32(symbols, 1), _mm256_sign_epi32(quantiser, symbols));
  }

  template <Mode M, bool Columns>
  inline void decode_step(int64_t c, const Classes& set) {
    const __m256i low12 = _mm256_set1_epi32(0xfff);
    const auto* const slots = reinterpret_cast<const int*>(job->set->slots);
    __m256i entry[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      __m256i at = first[v];
      if constexpr (has_contexts(M)) {
        const Choice chosen = Columns ? choose(set, v, _mm256_set1_epi32(job->col_class[c])) : choice[v];
        const __m256i magnitude = _mm256_abs_epi32(previous[v]);
        const __m256i below1 = _mm256_cmpgt_epi32(chosen.t1, magnitude);
        const __m256i below2 = _mm256_cmpgt_epi32(chosen.t2, magnitude);
        // Comparisons are 0 or -1: 2 + below1 + below2 thresholds are reached.
        const __m256i two = _mm256_set1_epi32(2);
        const __m256i bin = _mm256_add_epi32(two, _mm256_add_epi32(below1, below2));
        const __m256i five = _mm256_add_epi32(chosen.y, _mm256_slli_epi32(chosen.y, 2));
        __m256i place = _mm256_add_epi32(_mm256_add_epi32(five, two), _mm256_sign_epi32(bin, previous[v]));
        if constexpr (is_trellis(M)) place = under_quantiser(v, place);
        at = _mm256_i32gather_epi32(set.first_slot, place, 4);
      } else if constexpr (Columns || is_trellis(M)) {
        __m256i place = Columns ? class_of(set, v, _mm256_set1_epi32(job->col_class[c])) : choice[v].y;
        if constexpr (is_trellis(M)) place = under_quantiser(v, place);
        at = _mm256_i32gather_epi32(set.first_slot, place, 4);
      }
      entry[v] = _mm256_i32gather_epi32(slots, _mm256_or_si256(at, _mm256_and_si256(x[v], low12)), 4);
    }
    for (int v = 0; v < kVectors; ++v) {
      // x' = f * (x >> 12) + bias
      const __m256i f = _mm256_and_si256(_mm256_srli_epi32(entry[v], 8), low12);
      const __m256i next = _mm256_add_epi32(_mm256_mullo_epi32(f, _mm256_srli_epi32(x[v], kProbabilityBits)),
                                            _mm256_srli_epi32(entry[v], 20));
      x[v] = _mm256_blendv_epi8(x[v], next, active[v]);
      previous[v] = _mm256_srai_epi32(_mm256_slli_epi32(entry[v], 24), 24);
    }
    refill();
    if constexpr (Wide) {
      const __m128i n = _mm_cvtsi32_si128(job->low_bits);
      const __m256i mask = _mm256_set1_epi32((1 << job->low_bits) - 1);
      for (int v = 0; v < kVectors; ++v) {
        __m256i symbol = _mm256_or_si256(_mm256_sll_epi32(previous[v], n), _mm256_and_si256(x[v], mask));
        if constexpr (is_trellis(M)) symbol = reconstruct_symbols(v, symbol);
        x[v] = _mm256_blendv_epi8(x[v], _mm256_srl_epi32(x[v], n), active[v]);
        packed[v] = _mm256_or_si256(_mm256_srli_epi32(packed[v], 16), _mm256_slli_epi32(symbol, 16));
      }
      refill();
    } else {
      for (int v = 0; v < kVectors; ++v) {
        const __m256i symbol = is_trellis(M) ? reconstruct_symbols(v, previous[v]) : entry[v];
        packed[v] = _mm256_or_si256(_mm256_srli_epi32(packed[v], 8), _mm256_slli_epi32(symbol, 24));
      }
    }
  }

  // Symbols stand in `packed` with the newest on top: `missing` younger ones have not come.
  void keep_packed(int64_t at, int missing) {
    const __m128i shift = _mm_cvtsi32_si128(missing * 32 / kPerWord);
    for (int v = 0; v < kVectors; ++v) {
      auto* const to = reinterpret_cast<__m256i*>(line[at % kLine / kPerWord] + 8 * v);
      _mm256_store_si256(to, _mm256_srl_epi32(packed[v], shift));
    }
  }

  // Writes the last `count` symbols of every lane, up to its symbol `step - 1`.
  void flush(int64_t count) {
    constexpr int64_t size = Wide ? 2 : 1;
    const int64_t first = step - count, last_length = job->last_rows * job->columns;
    for (int v = 0; v < kVectors; ++v) {
      __m256i r[8];
      for (int i = 0; i < 8; ++i) r[i] = load256(line[i] + 8 * v);
      transpose8(r);
      for (int i = 0; i < 8; ++i) {
        const int lane = 8 * v + i;
        if (lane >= job->lanes) return;
        char* const to = static_cast<char*>(job->out) + (lane * job->lane_stride + first) * size;
        int64_t n = count;
        if (lane == job->lanes - 1) n = std::min(n, last_length - first);
        if (n == kLine)
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), r[i]);
        else if (n > 0)
          std::memcpy(to, &r[i], static_cast<size_t>(n * size));
      }
    }
  }

  // Runs up to `n` steps within the row and the line.
  template <Mode M, bool Columns>
  void run(int64_t n, const Classes& set) {
    for (int64_t i = 0; i < n; ++i) {
      decode_step<M, Columns>(column++, set);
      if (++step % kPerWord == 0) keep_packed(step - 1, 0);
    }
    if (step % kLine == 0) {
      flush(kLine);
    } else if (step == steps) {
      if (step % kPerWord) keep_packed(step, kPerWord - static_cast<int>(step % kPerWord));
      flush(step % kLine);
    }
    if (column == job->columns && step < steps) {
      column = 0;
      ++row_index;
      load_row(set);
    }
  }

  int64_t run_length() const { return std::min(job->columns - column, kLine - step % kLine); }
};

template <bool Wide, Mode M, bool Columns>
bool decode_block(const BlockJob& job) {
  const Classes set(*job.set);
  State<Wide> s(&job, set);
  while (s.step < s.steps) {
    const int64_t n = std::min(s.run_length(), (job.readable_end - s.p) / kStepWords);
    if (n == 0) break;
    s.template run<M, Columns>(n, set);
  }
  if (s.step < s.steps) {
    // Fewer words are left than a step may load: they go where zeros follow them.
    uint16_t tail[4 * kStepWords] = {};
    const uint16_t* const from = s.p;
    const int64_t left = std::max<int64_t>(job.words_end - from, 0);
    std::memcpy(tail, from, static_cast<size_t>(std::min(left, kStepWords)) * sizeof(uint16_t));
    s.p = tail;
    while (s.step < s.steps) {
      if (s.p > tail + left) return false;
      s.template run<M, Columns>(1, set);
    }
    s.p = from + (s.p - tail);
  }
  if (s.p != job.words_end) return false;
  const __m256i end = _mm256_set1_epi32(static_cast<int>(kStateLow));
  for (int v = 0; v < kVectors; ++v)
    if (_mm256_movemask_epi8(_mm256_cmpeq_epi32(s.x[v], end)) != -1) return false;
  return true;
}

template <bool Wide, bool Columns>
bool decode_in_mode(const BlockJob& job) {
  switch (job.mode) {
    case Mode::kTrellisContexts:
      return decode_block<Wide, Mode::kTrellisContexts, Columns>(job);
    case Mode::kTrellis:
      return decode_block<Wide, Mode::kTrellis, Columns>(job);
    case Mode::kContexts:
      return decode_block<Wide, Mode::kContexts, Columns>(job);
    default:
      return decode_block<Wide, Mode::kClasses, Columns>(job);
  }
}

template <bool Wide>
bool decode_blocks(int, const NextJob& next) {
  BlockJob job;
  while (next(0, &job))
    if (!(job.col_class ? decode_in_mode<Wide, true>(job) : decode_in_mode<Wide, false>(job))) return false;
  return true;
}

}  // namespace

Kernels kernels_avx2() { return {decode_blocks<false>, decode_blocks<true>}; }

}  // namespace toolkit::wide
#endif
