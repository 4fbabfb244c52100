// The AVX-512 block decoder: the 32 states of a block in two registers, four blocks side by side; symbols are gathered
// from tables of slots.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include "wide_avx512_block.h"
#include "wide_search_avx512.h"

namespace toolkit::wide {
namespace {

// Index vectors of the shuffles, in memory and in registers.
struct ShuffleTables {
  alignas(64) uint16_t even[32] = {}, odd[32] = {}, spread0[32] = {}, spread1[32] = {};
  alignas(64) uint8_t table0[64] = {}, table1[64] = {}, symbols[64] = {};

  constexpr ShuffleTables() {
    for (int i = 0; i < 32; ++i) {
      even[i] = static_cast<uint16_t>(2 * i);
      odd[i] = static_cast<uint16_t>(2 * i + 1);
      spread0[i] = static_cast<uint16_t>(i / 2);
      spread1[i] = static_cast<uint16_t>(16 + i / 2);
    }
    for (int i = 0; i < 64; ++i) {
      table0[i] = static_cast<uint8_t>(i / 4);
      table1[i] = static_cast<uint8_t>(16 + i / 4);
      symbols[i] = static_cast<uint8_t>(4 * (i % 32));
    }
  }
};
constexpr ShuffleTables kShuffles;

template <bool Wide>
struct GatherCore {
  static constexpr bool kWide = Wide;
  static constexpr int kSeats = 4;

  struct Constants {
    __m512i even = load512(kShuffles.even);        // 16-bit elements 0, 2, 4, ... of two registers,
    __m512i odd = load512(kShuffles.odd);          // or 1, 3, 5, ...
    __m512i spread0 = load512(kShuffles.spread0);  // 16-bit element 2 i + 1 takes element i,
    __m512i spread1 = load512(kShuffles.spread1);  // or 16 + i
    __m512i table0 = load512(kShuffles.table0);    // byte 1 of 32-bit element i takes byte i,
    __m512i table1 = load512(kShuffles.table1);    // or 16 + i
    __m512i symbols = load512(kShuffles.symbols);  // byte 0 of every 32-bit element of two registers
    __m256i transitions = transition_table();
  };

  struct Hot : HotBase {
    __m512i x0, x1;  // states of lanes 0-15 and 16-31
  };

  struct Row : RowBase {
    const uint32_t* slots;
    __m512i at0, at1;  // first slots of lanes 0-15 and 16-31, where neither columns nor contexts change them
  };

  static const uint8_t* map_of(const BlockJob& job) { return job.set->map; }
  static void start(const BlockJob& job, Row* row) { row->slots = job.set->slots; }

  static TK_INLINE void start_row(Row* row) {
    first_slots(Constants(), lower_half(row->choice.tables[0]), &row->at0, &row->at1);
  }

  static void load_states(const uint32_t* x, Hot* h) {
    h->x0 = load512(x);
    h->x1 = load512(x + 16);
  }

  // The lanes whose states are those of the end.
  static __mmask32 resting(const Hot& h) {
    const __m512i low = _mm512_set1_epi32(static_cast<int>(kStateLow));
    return _cvtu32_mask32(_mm512_cmpeq_epi32_mask(h.x0, low) | uint32_t{_mm512_cmpeq_epi32_mask(h.x1, low)} << 16);
  }

  // Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
  static TK_INLINE void refill(const Constants& k, __mmask32 mask, Hot& h) {
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

  // The first slots of lanes 0-15 and 16-31.
  static TK_INLINE void first_slots(const Constants& k, __m256i tables, __m512i* at0, __m512i* at1) {
    constexpr __mmask64 second_bytes = 0x2222222222222222;
    const __m512i t = _mm512_castsi256_si512(tables);
    *at0 = _mm512_slli_epi32(_mm512_maskz_permutexvar_epi8(second_bytes, k.table0, t), 4);
    *at1 = _mm512_slli_epi32(_mm512_maskz_permutexvar_epi8(second_bytes, k.table1, t), 4);
  }

  // One step of all active lanes of Count seats. `Columns`: columns have classes. The symbols of all lanes, of trellis
  // sets the integers, go to the line.
  template <Mode M, bool Columns, int Count>
  static TK_INLINE void step(const Constants& k, Seat<GatherCore>* s, Hot* hot, int64_t c, int64_t at) {
    const __m512i low12 = _mm512_set1_epi32(0xfff);
    __m512i e0[Count], e1[Count];
    for (int i = 0; i < Count; ++i) {
      const Row& r = s[i].row;
      Hot& h = hot[i];
      __m512i at0 = r.at0, at1 = r.at1;
      if constexpr (has_history(M) || Columns) first_slots(k, table_in_step<M, Columns>(s[i], h, c), &at0, &at1);
      // at | (x & low12)
      const __m512i i0 = _mm512_ternarylogic_epi32(at0, h.x0, low12, 0xf8);
      const __m512i i1 = _mm512_ternarylogic_epi32(at1, h.x1, low12, 0xf8);
      e0[i] = _mm512_i32gather_epi32(i0, r.slots, 4);
      e1[i] = _mm512_i32gather_epi32(i1, r.slots, 4);
    }
    for (int i = 0; i < Count; ++i) {
      // x' = f * (x >> 12) + bias
      const auto advance = [&](__m512i x, __m512i e) {
        const __m512i f = _mm512_and_si512(_mm512_srli_epi32(e, 8), low12);
        return _mm512_add_epi32(_mm512_mullo_epi32(f, _mm512_srli_epi32(x, kProbabilityBits)),
                                _mm512_srli_epi32(e, 20));
      };
      hot[i].x0 = advance(hot[i].x0, e0[i]);
      hot[i].x1 = advance(hot[i].x1, e1[i]);
    }
    for (int i = 0; i < Count; ++i) {
      const Row& r = s[i].row;
      Hot& h = hot[i];
      refill(k, r.active, h);
      char* const to = s[i].line.steps + at * Line<Wide>::kStepBytes;
      const __m256i symbols = _mm512_castsi512_si256(_mm512_permutex2var_epi8(e0[i], k.symbols, e1[i]));
      if constexpr (has_contexts(M)) h.previous = symbols;
      if constexpr (!Wide) {
        const __m256i values = is_trellis(M) ? integers_of(h.trellis, symbols) : symbols;
        _mm256_store_si256(reinterpret_cast<__m256i*>(to), values);
        if constexpr (is_trellis(M)) h.trellis = next_states(k.transitions, h.trellis, symbols);
      } else {
        __m512i values = _mm512_cvtepi8_epi16(symbols);
        if (r.low_bits) {
          const __m128i n = _mm_cvtsi32_si128(r.low_bits);
          const __m512i mask = _mm512_set1_epi32((1 << r.low_bits) - 1);
          const __m512i raw =
              _mm512_permutex2var_epi16(_mm512_and_si512(h.x0, mask), k.even, _mm512_and_si512(h.x1, mask));
          values = _mm512_or_si512(_mm512_sll_epi16(values, n), raw);
          h.x0 = _mm512_srl_epi32(h.x0, n);
          h.x1 = _mm512_srl_epi32(h.x1, n);
          refill(k, r.active, h);
        }
        if constexpr (is_trellis(M)) {
          _mm512_store_si512(to, wide_integers_of(h.trellis, values));
          h.trellis = next_states(k.transitions, h.trellis, _mm512_cvtepi16_epi8(values));
        } else {
          _mm512_store_si512(to, values);
        }
      }
    }
  }
};

template <bool Wide>
bool decode_blocks(int seats, const NextJob& next) {
  BlockJob first;
  if (!next(0, &first)) return true;
  if (first.tree || first.forest) return search_blocks_avx512(Wide, first, seats, next);
  return decode_in_any_mode<GatherCore<Wide>>(first, seats, next);
}

}  // namespace

Kernels kernels_avx512() { return {decode_blocks<false>, decode_blocks<true>}; }

}  // namespace toolkit::wide
#endif
