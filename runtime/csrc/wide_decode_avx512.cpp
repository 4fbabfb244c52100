// The AVX-512 block decoder: the 32 states of a block in two registers, two blocks side by side.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>

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

// Steps between two transpositions: 64 symbols of 8 bits, or 32 of 16, fill a cache line of each lane.
constexpr int kLineBytes = 64;
// A step loads at most 64 words (32 for the symbol, 32 for raw bits) from where the pointer stands.
constexpr int64_t kStepWords = 64;

TK_INLINE __m512i load512(const void* p) { return _mm512_loadu_si512(p); }

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

// Index vectors of the shuffles, in memory and in registers.
struct ShuffleTables {
  alignas(64) uint16_t odd[32] = {}, spread0[32] = {}, spread1[32] = {};
  alignas(64) uint8_t table0[64] = {}, table1[64] = {}, symbols[64] = {};
  alignas(64) uint8_t bytes0[64] = {}, bytes1[64] = {}, transitions[32] = {};
  alignas(64) uint16_t words0[32] = {}, words1[32] = {};

  constexpr ShuffleTables() {
    for (int i = 0; i < 32; ++i) {
      odd[i] = static_cast<uint16_t>(2 * i + 1);
      spread0[i] = static_cast<uint16_t>(i / 2);
      spread1[i] = static_cast<uint16_t>(16 + i / 2);
      words0[i] = static_cast<uint16_t>(i % 2 * 32 + i / 2);
      words1[i] = static_cast<uint16_t>(words0[i] + 16);
      const int next = next_state(i % 8, i / 8);
      transitions[i] = static_cast<uint8_t>(next | (next & 1) << 7);
    }
    for (int i = 0; i < 64; ++i) {
      table0[i] = static_cast<uint8_t>(i / 4);
      table1[i] = static_cast<uint8_t>(16 + i / 4);
      symbols[i] = static_cast<uint8_t>(4 * (i % 32));
      bytes0[i] = static_cast<uint8_t>(i % 4 * 32 + i / 4);
      bytes1[i] = static_cast<uint8_t>(bytes0[i] + 16);
    }
  }
};
constexpr ShuffleTables kShuffles;

struct Shuffles {
  __m512i odd = load512(kShuffles.odd);          // 16-bit elements 1, 3, 5, ... of two registers
  __m512i spread0 = load512(kShuffles.spread0);  // 16-bit element 2 i + 1 takes element i,
  __m512i spread1 = load512(kShuffles.spread1);  // or 16 + i
  __m512i table0 = load512(kShuffles.table0);    // byte 1 of 32-bit element i takes byte i,
  __m512i table1 = load512(kShuffles.table1);    // or 16 + i
  __m512i symbols = load512(kShuffles.symbols);  // byte 0 of every 32-bit element of two registers
  // Trellis sets: by byte 0 to 2 a state and bit 3 on whether the symbol is odd, the state after it; the highest bit of
  // that says the quantiser.
  __m256i transitions = _mm256_load_si256(reinterpret_cast<const __m256i*>(kShuffles.transitions));
};

// What changes at every step, kept in registers while a run of steps lasts.
struct Hot {
  const uint16_t* p;
  __m512i x0, x1;            // states of lanes 0-15 and 16-31
  __m512i packed0, packed1;  // the last symbols of each lane, newest on top
  __m256i previous;          // 32 x int8, previous symbols
  __m256i trellis;           // 32 x int8, states of trellis sets; the highest bit says the quantiser
};

// What a set says of each of its 64 classes, bytes for permutations.
struct Classes {
  __m512i tables[kMaxContexts];  // number of the table, by context
  __m512i others[kMaxContexts];  // the same for quantiser 1 of trellis sets
  __m512i t1, t2;
  __m256i top;  // classes - 1
};

// What the classes of 32 lanes stand for, unsigned bytes.
struct Choice {
  __m256i tables[kMaxContexts];  // without contexts, only the first
  __m256i others[kMaxContexts];  // for quantiser 1 of trellis sets
  __m256i t1, t2;
};

// What a run of steps within a row does not change.
struct Row {
  const uint32_t* slots;
  const int8_t* col_class;
  __m256i classes;   // 32 x int8, row classes
  Choice choice;     // of all steps, where columns have no classes
  __m512i at0, at1;  // first slots of lanes 0-15 and 16-31: likewise, and without contexts
  __mmask32 active;
  int low_bits;
};

// Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
TK_INLINE void refill(const Shuffles& k, __mmask32 mask, Hot& h) {
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

// Elements `i` of two tables of 64 bytes each.
TK_INLINE void look_up(__m512i i, __m512i a, __m512i b, __m256i* from_a, __m256i* from_b) {
  const __m512i found = _mm512_permutex2var_epi8(a, i, b);
  *from_a = _mm512_castsi512_si256(found);
  *from_b = _mm512_extracti64x4_epi64(found, 1);
}

// The choice of lanes of row class `row` in a column of class `col`, int8 each.
template <Mode M>
TK_INLINE Choice choose(const Classes& set, __m256i row, __m256i col) {
  // Saturation keeps what the limits make of it.
  __m256i y = _mm256_adds_epi8(row, col);
  y = _mm256_min_epi8(_mm256_max_epi8(y, _mm256_setzero_si256()), set.top);
  Choice choice;
  if constexpr (M == Mode::kContexts) {
    // The same classes twice: in the first table, and in the second one, which begins at 64.
    const __m512i twice = _mm512_inserti64x4(_mm512_castsi256_si512(y), _mm256_or_si256(y, _mm256_set1_epi8(64)), 1);
    look_up(twice, set.tables[0], set.tables[1], &choice.tables[0], &choice.tables[1]);
    look_up(twice, set.tables[3], set.tables[4], &choice.tables[3], &choice.tables[4]);
    look_up(twice, set.t1, set.t2, &choice.t1, &choice.t2);
    choice.tables[2] = _mm512_castsi512_si256(_mm512_permutexvar_epi8(_mm512_castsi256_si512(y), set.tables[2]));
  } else if constexpr (M == Mode::kTrellis) {
    const __m512i twice = _mm512_inserti64x4(_mm512_castsi256_si512(y), _mm256_or_si256(y, _mm256_set1_epi8(64)), 1);
    for (int z = 0; z < kMaxContexts; ++z)
      look_up(twice, set.tables[z], set.others[z], &choice.tables[z], &choice.others[z]);
    look_up(twice, set.t1, set.t2, &choice.t1, &choice.t2);
  } else {
    choice.tables[0] = _mm512_castsi512_si256(_mm512_permutexvar_epi8(_mm512_castsi256_si512(y), set.tables[0]));
  }
  return choice;
}

// The table of each lane after symbol `v`, FORMAT.md 2.6 step 3. `trellis`: its state in trellis sets.
template <Mode M>
TK_INLINE __m256i in_context(const Choice& choice, __m256i v, __m256i trellis) {
  const __m256i magnitude = _mm256_abs_epi8(v);
  const __mmask32 one = _mm256_cmpge_epu8_mask(magnitude, choice.t1),
                  two = _mm256_cmpge_epu8_mask(magnitude, choice.t2);
  const __mmask32 negative = _mm256_movepi8_mask(v);
  const auto among = [=](const __m256i* tables) {
    const __m256i near = _mm256_mask_mov_epi8(tables[3], negative, tables[1]);
    const __m256i far = _mm256_mask_mov_epi8(tables[4], negative, tables[0]);
    return _mm256_mask_mov_epi8(_mm256_mask_mov_epi8(tables[2], one, near), two, far);
  };
  if constexpr (M == Mode::kTrellis)
    return _mm256_mask_mov_epi8(among(choice.tables), _mm256_movepi8_mask(trellis), among(choice.others));
  return among(choice.tables);
}

// The first slots of lanes 0-15 and 16-31.
TK_INLINE void first_slots(const Shuffles& k, __m256i tables, __m512i* at0, __m512i* at1) {
  constexpr __mmask64 second_bytes = 0x2222222222222222;
  const __m512i t = _mm512_castsi256_si512(tables);
  *at0 = _mm512_slli_epi32(_mm512_maskz_permutexvar_epi8(second_bytes, k.table0, t), 4);
  *at1 = _mm512_slli_epi32(_mm512_maskz_permutexvar_epi8(second_bytes, k.table1, t), 4);
}

// The states after symbols of 8 bits, or the low bytes of longer ones.
TK_INLINE __m256i next_states(const Shuffles& k, __m256i states, __m256i symbols) {
  // Bits 0 to 2 of the states, all others of the shifted symbols; the look-up ignores all above bit 4.
  const __m256i low3 = _mm256_set1_epi8(7);
  const __m256i index = _mm256_ternarylogic_epi32(low3, states, _mm256_slli_epi16(symbols, 3), 0xca);
  return _mm256_permutexvar_epi8(index, k.transitions);
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

// One step of all active lanes. `Full`: every lane is active. `Columns`: columns have classes. Symbols go on top of
// h.packed0 and h.packed1, those of trellis sets to `to`, the integers of all lanes in a row.
template <bool Wide, bool Full, Mode M, bool Columns>
TK_INLINE void decode_step(const Shuffles& k, const Classes& set, const Row& r, int64_t c, Hot& h, void* to) {
  constexpr bool kContextual = M == Mode::kContexts || M == Mode::kTrellis;
  const __m512i low12 = _mm512_set1_epi32(0xfff);
  __m512i at0 = r.at0, at1 = r.at1;
  if constexpr (kContextual || Columns) {
    Choice choice = r.choice;
    if constexpr (Columns) choice = choose<M>(set, r.classes, _mm256_set1_epi8(r.col_class[c]));
    if constexpr (kContextual)
      first_slots(k, in_context<M>(choice, h.previous, h.trellis), &at0, &at1);
    else
      first_slots(k, choice.tables[0], &at0, &at1);
  }
  // at | (x & low12)
  const __m512i i0 = _mm512_ternarylogic_epi32(at0, h.x0, low12, 0xf8);
  const __m512i i1 = _mm512_ternarylogic_epi32(at1, h.x1, low12, 0xf8);
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
  if constexpr (!Wide && M != Mode::kTrellis) {
    // packed >> 8 | symbol << 24
    h.packed0 = _mm512_shrdi_epi32(h.packed0, e0, 8);
    h.packed1 = _mm512_shrdi_epi32(h.packed1, e1, 8);
  }
  if constexpr (kContextual) h.previous = _mm512_castsi512_si256(_mm512_permutex2var_epi8(e0, k.symbols, e1));
  if constexpr (!Wide && M == Mode::kTrellis) {
    _mm256_store_si256(static_cast<__m256i*>(to), integers_of(h.trellis, h.previous));
    h.trellis = next_states(k, h.trellis, h.previous);
  }
  if constexpr (Wide) {
    __m512i s0 = _mm512_srai_epi32(_mm512_slli_epi32(e0, 24), 24);
    __m512i s1 = _mm512_srai_epi32(_mm512_slli_epi32(e1, 24), 24);
    if (r.low_bits) {
      const __m128i n = _mm_cvtsi32_si128(r.low_bits);
      const __m512i mask = _mm512_set1_epi32((1 << r.low_bits) - 1);
      s0 = _mm512_or_si512(_mm512_sll_epi32(s0, n), _mm512_and_si512(h.x0, mask));
      s1 = _mm512_or_si512(_mm512_sll_epi32(s1, n), _mm512_and_si512(h.x1, mask));
      const __m512i a = _mm512_srl_epi32(h.x0, n), b = _mm512_srl_epi32(h.x1, n);
      h.x0 = Full ? a : _mm512_mask_mov_epi32(h.x0, static_cast<__mmask16>(r.active), a);
      h.x1 = Full ? b : _mm512_mask_mov_epi32(h.x1, static_cast<__mmask16>(r.active >> 16), b);
      refill(k, Full ? ~__mmask32{0} : r.active, h);
    }
    if constexpr (M == Mode::kTrellis) {
      const __m256i half0 = _mm512_cvtepi32_epi16(s0), half1 = _mm512_cvtepi32_epi16(s1);
      const __m512i symbols = _mm512_inserti64x4(_mm512_castsi256_si512(half0), half1, 1);
      _mm512_store_si512(to, wide_integers_of(h.trellis, symbols));
      h.trellis = next_states(k, h.trellis, _mm512_castsi512_si256(_mm512_permutex2var_epi8(s0, k.symbols, s1)));
    } else {
      h.packed0 = _mm512_shrdi_epi32(h.packed0, s0, 16);
      h.packed1 = _mm512_shrdi_epi32(h.packed1, s1, 16);
    }
  }
}

// A block in the making. `Wide`: 16-bit symbols with raw low bits.
template <bool Wide>
struct State {
  static constexpr int kPerWord = Wide ? 2 : 4;              // symbols in a 32-bit element
  static constexpr int kLine = kLineBytes / (Wide ? 2 : 1);  // symbols in a line

  const BlockJob* job;
  Classes classes;
  Hot hot;
  Row row;
  int64_t column, row_index, step, steps;
  // The symbols of a line: elements of several steps, lane by lane; of trellis sets one step after the other.
  alignas(64) uint32_t line[kLineBytes / 4][kLanes];

  void* place_in_line(int64_t at) { return reinterpret_cast<char*>(line) + at % kLine * kLanes * (Wide ? 2 : 1); }

  TK_INLINE void load_row() {
    const auto* from = reinterpret_cast<const __m256i*>(job->row_class + row_index * job->row_step);
    row.classes = _mm256_loadu_si256(from);
    if (!row.col_class) {
      if (job->mode == Mode::kTrellis) {
        row.choice = choose<Mode::kTrellis>(classes, row.classes, _mm256_setzero_si256());
      } else if (job->mode == Mode::kContexts) {
        row.choice = choose<Mode::kContexts>(classes, row.classes, _mm256_setzero_si256());
      } else {
        const Choice choice = choose<Mode::kClasses>(classes, row.classes, _mm256_setzero_si256());
        first_slots(Shuffles(), choice.tables[0], &row.at0, &row.at1);
      }
    }
    hot.previous = hot.trellis = _mm256_setzero_si256();
    const int lanes = row_index < job->last_rows ? job->lanes : job->lanes - 1;
    row.active = lanes == kLanes ? ~__mmask32{0} : (__mmask32{1} << lanes) - 1;
  }

  void load_classes(const TableSet& set) {
    alignas(64) uint8_t tables[kMaxQuantisers][kMaxContexts][kMaxClasses] = {};
    for (int y = 0; y < set.classes; ++y)
      for (int z = 0; z < kMaxContexts; ++z)
        for (int q = 0; q < set.quantisers; ++q)
          tables[q][z][y] = set.map[set.place_of(y, std::min(z, set.contexts - 1), q)];
    for (int z = 0; z < kMaxContexts; ++z) {
      classes.tables[z] = load512(tables[0][z]);
      classes.others[z] = load512(tables[1][z]);
    }
    classes.t1 = load512(set.t1);
    classes.t2 = load512(set.t2);
    classes.top = _mm256_set1_epi8(static_cast<int8_t>(set.classes - 1));
  }

  void start(const BlockJob* j) {
    job = j;
    load_classes(*j->set);
    row.slots = j->set->slots;
    row.col_class = j->col_class;
    row.low_bits = j->low_bits;
    alignas(64) uint32_t x[kLanes];
    for (int i = 0; i < kLanes; ++i) x[i] = i < j->lanes ? load_u32(j->states + 2 * i) : kStateLow;
    hot.p = j->words;
    hot.x0 = _mm512_load_si512(x);
    hot.x1 = _mm512_load_si512(x + 16);
    hot.packed0 = hot.packed1 = _mm512_setzero_si512();
    column = row_index = step = 0;
    steps = j->rows * j->columns;
    load_row();
  }

  TK_INLINE void keep_packed(int64_t at, const Hot& h) {
    uint32_t* const word = line[(at % kLine) / kPerWord];
    _mm512_store_si512(word, h.packed0);
    _mm512_store_si512(word + 16, h.packed1);
  }

  // Writes the `count` symbols of every lane that stand in `line`, the last of which is symbol `end - 1` of its lane.
  TK_INLINE void flush(int64_t end, int64_t count) {
    constexpr int64_t size = Wide ? 2 : 1;
    if (job->mode == Mode::kTrellis) gather_line();
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

  // Brings the line of a trellis set, one step after the other, into the order of the others.
  void gather_line() {
    for (int i = 0; i < kLineBytes / 4; ++i) {
      const __m512i a = load512(line[i]), b = load512(line[i] + 16);
      if constexpr (Wide) {
        _mm512_store_si512(line[i], _mm512_permutex2var_epi16(a, load512(kShuffles.words0), b));
        _mm512_store_si512(line[i] + 16, _mm512_permutex2var_epi16(a, load512(kShuffles.words1), b));
      } else {
        _mm512_store_si512(line[i], _mm512_permutex2var_epi8(a, load512(kShuffles.bytes0), b));
        _mm512_store_si512(line[i] + 16, _mm512_permutex2var_epi8(a, load512(kShuffles.bytes1), b));
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
template <bool Wide, bool Full, Mode M, bool Columns, int Count>
TK_INLINE void run_steps(State<Wide>* s, int64_t n) {
  constexpr int per = State<Wide>::kPerWord;
  const Shuffles k;
  // Local copies, so that the compiler keeps them in registers.
  Hot a = s[0].hot, b = s[Count - 1].hot;
  const Classes classes_a = s[0].classes, classes_b = s[Count - 1].classes;
  const Row row_a = s[0].row, row_b = s[Count - 1].row;
  const int64_t column_a = s[0].column, column_b = s[Count - 1].column, step = s[0].step;
  for (int64_t i = 0; i < n; ++i) {
    decode_step<Wide, Full, M, Columns>(k, classes_a, row_a, column_a + i, a, s[0].place_in_line(step + i));
    if constexpr (Count == 2)
      decode_step<Wide, Full, M, Columns>(k, classes_b, row_b, column_b + i, b, s[1].place_in_line(step + i));
    if (M != Mode::kTrellis && (step + i + 1) % per == 0) {
      s[0].keep_packed(step + i, a);
      if constexpr (Count == 2) s[1].keep_packed(step + i, b);
    }
  }
  s[0].hot = a;
  if constexpr (Count == 2) s[1].hot = b;
}

// The last, incomplete element of a line: its symbols stand at the top and must come down.
template <bool Wide>
TK_INLINE void keep_partial(State<Wide>* s) {
  constexpr int per = State<Wide>::kPerWord;
  const int missing = per - static_cast<int>(s->step % per);
  if (missing == per || s->job->mode == Mode::kTrellis) return;
  const __m128i shift = _mm_cvtsi32_si128(missing * 32 / per);
  Hot h = s->hot;
  h.packed0 = _mm512_srl_epi32(h.packed0, shift);
  h.packed1 = _mm512_srl_epi32(h.packed1, shift);
  s->keep_packed(s->step, h);
}

template <bool Wide>
TK_INLINE void after_steps(State<Wide>* s, int64_t n) {
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
template <bool Wide, Mode M, bool Columns, int Count>
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
      run_steps<Wide, true, M, Columns, Count>(s, n);
    else
      run_steps<Wide, false, M, Columns, Count>(s, n);
    for (int b = 0; b < Count; ++b) after_steps(&s[b], n);
  }
}

// Near the end of readable memory the words are copied to where loads may run past them.
template <bool Wide, Mode M, bool Columns>
bool finish(State<Wide>* s) {
  run_together<Wide, M, Columns, 1>(s);
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
      run_steps<Wide, false, M, Columns, 1>(s, one);
      after_steps(s, one);
    }
    s->hot.p = from + (s->hot.p - tail);
  }
  return s->finished();
}

template <bool Wide, Mode M, bool Columns>
bool decode_pair(const BlockJob* jobs, int count) {
  State<Wide> s[2];
  for (int i = 0; i < count; ++i) s[i].start(&jobs[i]);
  if (count == 2) run_together<Wide, M, Columns, 2>(s);
  bool good = true;
  for (int i = 0; i < count; ++i) good = finish<Wide, M, Columns>(&s[i]) && good;
  return good;
}

template <bool Wide, bool Columns>
bool decode_in_mode(const BlockJob* jobs, int count) {
  switch (jobs[0].mode) {
    case Mode::kTrellis:
      return decode_pair<Wide, Mode::kTrellis, Columns>(jobs, count);
    case Mode::kContexts:
      return decode_pair<Wide, Mode::kContexts, Columns>(jobs, count);
    default:
      return decode_pair<Wide, Mode::kClasses, Columns>(jobs, count);
  }
}

template <bool Wide>
bool decode_blocks(const BlockJob* jobs, int count) {
  return jobs[0].col_class ? decode_in_mode<Wide, true>(jobs, count) : decode_in_mode<Wide, false>(jobs, count);
}

}  // namespace

Kernels kernels_avx512() { return {decode_blocks<false>, decode_blocks<true>}; }

}  // namespace toolkit::wide
#endif
