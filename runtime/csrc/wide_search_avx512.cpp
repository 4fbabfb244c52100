// The AVX-512 block decoder for small alphabets: no memory access finds a symbol, and 16-bit arithmetic does for all.
// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include "wide_search_avx512.h"

#include "wide_avx512_block.h"
#include "wide_search.h"

namespace toolkit::wide {
namespace {

// Elements n, below 2^Bits, of a table of 16-bit values.
template <int Bits>
TK_INLINE __m512i select(const uint16_t* table, __m512i n) {
  if constexpr (Bits <= 5) {
    return _mm512_permutexvar_epi16(n, load512(table));
  } else if constexpr (Bits == 6) {
    return _mm512_permutex2var_epi16(load512(table), n, load512(table + 32));
  } else {
    constexpr int half = 1 << (Bits - 1);
    const __mmask32 upper = _mm512_test_epi16_mask(n, _mm512_set1_epi16(half));
    return _mm512_mask_mov_epi16(select<Bits - 1>(table, n), upper, select<Bits - 1>(table + half, n));
  }
}

// What is known of the slots of a symbol during a search.
struct Found {
  __m512i begin, end;  // the symbol's first slot and the one behind its last, less one each; 32 x int16
  __m512i path;        // its lowest bits are those of the leaf
};

// One level of a search for `slot`: to the right where the node, stored less one, is below that. Differences instead of
// comparisons, whose masks would take longer to come back.
TK_INLINE void descend(__m512i node, __m512i slot, Found* f) {
  const __m512i difference = _mm512_sub_epi16(node, slot);
  const __m512i right = _mm512_srai_epi16(difference, 15);
  f->path = _mm512_shldi_epi16(f->path, difference, 1);
  f->begin = _mm512_ternarylogic_epi32(right, node, f->begin, 0xca);
  f->end = _mm512_ternarylogic_epi32(right, f->end, node, 0xca);
}

// The tree of a block's only table.
struct OneTree {
  static const uint16_t* nodes_of(const BlockJob& job) { return job.tree->nodes; }
  static int first_of(const BlockJob& job) { return job.tree->first_symbol; }
  static const uint8_t* map_of(const BlockJob& job) { return job.set->map; }

  static TK_INLINE void search(const uint16_t* nodes, __m512i slot, Found* f) {
    // A path, with the 1 that it begins with, is the place of its node.
    for (int level = 0; level < kSearchLevels; ++level) descend(select<5>(nodes, f->path), slot, f);
  }

  static TK_INLINE __m512i roots(__m256i) { return _mm512_set1_epi16(1); }
};

// The trees of a set, by the number of the tree.
struct Forest {
  static const uint16_t* nodes_of(const BlockJob& job) { return job.forest->nodes; }
  static int first_of(const BlockJob& job) { return job.forest->first_symbol; }
  static const uint8_t* map_of(const BlockJob& job) { return job.forest->map; }

  template <int Level = 0>
  static TK_INLINE void search(const uint16_t* nodes, __m512i slot, Found* f) {
    constexpr int first = SearchForest::kTrees * ((1 << Level) - 1);
    descend(select<5 + Level>(nodes + first, f->path), slot, f);
    if constexpr (Level + 1 < kSearchLevels) search<Level + 1>(nodes, slot, f);
  }

  static TK_INLINE __m512i roots(__m256i tables) { return _mm512_cvtepu8_epi16(tables); }
};

template <bool Wide, class Trees>
struct SearchCore {
  static constexpr bool kWide = Wide;

  struct Constants {
    __m256i transitions = transition_table();
  };

  struct Hot : HotBase {
    __m512i high, low;  // halves of the states, 32 x uint16
  };

  struct Row : RowBase {
    const uint16_t* nodes;
    __m256i first_symbol;
    __m512i roots;  // where neither columns nor contexts change them
  };

  static constexpr bool in_steps(Mode) { return true; }
  static const uint8_t* map_of(const BlockJob& job) { return Trees::map_of(job); }
  static void start(const BlockJob& job, Row* row) {
    row->nodes = Trees::nodes_of(job);
    row->first_symbol = _mm256_set1_epi8(static_cast<int8_t>(Trees::first_of(job)));
  }
  static TK_INLINE void start_row(Row* row) { row->roots = Trees::roots(row->choice.tables[0]); }

  static void load_states(const uint32_t* x, Hot* h) {
    alignas(64) uint16_t high[kLanes], low[kLanes];
    for (int i = 0; i < kLanes; ++i) high[i] = static_cast<uint16_t>(x[i] >> 16), low[i] = static_cast<uint16_t>(x[i]);
    h->high = load512(high);
    h->low = load512(low);
  }

  static bool at_rest(const Hot& h) {
    static_assert(kStateLow == 1u << 16);
    return _mm512_cmpneq_epi16_mask(h.high, _mm512_set1_epi16(1)) == 0 && _mm512_test_epi16_mask(h.low, h.low) == 0;
  }

  static TK_INLINE void keep(const Hot&, uint32_t*) {}
  static TK_INLINE void keep_partial(const Hot&, int64_t, Line<Wide>*) {}

