// AVX-512: the table of each of 32 lanes by class, context and quantiser, and the integers of trellis sets.
// SPDX-License-Identifier: Apache-2.0
#ifndef TOOLKIT_WIDE_AVX512_CHOICE_H
#define TOOLKIT_WIDE_AVX512_CHOICE_H

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "wide_kernels.h"
#include "wide_step.h"

// Everything within a step must be inlined, or states leave their registers; compilers stop short of it.
#if defined(__GNUC__)
#define TK_INLINE inline __attribute__((always_inline))
#else
#define TK_INLINE inline
#endif

namespace toolkit::wide {
namespace {

TK_INLINE __m512i load512(const void* p) { return _mm512_loadu_si512(p); }

// Whether a lane's table depends on the symbol before.
inline constexpr bool has_history(Mode mode) { return has_contexts(mode) || is_trellis(mode); }

// What a set says of each of its 64 classes, bytes for permutations.
struct Classes {
  __m512i tables[kMaxContexts];  // number of the table, by context
  __m512i others[kMaxContexts];  // the same for quantiser 1 of trellis sets
  __m512i t1, t2;
  __m256i top;  // classes - 1
};

// What the classes of 32 lanes stand for, unsigned bytes: in trellis sets the upper 32 bytes are those for quantiser 1,
// elsewhere only the lower ones count.
struct Choice {
  __m512i tables[kMaxContexts];  // without contexts, only the first
  __m512i t1, t2;
};

// `map`: the number of the table at each place of the set.
inline Classes load_classes(const TableSet& set, const uint8_t* map) {
  alignas(64) uint8_t tables[kMaxQuantisers][kMaxContexts][kMaxClasses] = {};
  for (int y = 0; y < set.classes; ++y)
    for (int z = 0; z < set.contexts; ++z)
      for (int q = 0; q < set.quantisers; ++q) tables[q][z][y] = map[set.place_of(y, z, q)];
  Classes classes;
  for (int z = 0; z < kMaxContexts; ++z) {
    classes.tables[z] = load512(tables[0][z]);
    classes.others[z] = load512(tables[1][z]);
  }
  classes.t1 = load512(set.t1);
  classes.t2 = load512(set.t2);
  classes.top = _mm256_set1_epi8(static_cast<int8_t>(set.classes - 1));
  return classes;
}

TK_INLINE __m256i lower_half(__m512i x) { return _mm512_castsi512_si256(x); }
TK_INLINE __m256i upper_half(__m512i x) { return _mm512_extracti64x4_epi64(x, 1); }

// Elements `i` of two tables of 64 bytes each.
TK_INLINE void look_up(__m512i i, __m512i a, __m512i b, __m512i* from_a, __m512i* from_b) {
  *from_a = _mm512_permutex2var_epi8(a, i, b);
  *from_b = _mm512_castsi256_si512(upper_half(*from_a));
}

// The choice of lanes of row class `row` in a column of class `col`, int8 each.
template <Mode M>
TK_INLINE Choice choose(const Classes& set, __m256i row, __m256i col) {
  // Saturation keeps what the limits make of it.
  __m256i y = _mm256_adds_epi8(row, col);
  y = _mm256_min_epi8(_mm256_max_epi8(y, _mm256_setzero_si256()), set.top);
  Choice choice;
  if constexpr (M == Mode::kClasses || M == Mode::kOne) {
    choice.tables[0] = _mm512_permutexvar_epi8(_mm512_castsi256_si512(y), set.tables[0]);
    return choice;
  }
  // The same classes twice: in a first table, and in a second one, which begins at 64.
  const __m512i second = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(64), 1);
  const __m512i twice = _mm512_or_si512(_mm512_broadcast_i64x4(y), second);
  if constexpr (M == Mode::kContexts) {
    look_up(twice, set.tables[0], set.tables[1], &choice.tables[0], &choice.tables[1]);
    look_up(twice, set.tables[3], set.tables[4], &choice.tables[3], &choice.tables[4]);
    look_up(twice, set.t1, set.t2, &choice.t1, &choice.t2);
    choice.tables[2] = _mm512_permutexvar_epi8(twice, set.tables[2]);
  } else {
    constexpr int contexts = has_contexts(M) ? kMaxContexts : 1;
    for (int z = 0; z < contexts; ++z) choice.tables[z] = _mm512_permutex2var_epi8(set.tables[z], twice, set.others[z]);
    if constexpr (has_contexts(M)) {
      choice.t1 = _mm512_permutexvar_epi8(twice, set.t1);
      choice.t2 = _mm512_permutexvar_epi8(twice, set.t2);
    }
  }
  return choice;
}

inline Choice choose_row(Mode mode, const Classes& set, __m256i row) {
  const __m256i none = _mm256_setzero_si256();
  switch (mode) {
    case Mode::kTrellisContexts:
      return choose<Mode::kTrellisContexts>(set, row, none);
    case Mode::kTrellis:
      return choose<Mode::kTrellis>(set, row, none);
    case Mode::kContexts:
      return choose<Mode::kContexts>(set, row, none);
    default:
      return choose<Mode::kClasses>(set, row, none);
  }
}

// The table of each lane after symbol `v`, FORMAT.md 2.6 step 3. `trellis`: its state in trellis sets.
template <Mode M>
TK_INLINE __m256i table_after(const Choice& choice, __m256i v, __m256i trellis) {
  const __m512i* const tables = choice.tables;
  __m512i found = tables[0];
  if constexpr (M == Mode::kContexts) {
    const __m256i magnitude = _mm256_abs_epi8(v);
    const __mmask32 one = _mm256_cmpge_epu8_mask(magnitude, lower_half(choice.t1)),
                    two = _mm256_cmpge_epu8_mask(magnitude, lower_half(choice.t2));
    const __mmask32 negative = _mm256_movepi8_mask(v);
    const auto blend = [](__m256i a, __mmask32 mask, __m512i b) {
      return _mm256_mask_mov_epi8(a, mask, lower_half(b));
    };
    const __m256i near = blend(lower_half(tables[3]), negative, tables[1]);
    const __m256i far = blend(lower_half(tables[4]), negative, tables[0]);
    const __m256i some = _mm256_mask_mov_epi8(lower_half(tables[2]), one, near);
    return _mm256_mask_mov_epi8(some, two, far);
  } else if constexpr (has_contexts(M)) {
    const __m512i twice = _mm512_broadcast_i64x4(v), magnitude = _mm512_abs_epi8(twice);
    const __mmask64 one = _mm512_cmpge_epu8_mask(magnitude, choice.t1),
                    two = _mm512_cmpge_epu8_mask(magnitude, choice.t2);
    const __mmask64 negative = _mm512_movepi8_mask(twice);
    const __m512i near = _mm512_mask_mov_epi8(tables[3], negative, tables[1]);
    const __m512i far = _mm512_mask_mov_epi8(tables[4], negative, tables[0]);
    found = _mm512_mask_mov_epi8(_mm512_mask_mov_epi8(tables[2], one, near), two, far);
  }
  if constexpr (is_trellis(M))
    return _mm256_mask_mov_epi8(lower_half(found), _mm256_movepi8_mask(trellis), upper_half(found));
  return lower_half(found);
}

struct Transitions {
  alignas(32) uint8_t next[32] = {};
  constexpr Transitions() {
    for (int i = 0; i < 32; ++i) {
      const int state = next_state(i % 8, i / 8);
      next[i] = static_cast<uint8_t>(state | (state & 1) << 7);
    }
  }
};
inline constexpr Transitions kTransitionTable;

// The table of next_states: by bits 0 to 2 a state and bit 3 on whether the symbol is odd, the state after it; the
// highest bit of that says the quantiser.
TK_INLINE __m256i transition_table() {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(kTransitionTable.next));
}