  // Refills the states below 2^16 among the lanes of `mask` (FORMAT.md 2.6 step 5).
  static TK_INLINE void refill(__mmask32 mask, Hot& h) {
    const __mmask32 m = _mm512_mask_testn_epi16_mask(mask, h.high, h.high);
    __m512i next = load512(h.p);
    asm("" : "+v"(next));  // from a register: expanding from memory is microcode, many times slower
    h.high = _mm512_mask_mov_epi16(h.high, m, h.low);
    h.low = _mm512_mask_expand_epi16(h.low, m, next);
    h.p += _mm_popcnt_u32(m);
  }

  // x <- f * (x >> 12) + bias, f = end - begin, bias = slot - 1 - begin; `slot`: x % 4096.
  static TK_INLINE void advance(const Found& f, __m512i slot, Hot& h) {
    // 16 f fits 16 bits, as f < 4096; with x = high * 2^16 + (low - slot) + slot it multiplies each part / 16.
    const __m512i f16 = _mm512_slli_epi16(_mm512_sub_epi16(f.end, f.begin), 4);
    // f * (low >> 12) + bias <= 4095 * 15 + 4094: fits.
    const __m512i bias = _mm512_sub_epi16(_mm512_add_epi16(slot, _mm512_set1_epi16(-1)), f.begin);
    const __m512i rest = _mm512_add_epi16(_mm512_mulhi_epu16(f16, _mm512_sub_epi16(h.low, slot)), bias);
    const __m512i low = _mm512_add_epi16(_mm512_mullo_epi16(f16, h.high), rest);
    const __mmask32 carry = _mm512_cmplt_epu16_mask(low, rest);
    const __m512i high = _mm512_mulhi_epu16(f16, h.high);
    h.high = _mm512_mask_sub_epi16(high, carry, high, _mm512_set1_epi16(-1));
    h.low = low;
  }

  static TK_INLINE void keep_idle(__mmask32 active, const Hot& before, Hot& h) {
    h.high = _mm512_mask_mov_epi16(before.high, active, h.high);
    h.low = _mm512_mask_mov_epi16(before.low, active, h.low);
  }

  // One step of all active lanes. `Full`: every lane is active. `Columns`: columns have classes. The symbols of all
  // lanes, of trellis sets the integers, go to `to`.
  template <bool Full, Mode M, bool Columns>
  static TK_INLINE void step(const Constants& k, const Classes& set, const Row& r, int64_t c, Hot& h, void* to) {
    Found f;
    if constexpr (has_contexts(M) || Columns) {
      Choice choice = r.choice;
      if constexpr (Columns) choice = choose<M>(set, r.classes, _mm256_set1_epi8(r.col_class[c]));
      f.path = Trees::roots(has_contexts(M) ? in_context<M>(choice, h.previous, h.trellis) : choice.tables[0]);
    } else {
      f.path = r.roots;
    }
    f.begin = _mm512_set1_epi16(-1);
    f.end = _mm512_set1_epi16(kSlots - 1);
    const __m512i slot = _mm512_and_si512(h.low, _mm512_set1_epi16(kSlots - 1));
    Trees::search(r.nodes, slot, &f);
    const Hot before = h;
    advance(f, slot, h);
    if constexpr (!Full) keep_idle(r.active, before, h);
    refill(Full ? ~__mmask32{0} : r.active, h);
    const __m256i leaf = _mm256_set1_epi8((1 << kSearchLevels) - 1);
    const __m256i symbols = _mm256_add_epi8(_mm256_and_si256(_mm512_cvtepi16_epi8(f.path), leaf), r.first_symbol);
    if constexpr (has_contexts(M)) h.previous = symbols;
    if constexpr (!Wide) {
      const __m256i values = M == Mode::kTrellis ? integers_of(h.trellis, symbols) : symbols;
      _mm256_store_si256(static_cast<__m256i*>(to), values);
      if constexpr (M == Mode::kTrellis) h.trellis = next_states(k.transitions, h.trellis, symbols);
    } else {
      __m512i values = _mm512_cvtepi8_epi16(symbols);
      if (r.low_bits) {
        const __m512i n = _mm512_set1_epi16(static_cast<int16_t>(r.low_bits));
        const __m512i raw = _mm512_and_si512(h.low, _mm512_set1_epi16(static_cast<int16_t>((1 << r.low_bits) - 1)));
        values = _mm512_or_si512(_mm512_sllv_epi16(values, n), raw);
        const Hot coded = h;
        h.low = _mm512_shrdv_epi16(h.low, h.high, n);
        h.high = _mm512_srlv_epi16(h.high, n);
        if constexpr (!Full) keep_idle(r.active, coded, h);
        refill(Full ? ~__mmask32{0} : r.active, h);
      }
      if constexpr (M == Mode::kTrellis) {
        _mm512_store_si512(to, wide_integers_of(h.trellis, values));
        h.trellis = next_states(k.transitions, h.trellis, _mm512_cvtepi16_epi8(values));
      } else {
        _mm512_store_si512(to, values);
      }
    }
  }
};

template <bool Wide>
bool search_blocks(const BlockJob* jobs, int count) {
  if (jobs[0].tree) return decode_pair<SearchCore<Wide, OneTree>, Mode::kClasses, false>(jobs, count);
  return decode_in_any_mode<SearchCore<Wide, Forest>>(jobs, count);
}

}  // namespace

bool search_blocks_avx512(bool wide, const BlockJob* jobs, int count) {
  return wide ? search_blocks<true>(jobs, count) : search_blocks<false>(jobs, count);
}

}  // namespace toolkit::wide
#endif