// The states after symbols of 8 bits, or the low bytes of longer ones.
TK_INLINE __m256i next_states(__m256i transitions, __m256i states, __m256i symbols) {
  // Bits 0 to 2 of the states, all others of the shifted symbols; the look-up ignores all above bit 4.
  const __m256i low3 = _mm256_set1_epi8(7);
  const __m256i index = _mm256_ternarylogic_epi32(low3, states, _mm256_slli_epi16(symbols, 3), 0xca);
  return _mm256_permutexvar_epi8(index, transitions);
}

// The integers that symbols stand for (FORMAT.md 2.9).
TK_INLINE __m256i integers_of(__m256i states, __m256i symbols) {
  const __m256i quantiser = _mm256_and_si256(states, _mm256_set1_epi8(1));
  return _mm256_sub_epi8(_mm256_add_epi8(symbols, symbols), _mm256_sign_epi8(quantiser, symbols));
}

// The same for 32 symbols of 16 bits.
TK_INLINE __m512i wide_integers_of(__m256i states, __m512i symbols) {
  const __mmask32 odd = _mm256_movepi8_mask(states);
  const __m512i one = _mm512_set1_epi16(1);
  const __mmask32 negative = _mm512_mask_cmplt_epi16_mask(odd, symbols, _mm512_setzero_si512());
  const __mmask32 positive = _mm512_mask_cmpgt_epi16_mask(odd, symbols, _mm512_setzero_si512());
  const __m512i even = _mm512_add_epi16(symbols, symbols);
  return _mm512_mask_add_epi16(_mm512_mask_sub_epi16(even, positive, even, one), negative, even, one);
}

}  // namespace
}  // namespace toolkit::wide

#endif  // TOOLKIT_WIDE_AVX512_CHOICE_H
